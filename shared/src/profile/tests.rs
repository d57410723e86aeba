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
        ("total_s = 1200", "total_s = 0", "timeouts"),
        ("drivers = [\"option\"]", "", "needs.drivers"),
        ("drivers = [\"option\"]", "drivers = [\"../x\"]", "needs.drivers"),
        ("[\"--help\"]", "[\"--port\", \"{diag}\"]", "needs.probe_argv"),
        ("# min_voltage_mv = 3135", "min_voltage_mv = 3", "gates.min_voltage_mv"),
        ("# max_temperature_c = 85", "max_temperature_c = -1", "gates.max_temperature_c"),
        ("[\"watchcat\"]", "[\"watch cat\"]", "holds.rebooters"),
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
    assert_eq!(profile.holds.rebooters, ["watchcat"]);
    let both = [Setting::FirmwareSwitch, Setting::UsbComposition];
    assert_eq!(
        (&profile.restore.commands[..], &profile.restore.restarts[..]),
        (&both[..], &both[..])
    );
    assert!(profile.needs.binds_download_mode);
}

#[test]
fn what_a_profile_does_not_say_is_safe() {
    let text = BUILT_IN[0].1;
    let short = &text[..text.find("# The modem comes back").unwrap()];
    let profile = ToolProfile::parse(short).unwrap();
    assert_eq!(profile.holds.modemmanager, ModemManager::Stop);
    assert_eq!(profile.gates, Gates::default());
    assert_eq!(profile.restore, Restore::default());
}
