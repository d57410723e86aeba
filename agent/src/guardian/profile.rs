//! From a tool profile and signed options to an argv: never a shell, each value one element.
//!
//! Programs and flags come from the router's profile; a job or a manifest contributes only values
//! that [`shared::profile::options`] let pass.

use shared::desired::OptionValue;
use shared::profile::{ImageArgument, ToolProfile, options};
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
    pub state_dir: &'a Path,
}

/// A resolved call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub program: PathBuf,
    pub argv: Vec<String>,
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
    let mut argv = Vec::with_capacity(template.len() + chosen.len() * 2);
    for argument in template {
        argv.push(fill(argument, profile.tool.image, places)?);
    }
    argv.extend(options::argv(&profile.options, chosen)?);
    Ok(Call { program: PathBuf::from(&profile.tool.program), argv })
}

fn fill(argument: &str, image: ImageArgument, places: &Places<'_>) -> Result<String, CallRefused> {
    match argument {
        "{image}" => match image {
            ImageArgument::Descriptor => Ok(format!("/proc/self/fd/{IMAGE_FD}")),
            ImageArgument::Path => path("{image}", Some(places.image)),
        },
        "{diag}" => path("{diag}", places.diag),
        "{port}" => path("{port}", places.port),
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

    fn places() -> Places<'static> {
        Places {
            image: Path::new("/mnt/staging/image"),
            diag: Some(Path::new("/dev/ttyUSB0")),
            port: Some(Path::new("/dev/ttyUSB7")),
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
