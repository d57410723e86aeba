//! The tool profiles of this router: its own directory first, then those built in.

use crate::files;
use shared::{
    limits,
    profile::{BUILT_IN, ProfileError, ToolProfile, place::Mistake},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why there is no such profile.
#[derive(Debug, thiserror::Error)]
pub enum NoProfile {
    #[error("this router has no tool profile {0:?}")]
    Unknown(String),
    #[error("the profile {path} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}:{mistake}")]
    Wrong { path: PathBuf, mistake: Mistake },
}

/// The profile `name`: `<directory>/<name>.toml` if there is one, else the built-in.
///
/// # Errors
/// There is none, or the router's own is wrong: a built-in one never stands in for it.
pub fn find(directory: &Path, name: &str) -> Result<ToolProfile, NoProfile> {
    // The name comes from a manifest: it must not lead out of the directory.
    if name.parse::<shared::ids::Slot>().is_err() {
        return Err(NoProfile::Unknown(limits::cut(name.to_owned())));
    }
    let path = directory.join(format!("{name}.toml"));
    match files::read_limited(&path, limits::PROFILE) {
        Ok(bytes) => own(&path, name, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => built_in(name),
        Err(source) => Err(NoProfile::Read { path, source }),
    }
}

/// Names of all profiles, the router's own and the built-in ones.
#[must_use]
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    let own = std::fs::read_dir(directory).into_iter().flatten().flatten();
    names.extend(own.filter_map(|entry| {
        let path = entry.path();
        let is_toml = path.extension().is_some_and(|e| e == "toml");
        is_toml.then(|| path.file_stem().map(|s| s.to_string_lossy().into_owned())).flatten()
    }));
    names.sort();
    names.dedup();
    names
}

/// The text of the built-in profile `name`.
#[must_use]
pub fn built_in_text(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|(built_in, _)| *built_in == name).map(|(_, text)| *text)
}

/// What is wrong with `text` as the profile of the file `stem`.toml, with its place.
///
/// # Errors
/// The first mistake.
pub fn check(stem: &str, text: &str) -> Result<ToolProfile, Mistake> {
    let profile = ToolProfile::parse(text).map_err(|error| Mistake::find(text, &error))?;
    if profile.name == stem {
        return Ok(profile);
    }
    let problem = format!("must be {stem:?}, as its file is called");
    let error = ProfileError::Key { key: "name".into(), problem };
    Err(Mistake::find(text, &error))
}

fn own(path: &Path, name: &str, bytes: &[u8]) -> Result<ToolProfile, NoProfile> {
    let text = String::from_utf8_lossy(bytes);
    check(name, &text).map_err(|mistake| NoProfile::Wrong { path: path.to_owned(), mistake })
}

fn built_in(name: &str) -> Result<ToolProfile, NoProfile> {
    let text = built_in_text(name).ok_or_else(|| NoProfile::Unknown(name.to_owned()))?;
    check(name, text).map_err(|mistake| NoProfile::Wrong { path: PathBuf::from(name), mistake })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routers_own_profile_goes_before_the_built_in_one() {
        let directory = tempfile::tempdir().unwrap();
        let name = "telit-uxfp";
        assert_eq!(find(directory.path(), name).unwrap().tool.program, "/usr/bin/uxfp");
        let text = BUILT_IN[0].1.replace("/usr/bin/uxfp", "/opt/uxfp");
        std::fs::write(directory.path().join("telit-uxfp.toml"), text).unwrap();
        assert_eq!(find(directory.path(), name).unwrap().tool.program, "/opt/uxfp");
        std::fs::write(directory.path().join("telit-uxfp.toml"), "name = 1").unwrap();
        assert!(matches!(find(directory.path(), name), Err(NoProfile::Wrong { .. })));
        assert!(names(directory.path()).contains(&name.to_owned()));
    }

    #[test]
    fn a_name_does_not_lead_out_of_the_directory() {
        for name in ["../telit-uxfp", "/etc/passwd", "", "a/b"] {
            assert!(matches!(find(Path::new("/"), name), Err(NoProfile::Unknown(_))), "{name}");
        }
    }
}
