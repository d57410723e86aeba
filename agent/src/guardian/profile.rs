//! From a tool profile and signed options to an argv: never a shell, each value one element.
//!
//! Programs and flags come from the router's profile; a job or a manifest contributes only values
//! that [`shared::profile::options`] let pass.

use shared::desired::OptionValue;
use shared::ids::UsbId;
use shared::profile::{ImageArgument, Tool, ToolProfile, options};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::record::IMAGE_FD;

/// What the tool is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A modem in normal operation.
    Install,
    /// A modem in download mode.
    Recover,
}

/// The places an argv may name.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    pub image: &'a Path,
    /// The modem's diagnostic port.
    pub diag: Option<&'a Path>,
    /// The download mode's port.
    pub port: Option<&'a Path>,
    /// The device's directory in sysfs, and its id.
    pub usb: Option<(&'a Path, UsbId)>,
    pub state_dir: &'a Path,
}

/// A resolved call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub program: PathBuf,
    pub argv: Vec<String>,
    /// The call that asks whether the tool's work goes on, if it has one.
    pub follow: Option<(PathBuf, Vec<String>)>,
}

/// Why a profile makes no call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallRefused {
    #[error("profile {0} cannot recover a modem in download mode")]
    NoRecovery(String),
    #[error("{placeholder} is not known for this modem")]
    NoPort { placeholder: &'static str },
    #[error("{placeholder} would be {path:?}, which cannot be an argument")]
    Path { placeholder: &'static str, path: PathBuf },
    #[error(transparent)]
    Option(#[from] options::OptionRefused),
}

/// The call of `profile`'s tool for `purpose`; `options` follow the fixed arguments.
///
/// # Errors
/// A port the argv needs is not known, a path cannot be an argument, or an option is refused.
pub fn resolve(
    profile: &ToolProfile,
    purpose: Purpose,
    chosen: &BTreeMap<String, OptionValue>,
    places: &Places<'_>,
) -> Result<Call, CallRefused> {
    let template = match purpose {
        Purpose::Install => &profile.tool.argv,
        Purpose::Recover if profile.tool.recovery_argv.is_empty() => {
            return Err(CallRefused::NoRecovery(profile.name.clone()));
        }
        Purpose::Recover => &profile.tool.recovery_argv,
    };
    let fill_all = |template: &[String]| -> Result<Vec<String>, CallRefused> {
        template.iter().map(|argument| fill(argument, &profile.tool, places)).collect()
    };
    let mut argv = fill_all(template)?;
    argv.extend(options::argv(&profile.options, chosen)?);
    let follow = match &profile.follow {
        Some(follow) => Some((PathBuf::from(&follow.program), fill_all(&follow.argv)?)),
        None => None,
    };
    Ok(Call { program: PathBuf::from(&profile.tool.program), argv, follow })
}

/// Where the tool finds the image, when it wants a name of its own for it.
#[must_use]
pub fn named_image(tool: &Tool, state_dir: &Path) -> Option<PathBuf> {
    let name = tool.image_name.as_ref().filter(|_| tool.image == ImageArgument::Named)?;
    Some(state_dir.join(name))
}

fn fill(argument: &str, tool: &Tool, places: &Places<'_>) -> Result<String, CallRefused> {
    match argument {
        "{image}" => match tool.image {
            ImageArgument::Descriptor => Ok(format!("/proc/self/fd/{IMAGE_FD}")),
            ImageArgument::Path => path("{image}", Some(places.image)),
            ImageArgument::Named => path("{image}", named_image(tool, places.state_dir).as_deref()),
        },
        "{diag}" => path("{diag}", places.diag),
        "{port}" => path("{port}", places.port),
        "{usb}" => path("{usb}", places.usb.map(|(directory, _)| directory)),
        "{usb_id}" => match places.usb {
            Some((_, id)) => Ok(id.to_string()),
            None => Err(CallRefused::NoPort { placeholder: "{usb_id}" }),
        },
        "{state_dir}" => path("{state_dir}", Some(places.state_dir)),
        fixed => Ok(fixed.to_owned()),
    }
}

fn path(placeholder: &'static str, path: Option<&Path>) -> Result<String, CallRefused> {
    let path = path.ok_or(CallRefused::NoPort { placeholder })?;
    match path.to_str() {
        Some(text) if path.is_absolute() && !text.chars().any(char::is_control) => {
            Ok(text.to_owned())
        }
        _ => Err(CallRefused::Path { placeholder, path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::profile::BUILT_IN;

    fn profile(index: usize) -> ToolProfile {
        ToolProfile::parse(BUILT_IN[index].1).unwrap()
    }

    fn named(name: &str) -> ToolProfile {
        ToolProfile::parse(BUILT_IN.iter().find(|(n, _)| *n == name).unwrap().1).unwrap()
    }

    fn places() -> Places<'static> {
        Places {
            image: Path::new("/mnt/staging/image"),
            diag: Some(Path::new("/dev/ttyUSB0")),
            port: Some(Path::new("/dev/ttyUSB7")),
            usb: Some((Path::new("/sys/bus/usb/devices/2-1"), "1199:68c0".parse().unwrap())),
            state_dir: Path::new("/var/run/x"),
        }
    }

    #[test]
    fn uxfp_gets_the_descriptor_and_the_right_port() {
        let options = BTreeMap::from([("speed".to_owned(), OptionValue::Number(921_600))]);
        let call = resolve(&profile(0), Purpose::Install, &options, &places()).unwrap();
        assert_eq!(call.program, Path::new("/usr/bin/uxfp"));
        let install =
            ["--file", "/proc/self/fd/100", "--port", "/dev/ttyUSB0", "--speed", "921600"];
        assert_eq!(call.argv, install);
        let call = resolve(&profile(0), Purpose::Recover, &BTreeMap::new(), &places()).unwrap();
        let recover = ["--lossrecovery", "--file", "/proc/self/fd/100", "--port", "/dev/ttyUSB7"];
        assert_eq!(call.argv, recover);
    }

    #[test]
    fn a_script_gets_the_path_and_cannot_recover() {
        let call = resolve(&profile(1), Purpose::Install, &BTreeMap::new(), &places()).unwrap();
        assert_eq!(call.argv, ["/mnt/staging/image"]);
        let refused = resolve(&profile(1), Purpose::Recover, &BTreeMap::new(), &places());
        assert_eq!(refused, Err(CallRefused::NoRecovery("generic-script".into())));
    }

    #[test]
    fn every_built_in_tool_is_called_as_its_vendor_has_it() {
        let call = |name: &str, purpose| {
            let call = resolve(&named(name), purpose, &BTreeMap::new(), &places()).unwrap();
            format!("{} {}", call.program.display(), call.argv.join(" "))
        };
        for (name, install, recover) in [
            (
                "telit-tfl",
                "/etc/modem-upgrader/tfl.sh /mnt/staging/image /var/run/x /dev/ttyUSB0",
                Some("/etc/modem-upgrader/tfl.sh /mnt/staging/image /var/run/x /dev/ttyUSB7"),
            ),
            (
                "quectel-qfirehose",
                "/usr/bin/QFirehose -f /var/run/x/firmware.zip -p /dev/ttyUSB0",
                Some("/usr/bin/QFirehose -f /var/run/x/firmware.zip -s /sys/bus/usb/devices/2-1"),
            ),
            (
                "sierra-qmi-firmware-update",
                "/usr/bin/qmi-firmware-update --update -d 1199:68c0 /var/run/x/firmware.cwe",
                None,
            ),
            (
                "fibocom",
                "/usr/bin/fibocom-flash -f /var/run/x/firmware.7z -d /sys/bus/usb/devices/2-1 \
                 -l /var/run/x",
                Some(
                    "/usr/bin/fibocom-flash -f /var/run/x/firmware.7z \
                     -d /sys/bus/usb/devices/2-1 -l /var/run/x",
                ),
            ),
            ("openwisp-safe-update", "/usr/bin/safe_update.sh --state-dir /var/run/x", None),
        ] {
            assert_eq!(call(name, Purpose::Install), install);
            match recover {
                Some(recover) => assert_eq!(call(name, Purpose::Recover), recover),
                None => assert!(named(name).tool.recovery_argv.is_empty()),
            }
        }
        let follow =
            resolve(&named("openwisp-safe-update"), Purpose::Install, &BTreeMap::new(), &places());
        let (program, argv) = follow.unwrap().follow.unwrap();
        assert_eq!(program, Path::new("/usr/bin/verify_update.sh"));
        assert_eq!(argv, ["status", "--state-dir", "/var/run/x"]);
    }

    #[test]
    fn what_is_not_known_or_not_allowed_makes_no_call() {
        let none = BTreeMap::new();
        let without = Places { diag: None, ..places() };
        assert_eq!(
            resolve(&profile(0), Purpose::Install, &none, &without),
            Err(CallRefused::NoPort { placeholder: "{diag}" })
        );
        let relative = Places { diag: Some(Path::new("-x")), ..places() };
        assert!(matches!(
            resolve(&profile(0), Purpose::Install, &none, &relative),
            Err(CallRefused::Path { .. })
        ));
        for (name, value) in [("speed", "115200; reboot"), ("tool_path", "/tmp/x"), ("-f", "x")] {
            let options = BTreeMap::from([(name.to_owned(), OptionValue::Word(value.into()))]);
            let refused = resolve(&profile(0), Purpose::Install, &options, &places());
            assert!(matches!(refused, Err(CallRefused::Option(_))), "{name}");
        }
    }
}
