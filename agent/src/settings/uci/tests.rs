use super::*;
use proptest::prelude::*;

fn section(text: &str) -> Section {
    let [section] = parse(text).unwrap().sections.try_into().unwrap();
    section
}

fn one(text: &str) -> String {
    let section = section(&format!("config x\n option o {text}"));
    section.text("o").unwrap().to_owned()
}

#[test]
fn quotes_escapes_and_what_touches() {
    for (written, value) in [
        ("plain", "plain"),
        ("'two words'", "two words"),
        (r#""two \"words\"""#, r#"two "words""#),
        (r"'it'\''s'", "it's"),
        (r#"a'b c'"d e"f"#, "ab cd ef"),
        (r"'back\slash'", r"back\slash"),
        (r"back\ slash", "back slash"),
        ("''", ""),
        ("'# no comment'", "# no comment"),
        ("value# a comment", "value"),
        ("'ein Wörtchen 5G✓'", "ein Wörtchen 5G✓"),
        ("'two\nlines'", "two\nlines"),
        ("\"joined \\\nline\"", "joined line"),
        ("join\\\r\ned", "joined"),
        ("'x'\r\n", "x"),
    ] {
        assert_eq!(one(written), value, "{written:?}");
    }
}

#[test]
fn a_whole_package() {
    let package = parse(
        "# written by hand\r\npackage modem-upgrader\r\n\r\nconfig coordinator 'coordinator'\r\n\
         \toption url 'https://h'  # where\r\n\tlist pins 'a'\r\n\tlist pins 'b'\r\n\r\n\
         config slot\n\toption name left-modem; option imei 1\nconfig slot\n\tlist at_ports x\n",
    )
    .unwrap();
    assert_eq!(package.name.as_deref(), Some("modem-upgrader"));
    let [coordinator, left, other] = package.sections.try_into().unwrap();
    assert_eq!(coordinator.name.as_deref(), Some("coordinator"));
    assert_eq!(coordinator.line, 4);
    assert_eq!(coordinator.text("url"), Some("https://h"));
    let pins = coordinator.options.last().unwrap();
    assert_eq!((pins.line, &pins.value), (7, &Value::List(vec!["a".into(), "b".into()])));
    assert_eq!((left.name.as_deref(), left.text("name")), (None, Some("left-modem")));
    assert_eq!((left.text("imei"), left.options[1].line), (Some("1"), 10));
    assert_eq!(other.options[0].value, Value::List(vec!["x".into()]));
}

#[test]
fn the_last_word_counts_and_a_section_may_go_on() {
    let text = "config a 'x'\noption o 1\nconfig b\nconfig a 'x'\noption o 2\nlist o 3\noption p 4";
    let package = parse(text).unwrap();
    let [b, a] = package.sections.try_into().unwrap();
    assert_eq!((b.kind.as_str(), a.line), ("b", 1));
    assert_eq!(a.options[0].value, Value::List(vec!["2".into(), "3".into()]));
    assert_eq!(section("config a\nlist o 1\noption o 2").text("o"), Some("2"));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, error) in [
        ("config x\n option o 'open\n\n", "line 2: the quote that begins here has no end"),
        ("config x\n option o \"open", "line 2: the quote that begins here has no end"),
        (
            "config x\n\noptoin o 1",
            "line 3: \"optoin\" is no statement; expected package, config, option or list",
        ),
        ("option o 1", "line 1: an option outside of any section"),
        ("config", "line 1: config wants a type and at most a name"),
        ("config a b c", "line 1: config wants a type and at most a name"),
        ("config x\noption o", "line 2: option wants a name and a value"),
        ("config x\nlist o 1 2", "line 2: list wants a name and a value"),
        ("config 'left modem'", "line 1: \"left modem\" is no type; one word is"),
        ("config x left-modem", "line 1: \"left-modem\" is no name; letters, digits and _ are"),
        ("config x\noption at-port 1", "line 2: \"at-port\" is no name; letters, digits and _ are"),
        ("package a\npackage b", "line 2: a second package"),
        ("package", "line 1: package wants a name"),
        ("config x\0", "line 1: a zero byte"),
    ] {
        assert_eq!(parse(text).unwrap_err().to_string(), error, "{text:?}");
    }
    let large = "#".repeat(MAX_BYTES + 1);
    assert_eq!(parse(&large).unwrap_err().problem, Problem::TooLarge);
    assert_eq!(parse(&large[1..]).unwrap(), Package::default());
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_]{1,12}"
}

fn value() -> impl Strategy<Value = Value> {
    // Everything but NUL, and often what has a meaning.
    let text = prop_oneof!["[^\0]{0,24}", "['\"\\\\#; \t\r\n]{0,8}"];
    prop_oneof![
        text.clone().prop_map(Value::One),
        prop::collection::vec(text, 1..4).prop_map(Value::List)
    ]
}

fn package() -> impl Strategy<Value = Package> {
    let options = prop::collection::btree_map(name(), value(), 0..5);
    let kind = prop_oneof![name(), "[!-~]{1,12}"];
    let section = (kind, options).prop_map(|(kind, options)| {
        let options = options.into_iter();
        let options = options.map(|(name, value)| UciOption { name, value, line: 0 }).collect();
        Section { kind, name: None, options, line: 0 }
    });
    let sections = prop::collection::vec((section, prop::option::of(name())), 0..5);
    (prop::option::of("[a-z][a-z0-9-]{0,12}"), sections).prop_map(|(name, sections)| {
        let mut package = Package { name, sections: Vec::new() };
        for (mut section, name) in sections {
            // A name is used once.
            let taken = package.sections.iter().any(|other| other.name == name);
            section.name = name.filter(|_| !taken);
            package.sections.push(section);
        }
        package
    })
}

fn without_lines(mut package: Package) -> Package {
    for section in &mut package.sections {
        section.line = 0;
        section.options.iter_mut().for_each(|option| option.line = 0);
    }
    package
}

proptest! {
    #[test]
    fn what_is_exported_is_read_again(package in package()) {
        let text = export(&package);
        prop_assert_eq!(without_lines(parse(&text).unwrap()), package, "{}", text);
    }

    #[test]
    fn nothing_makes_it_panic(text in "(config |option |list |package |[a-z'\"\\\\#; \t\r\n\0é]){0,60}") {
        if let Ok(package) = parse(&text) {
            // What was understood is understood the same again.
            let again = parse(&export(&package)).unwrap();
            prop_assert_eq!(without_lines(again), without_lines(package));
        }
    }
}
