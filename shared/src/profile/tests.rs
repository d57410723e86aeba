use super::{options::OptionRefused, *};
use crate::desired::OptionValue;

fn uxfp() -> ToolProfile {
    ToolProfile::parse(BUILT_IN[0].1).unwrap()
}

fn choose(name: &str, value: OptionValue) -> Result<Vec<String>, OptionRefused> {
    options::argv(&uxfp().options, &BTreeMap::from([(name.to_owned(), value)]))
}

#[test]
fn every_built_in_profile_is_sound_and_bears_its_name() {
    for (name, text) in BUILT_IN {
        assert_eq!(ToolProfile::parse(text).unwrap().name, *name);
    }
}

#[test]
fn a_profile_is_for_the_ids_that_it_names() {
    let id = |text: &str| text.parse::<UsbId>().unwrap();
    assert!(uxfp().fits_usb(id("1bc7:1070")) && uxfp().doubts().is_empty());
    assert!(!uxfp().fits_usb(id("1bc7:1074")));
    let line = "usb = [\"1bc7:1070\", \"1bc7:1071\", \"1bc7:1072\", \"1bc7:1073\"]\n";
    let any = ToolProfile::parse(&BUILT_IN[0].1.replace(line, "")).unwrap();
    assert!(any.fits_usb(id("1bc7:1074")));
    assert_eq!(any.doubts().len(), 1, "with a download mode that is a lot");
}

#[test]
fn an_option_becomes_one_element_after_its_flag() {
    let word = |w: &str| OptionValue::Word(w.into());
    assert_eq!(choose("speed", word("921600")).unwrap(), ["--speed", "921600"]);
    assert_eq!(choose("speed", OptionValue::Number(921_600)).unwrap(), ["--speed", "921600"]);
    assert_eq!(choose("debug", OptionValue::Flag(true)).unwrap(), ["--debug"]);
    assert_eq!(choose("debug", OptionValue::Flag(false)).unwrap(), [""; 0]);
}

#[test]
fn nothing_else_becomes_an_argument() {
    let word = |w: &str| OptionValue::Word(w.into());
    for (name, value) in [
        ("speed", word("--port=/dev/ttyUSB9")),
        ("speed", word("115200; reboot")),
        ("speed", word("$(reboot)")),
        ("speed", OptionValue::Flag(true)),
        ("debug", word("true")),
        ("tool_path", word("/tmp/evil")),
        ("program", word("/bin/sh")),
        ("-f", word("x")),
        ("", word("x")),
    ] {
        assert_eq!(choose(name, value).unwrap_err().name(), name);
    }
}

#[test]
fn a_mistake_names_its_key() {
    let text = BUILT_IN[0].1;
    for (from, to, name) in [
        ("[tool]", "[tool]\nshell = true", "shell"),
        ("\"/usr/bin/uxfp\"", "\"uxfp\"", "tool.program"),
        ("\"{image}\"", "\"{image};reboot\"", "tool.argv"),
        ("\"{image}\"", "\"{password}\"", "tool.argv"),
        ("flag = \"--speed\"", "flag = \"speed\"", "options.speed"),
        ("values = [\"115200\"", "values = [\"-x\", \"115200\"", "options.speed"),
        ("download_mode = [\"1bc7:9010\"]", "", "fits.download_mode"),
        ("total_s = 1200", "total_s = 0", "timeouts.total_s"),
        ("typical_s = 480", "typical_s = 1201", "timeouts.typical_s"),
        ("boot_s = 120", "boot_s = 9223372036854775807", "timeouts.boot_s"),
        ("{percent}%\"]", "42%\"]", "output.progress"),
        ("[\"firmware uploaded", "[\"*\", \"firmware uploaded", "output.success"),
        ("diag = true", "diag = false", "needs.diag"),
        ("image = \"descriptor\"", "image = \"named\"", "tool.image_name"),
        ("image = \"descriptor\"", "image_name = \"a.zip\"", "tool.image_name"),
        ("image = \"descriptor\"", "image = \"named\"\nimage_name = \"../x\"", "tool.image_name"),
        ("\"{port}\"", "\"{diag}\"", "tool.recovery_argv"),
        ("drivers = [\"option\"]", "", "needs.drivers"),
        ("drivers = [\"option\"]", "drivers = [\"../x\"]", "needs.drivers"),
        ("[\"--help\"]", "[\"--port\", \"{diag}\"]", "needs.probe_argv"),
        ("# min_voltage_mv = 3135", "min_voltage_mv = 3", "gates.min_voltage_mv"),
        ("# max_temperature_c = 85", "max_temperature_c = -1", "gates.max_temperature_c"),
        ("[\"watchcat\",", "[\"watch cat\",", "holds.rebooters"),
        ("modemmanager = \"stop\"", "modemmanager = \"kill\"", "modemmanager"),
        ("restarts = [\"#FWSWITCH\", ", "restarts = [\"#QSS\", ", "restarts"),
        ("commands = [\"#FWSWITCH\", ", "commands = [", "restore.restarts"),
    ] {
        let error = ToolProfile::parse(&text.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn what_is_around_the_tool_is_read() {
    let text = BUILT_IN[0].1.replace("# m", "m").replace("\"stop\"", "\"inhibit\"");
    let profile = ToolProfile::parse(&text).unwrap();
    assert_eq!(profile.gates, Gates { min_voltage_mv: Some(3135), max_temperature_c: Some(85) });
    assert_eq!(profile.holds.modemmanager, ModemManager::Inhibit);
    assert_eq!(profile.holds.rebooters, ["watchcat", "internet-detector", "ping_reboot"]);
    let restarts = [Setting::FirmwareSwitch, Setting::UsbComposition];
    assert_eq!(profile.restore.restarts, restarts);
    assert_eq!(profile.restore.commands, [&restarts[..], &[Setting::Contexts]].concat());
    assert!(profile.needs.binds_download_mode);
}

#[test]
fn what_a_profile_does_not_say_is_safe() {
    let text = BUILT_IN[1].1;
    let short = &text[..text.find("[holds]").unwrap()];
    let profile = ToolProfile::parse(short).unwrap();
    assert_eq!(profile.holds.modemmanager, ModemManager::Stop);
    assert_eq!(profile.gates, Gates::default());
    assert_eq!(profile.restore, Restore::default());
}

fn mistake(from: &str, to: &str) -> place::Mistake {
    let text = BUILT_IN[0].1.replacen(from, to, 1);
    assert_ne!(text, BUILT_IN[0].1, "{from:?} is not there");
    place::Mistake::find(&text, &ToolProfile::parse(&text).unwrap_err())
}

#[test]
fn every_kind_of_mistake_has_its_line_column_and_key() {
    let text = BUILT_IN[0].1;
    let line = |start: &str| 1 + text.lines().position(|line| line.starts_with(start)).unwrap();
    for (from, to, key, line, column) in [
        // Of the TOML itself.
        ("[tool]", "[tool", "", line("[tool]"), 6),
        ("name = \"telit-uxfp\"", "name = 7", "name", 1, 8),
        ("total_s = 1200", "total_s = -1", "timeouts.total_s", line("total_s"), 11),
        ("\"stop\"", "\"kill\"", "holds.modemmanager", line("modemmanager"), 16),
        ("[exit]", "[exit]\nother = 1", "exit.other", line("[exit]") + 1, 1),
        ("diag = true", "diag = 1", "needs.diag", line("diag"), 8),
        ("usb = [\"1bc7:1070\"", "usb = [\"1bc7\"", "fits.usb", line("usb"), 8),
        ("\"230400\"", "1979-05-27", "options.speed.values", line("values"), 21),
        ("idle_s = 120", "idle_s = 120.5", "timeouts.idle_s", line("idle_s"), 10),
        ("idle_s = 120", "idle_s = 18446744073709551615", "timeouts.idle_s", line("idle_s"), 10),
        ("success = [0]", "success = [256]", "exit.success", line("success = [0]"), 12),
        (
            "[gates]",
            "[gates]\nmin_voltage_mv = \"3 V\"",
            "gates.min_voltage_mv",
            line("[gates]") + 1,
            18,
        ),
        (
            "modemmanager = \"stop\"",
            "modemmanager = {}",
            "holds.modemmanager",
            line("modemmanager"),
            16,
        ),
        (
            "type = \"flag\"",
            "type = \"flag\"\nmin = 1",
            "options.debug",
            line("[options.debug]"),
            1,
        ),
        (
            "type = \"flag\"",
            "type = \"number\"\nmin = 1",
            "options.debug",
            line("[options.debug]"),
            1,
        ),
        (
            "type = \"flag\"",
            "type = \"path\"",
            "options.debug.type",
            line("[options.debug]") + 1,
            8,
        ),
        ("program = \"/usr/bin/uxfp\"\n", "", "tool", line("[tool]"), 1),
        // Of what it means.
        ("\"/usr/bin/uxfp\"", "\"uxfp\"", "tool.program", line("program"), 1),
        ("flag = \"--speed\"", "flag = \"speed\"", "options.speed", line("[options.speed]"), 10),
        // Of what is missing: where it would stand.
        ("download_mode = [\"1bc7:9010\"]", "", "fits.download_mode", line("[fits]"), 2),
    ] {
        let found = mistake(from, to);
        assert_eq!((found.key.as_str(), found.line, found.column), (key, line, column), "{found}");
        assert!(!found.problem.is_empty() && !found.to_string().contains('\n'), "{found}");
    }
    let large = "#".repeat(limits::PROFILE + 1);
    let found = place::Mistake::find(&large, &ToolProfile::parse(&large).unwrap_err());
    assert_eq!((found.line, found.to_string()), (0, "larger than 65536 bytes".into()));
}
