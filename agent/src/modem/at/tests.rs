use proptest::prelude::*;

use super::*;

fn items_in_reads(command: &str, answer: Answer, reads: &[&[u8]]) -> Vec<Item> {
    let mut digester = Digester::default();
    digester.begin(command, answer);
    let mut items = Vec::new();
    for read in reads {
        digester.feed(read, &mut |item| items.push(item));
    }
    items
}

fn items(command: &str, bytes: &[u8]) -> Vec<Item> {
    items_in_reads(command, Answer::Text, &[bytes])
}

fn line(text: &str) -> Item {
    Item::Line(text.to_owned())
}

fn urc(text: &str) -> Item {
    Item::Urc(text.to_owned())
}

const PACKAGE: &[u8] =
    b"\r\n45.00.010-B022-P0R.001600\r\nM0R.010000-B022\r\nP0R.001600\r\nA0R.000000-B022\r\n\r\nOK\r\n";

#[test]
fn the_package_version_of_an_fn990_as_modem_manager_recorded_it() {
    assert_eq!(
        items("AT#SWPKGV", PACKAGE),
        [
            line("45.00.010-B022-P0R.001600"),
            line("M0R.010000-B022"),
            line("P0R.001600"),
            line("A0R.000000-B022"),
            Item::Final(Final::Ok),
        ]
    );
}

#[test]
fn an_echo_is_dropped_also_with_rubbish_before_it() {
    let wanted = [line("Telit"), Item::Final(Final::Ok)];
    assert_eq!(items("AT+CGMI", b"AT+CGMI\r\r\nTelit\r\n\r\nOK\r\n"), wanted);
    assert_eq!(items("AT+CGMI", b"\xff\xfe\x81AT+CGMI\r\r\nTelit\r\n\r\nOK\r\n"), wanted);
    assert_eq!(items("AT+CGMI", b"\0\0AT+CGMI\r\r\nTelit\r\n\r\nOK\r\n"), wanted);
}

#[test]
fn only_a_whole_line_is_a_result() {
    let reply = items("AT#X", b"\r\nHTTP/1.1 200 OK\r\n\r\nOKAY\r\n\r\nNOT OK\r\n\r\nOK\r\n");
    assert_eq!(
        reply,
        [line("HTTP/1.1 200 OK"), line("OKAY"), line("NOT OK"), Item::Final(Final::Ok)]
    );
}

#[test]
fn errors_by_number_and_by_text() {
    let result = |bytes: &[u8]| items("AT+CPIN?", bytes).pop();
    assert_eq!(result(b"\r\n+CME ERROR: 10\r\n"), Some(Item::Final(Final::Cme(Code::Number(10)))));
    assert_eq!(
        result(b"\r\n+CME ERROR: SIM not inserted\r\n"),
        Some(Item::Final(Final::Cme(Code::Text("SIM not inserted".into()))))
    );
    assert_eq!(
        result(b"\r\n+CMS ERROR: 500\r\n"),
        Some(Item::Final(Final::Cms(Code::Number(500))))
    );
    assert_eq!(result(b"\r\nERROR\r\n"), Some(Item::Final(Final::Error)));
    assert_eq!(result(b"\r\nMODEM ERROR: 3\r\n"), Some(Item::Final(Final::Error)));
    assert_eq!(result(b"\r\nCOMMAND NOT SUPPORT\r\n"), Some(Item::Final(Final::NotSupported)));
}

#[test]
fn numeric_results_only_where_no_answer_is_due() {
    let quiet = |bytes| items_in_reads("ATE0", Answer::Nothing, &[bytes]);
    assert_eq!(quiet(b"0\r"), [Item::Final(Final::Ok)]);
    assert_eq!(quiet(b"4\r"), [Item::Final(Final::Error)]);
    assert_eq!(quiet(b"ATE0\r0\r"), [Item::Final(Final::Ok)]);
    assert_eq!(items("AT+X", b"\r\n0\r\n\r\nOK\r\n"), [line("0"), Item::Final(Final::Ok)]);
}

#[test]
fn unsolicited_codes_between_the_lines_are_set_apart() {
    let reply =
        b"\r\n+CREG: 1\r\n\r\n45.00.012\r\n\r\nRING\r\n\r\n#STN: 237\r\nM0R.010002\r\n\r\nOK\r\n";
    assert_eq!(
        items("AT#SWPKGV", reply),
        [
            urc("+CREG: 1"),
            line("45.00.012"),
            urc("RING"),
            urc("#STN: 237"),
            line("M0R.010002"),
            Item::Final(Final::Ok),
        ]
    );
}

#[test]
fn the_text_of_a_message_is_never_an_answer() {
    let reply = b"\r\n+CMT: \"+1\",,\"x\"\r\nOK\r\n\r\nM0R.010002\r\n\r\nOK\r\n";
    assert_eq!(
        items("AT+CGMR", reply),
        [urc("+CMT: \"+1\",,\"x\" OK"), line("M0R.010002"), Item::Final(Final::Ok)]
    );
    let empty = b"\r\n+CMT: \"+1\",,\"x\"\r\n\r\n\r\nM0R.010002\r\n\r\nOK\r\n";
    assert_eq!(
        items("AT+CGMR", empty),
        [urc("+CMT: \"+1\",,\"x\" "), line("M0R.010002"), Item::Final(Final::Ok)]
    );
}

#[test]
fn the_end_of_a_call_is_a_result_of_dialling_only() {
    assert_eq!(
        items("AT+CGMR", b"\r\nNO CARRIER\r\n\r\nM0R.010002\r\n\r\nOK\r\n"),
        [urc("NO CARRIER"), line("M0R.010002"), Item::Final(Final::Ok)]
    );
    assert_eq!(items("ATD*99#", b"\nNO CARRIER\r\n"), [Item::Final(Final::NoCarrier)]);
    assert_eq!(items("ATD*99#", b"\r\nCONNECT 115200\r\n"), [Item::Final(Final::Connect)]);
}

#[test]
fn a_prompt_needs_no_line_end() {
    assert_eq!(items("AT+CMGS=1", b"\r\n> "), [Item::Prompt]);
    assert_eq!(items("AT+X", b"\r\na > b\r\n\r\nOK\r\n"), [line("a > b"), Item::Final(Final::Ok)]);
}

#[test]
fn nothing_is_an_answer_before_a_command_or_after_its_result() {
    let mut digester = Digester::default();
    let mut items = Vec::new();
    digester.feed(b"\r\nhello\r\nOK\r\n", &mut |item| items.push(item));
    assert_eq!(items, [urc("hello"), urc("OK")]);
    items.clear();
    digester.begin("AT", Answer::Nothing);
    digester.feed(b"\r\nOK\r\n\r\nlate\r\n", &mut |item| items.push(item));
    assert_eq!(items, [Item::Final(Final::Ok), urc("late")]);
}

#[test]
fn an_endless_line_costs_no_memory_and_spoils_only_its_reply() {
    let mut digester = Digester::default();
    digester.begin("AT+X", Answer::Text);
    let mut items = Vec::new();
    for _ in 0..1000 {
        digester.feed(&[b'x'; 1000], &mut |item| items.push(item));
        assert!(digester.line.capacity() <= MAX_LINE * 2);
    }
    digester.feed(b"\r\n\r\nOK\r\n", &mut |item| items.push(item));
    assert_eq!(items, [Item::Overlong, Item::Final(Final::Ok)]);

    let mut collector = Collector::default();
    let reply = items.into_iter().find_map(|item| collector.take(item));
    assert_eq!(reply, Some(Err(TooLong)));
}

#[test]
fn a_reply_is_bounded() {
    let mut collector = Collector::default();
    for _ in 0..=MAX_REPLY_LINES {
        assert_eq!(collector.take(line("x")), None);
    }
    assert_eq!(collector.take(Item::Final(Final::Ok)), Some(Err(TooLong)));
    assert!(collector.lines.is_empty());
}

#[test]
fn the_benchmark_frames_every_reply() {
    assert_eq!(frame_transcript(&PACKAGE.repeat(10), "AT#SWPKGV", PACKAGE.len()), 50);
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(PACKAGE.to_vec()),
        Just(b"\r\n+CMT: \"+1\",,\"x\"\r\nOK\r\n".to_vec()),
        Just(b"\r\n+CREG: 1\r\n".to_vec()),
        Just(b"AT#SWPKGV\r\r\n".to_vec()),
        Just(b"\r\n+CME ERROR: 14\r\n".to_vec()),
        Just(b"\r\n> ".to_vec()),
        Just(b"0\r".to_vec()),
        Just(vec![0, 0, b'\r', 0xff, b'\n']),
        Just(vec![b'y'; MAX_LINE + 1]),
        proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn any_fragmentation_gives_the_same_items(
        parts in proptest::collection::vec(fragment(), 0..12),
        cuts in proptest::collection::vec(1usize..50, 1..200),
        quiet in any::<bool>(),
    ) {
        let answer = if quiet { Answer::Nothing } else { Answer::Text };
        let bytes = parts.concat();
        let mut reads = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (read, tail) = rest.split_at((*cut).min(rest.len()));
            reads.push(read);
            rest = tail;
        }
        prop_assert_eq!(
            items_in_reads("AT#SWPKGV", answer, &[&bytes]),
            items_in_reads("AT#SWPKGV", answer, &reads)
        );
    }

    #[test]
    fn no_bytes_make_it_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let mut digester = Digester::default();
        digester.begin("AT", Answer::Text);
        digester.feed(&bytes, &mut |_| {});
        prop_assert!(digester.line.len() <= MAX_LINE);
    }
}
