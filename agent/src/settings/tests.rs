use std::path::Path;
use std::time::Duration;

use crate::modem::Sought;

use super::*;

const PIN: &str = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

fn parse(text: &str) -> Result<Settings, SettingsError> {
    from_fragments([Fragment::from_toml(text, "agent.toml")?])
}

fn errors(text: &str) -> Vec<String> {
    match parse(text) {
        Err(SettingsError::Invalid(errors)) => errors.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
        Ok(_) => Vec::new(),
    }
}

#[test]
fn the_url_alone_is_enough() {
    let settings = parse("[coordinator]\nurl = \"https://upgrades.example:8443\"").unwrap();
    assert_eq!(settings.uplink.poll_interval, Duration::from_secs(300));
    assert!(settings.image.require_signature);
    assert_eq!(settings.slots.len(), 1);
    assert_eq!(settings.slots[0].slot.to_string(), "main");
    assert_eq!(settings.holders.services, [""; 0], "ModemManager is the profile's business");
    assert_eq!(
        settings.coordinator.trust.ca_file.as_deref(),
        Some(Path::new("/etc/ssl/certs/ca-certificates.crt"))
    );
}

#[test]
fn pins_alone_need_no_roots() {
    let settings =
        parse(&format!("[coordinator]\nurl = \"https://h\"\npins = [\"{PIN}\"]")).unwrap();
    assert_eq!(settings.coordinator.trust.pins.len(), 1);
    assert_eq!(settings.coordinator.trust.ca_file, None);
}

#[test]
fn all_errors_come_at_once_and_name_file_section_and_option() {
    let errors = errors(
        "[coordinator]\nurl = \"http://h\"\n[uplink]\npoll_interval_s = 0\npol = 1\n\
         [upgrade]\nmax_attempts = 4\n[holders]\nservices = [\"-rf\"]\n[tool]\npath = \"/x\"",
    );
    let expected = [
        "agent.toml: [coordinator] url: ",
        "agent.toml: [uplink] poll_interval_s: expected a whole number from 1 to 86400",
        "agent.toml: [upgrade] max_attempts: expected a whole number from 1 to 3",
        "agent.toml: [holders] services: \"-rf\" is not a plain name",
        "agent.toml: [tool] path: no such option",
        "agent.toml: [uplink] pol: no such option",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, start) in errors.iter().zip(expected) {
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn a_missing_url_is_said() {
    assert_eq!(
        errors(""),
        ["settings: [coordinator] url: is missing; expected https://host[:port]/"]
    );
}

#[test]
fn bad_pins_urls_and_slots_are_refused() {
    for bad in [
        "[coordinator]\nurl = \"https://h\"\npins = [\"sha256//AAAA\"]",
        "[coordinator]\nurl = \"https://h\"\npins = [\"md5//AAAA\"]",
        "[coordinator]\nurl = \"https://user:pass@h/\"",
        "[coordinator]\nurl = \"https://h/path\"",
        "[coordinator]\nurl = \"https://h\"\n[[slot]]\nname = \"Main Slot\"",
        "[coordinator]\nurl = \"https://h\"\n[[slot]]\nname = \"a\"\nimei = \"12\"",
        "[coordinator]\nurl = \"https://h\"\n[[slot]]\nname = \"a\"\n[[slot]]\nname = \"b\"",
        "[coordinator]\nurl = \"https://h\"\n[[slot]]\nname = \"a\"\nimei = \"356938035643809\"\n\
         [[slot]]\nname = \"b\"\nusb_path = \"1-1.4\"",
        "[coordinator]\nurl = \"https://h\"\n[paths]\nstate_dir = \"relative\"",
        "[coordinator]\nurl = \"https://h\"\n[paths]\nstaging = []",
        "url = \"https://h\"",
        "[coordinator\n",
    ] {
        assert_eq!(errors(bad).len(), 1, "{bad}");
    }
}

#[test]
fn slots_carry_their_constraints() {
    let settings = parse(
        "[coordinator]\nurl = \"https://h\"\n[[slot]]\nname = \"a\"\nimei = \"356938035643809\"\n\
         [[slot]]\nname = \"b\"\nimei = \"356938035643817\"\nusb_path = \"1-1.4\"",
    )
    .unwrap();
    assert_eq!(settings.slots[0].imei.as_deref(), Some("356938035643809"));
    assert_eq!(settings.slots[1].usb_path.as_deref(), Some("1-1.4"));
    assert_eq!(settings.slots[1].sought(None), Sought::Imei("356938035643817"));
}

#[test]
fn a_place_counts_until_the_imei_is_known() {
    let settings =
        parse("[coordinator]\nurl = \"https://h\"\n[[slot]]\nname = \"a\"\nusb_path = \"1-1.4\"")
            .unwrap();
    assert_eq!(settings.slots[0].sought(None), Sought::At("1-1.4"));
    let pcie = parse(
        "[coordinator]\nurl = \"https://h\"\n[[slot]]\nname = \"a\"\nusb_path = \"0000:01:00.0\"",
    );
    assert_eq!(pcie.unwrap().slots[0].sought(None), Sought::At("0000:01:00.0"));
    let known = Some("356938035643809");
    assert_eq!(settings.slots[0].sought(known), Sought::Imei("356938035643809"));
}

#[test]
fn the_command_line_wins_and_texts_are_read_as_numbers_and_flags() {
    let file = Fragment::from_toml("[coordinator]\nurl = \"https://h\"", "agent.toml").unwrap();
    let poll = Fragment::from_assignment("uplink.poll_interval_s=7").unwrap();
    let mqtt = Fragment::from_assignment("uplink.mqtt=0").unwrap();
    let settings = from_fragments([file, poll, mqtt]).unwrap();
    assert_eq!(settings.uplink.poll_interval, Duration::from_secs(7));
    assert!(!settings.uplink.mqtt);
    let shown = settings.effective.to_string();
    assert!(shown.contains("poll_interval_s = \"7\"    # command line"), "{shown}");
    assert!(shown.contains("url = \"https://h\"    # agent.toml"), "{shown}");
}

#[test]
fn assignments_need_a_section_and_a_value() {
    assert!(Fragment::from_assignment("uplink.mqtt").is_none());
    assert!(Fragment::from_assignment("mqtt=1").is_none());
}

#[test]
fn what_is_set_reaches_those_who_use_it() {
    let settings = parse(
        "[coordinator]\nurl = \"https://h\"\n[paths]\ninit_dir = \"/lab/init.d\"\nifdown = \"/lab/ifdown\"\n\
         [upgrade]\nmax_attempts = 2\nbackoff_s = 3\nrecovery_s = 4\nagain_s = 5",
    )
    .unwrap();
    let policy = settings.policy();
    assert_eq!((policy.max_attempts, policy.backoff_s), (2, 3));
    assert_eq!((policy.recovery_s, policy.again_s), (4, 5));
    let programs = settings.holders.programs(&settings.paths);
    assert_eq!(programs.services, Path::new("/lab/init.d"));
    assert_eq!(programs.ifdown, Path::new("/lab/ifdown"));
    assert_eq!(programs.ifup, Path::new("/sbin/ifup"));
}

#[test]
fn what_was_staged_where_it_was_by_default_before_is_still_found() {
    let root = tempfile::tempdir().unwrap();
    let former = root.path().join("staging");
    let of = |staging: &[&Path]| {
        validated::with_former(staging.iter().map(|path| (*path).to_owned()).collect(), &former)
    };
    let default = parse("[coordinator]\nurl = \"https://h\"").unwrap().paths.staging;
    let (default, own) = (default[0].as_path(), Path::new("/mnt/usb/staging"));
    assert_eq!(default, Path::new("/usr/lib/modem-upgrader/staging"));
    assert_eq!(of(&[default]), [default], "there is none");
    std::fs::create_dir(&former).unwrap();
    assert_eq!(of(&[default]), [default], "nothing is in it");
    std::fs::create_dir(former.join("07".repeat(32))).unwrap();
    assert_eq!(of(&[default]), [default, former.as_path()]);
    assert_eq!(of(&[own]), [own]);
}
