//! Where settings are written on this router, and how they are read there.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fragment::{Fragment, ReadError};
use super::{from_uci, openwisp, uci};
use crate::commands::{self, Call};
use crate::files;

/// The UCI package of this agent.
const PACKAGE: &str = "modem-upgrader";
/// How long `uci export` may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What `--config` names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Source {
    /// The router's UCI package and then its TOML file, those of them that are there.
    #[default]
    Router,
    /// A TOML file.
    Toml(PathBuf),
    /// `uci:NAME`: a package of the router's.
    Uci(String),
    /// `uci:/PATH`: a file in UCI's language, read as it is.
    UciFile(PathBuf),
}

impl Source {
    /// # Errors
    /// `uci:` and then neither a package's name nor an absolute path.
    pub fn parse(text: &OsStr) -> Result<Source, String> {
        let Some(rest) = text.to_str().and_then(|text| text.strip_prefix("uci:")) else {
            return Ok(Source::Toml(text.into()));
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if rest.starts_with('/') {
            Ok(Source::UciFile(rest.into()))
        } else if !rest.is_empty() && !rest.starts_with('-') && rest.bytes().all(plain) {
            Ok(Source::Uci(rest.to_owned()))
        } else {
            Err(format!("uci:{rest}: expected uci:PACKAGE or uci:/FILE"))
        }
    }
}

/// The places of settings.
#[derive(Debug, Clone)]
pub struct Router {
    /// The command `uci`; where there is none the files are read, without changes not committed.
    pub uci: PathBuf,
    pub uci_dir: PathBuf,
    pub toml: PathBuf,
}

impl Default for Router {
    fn default() -> Self {
        Self {
            uci: "/sbin/uci".into(),
            uci_dir: "/etc/config".into(),
            toml: "/etc/modem-upgrader/agent.toml".into(),
        }
    }
}

impl Router {
    /// Fragments in rising order of weight; none where [`Source::Router`] finds nothing.
    ///
    /// # Errors
    /// What is named, or is there, cannot be read.
    pub fn read(&self, source: &Source) -> Result<Vec<Fragment>, ReadError> {
        match source {
            Source::Toml(path) => Ok(vec![Fragment::from_file(path)?]),
            Source::Uci(package) => Ok(vec![self.package(package)?]),
            Source::UciFile(path) => {
                let package = parse_file(path)?;
                Ok(vec![from_uci::fragment(&package, &path.display().to_string(), Some(&package))?])
            }
            Source::Router => {
                let uci = present(self.package(PACKAGE))?;
                let toml = present(Fragment::from_file(&self.toml))?;
                Ok(uci.into_iter().chain(toml).collect())
            }
        }
    }

    /// What openwisp-config lends. Whatever is wrong with it is no reason to stop.
    pub(super) fn openwisp(&self) -> Option<Fragment> {
        let path = self.uci_dir.join("openwisp");
        match present(parse_file(&path)) {
            Ok(package) => {
                let (fragment, note) = openwisp::fragment(&package?);
                if let Some(note) = note {
                    log::warn!("{note}");
                }
                Some(fragment)
            }
            Err(error) => {
                log::warn!("{error}; it is not used");
                None
            }
        }
    }

    fn package(&self, name: &str) -> Result<Fragment, ReadError> {
        let path = self.uci_dir.join(name);
        let shown = path.display().to_string();
        let malformed = |message| ReadError::Malformed { path: shown.clone(), message };
        let text = match self.export(name) {
            Ok(text) => text,
            // `uci` says nothing about why, and libuci reads nothing that is not read here.
            Err(_) => {
                let package = parse_file(&path)?;
                return from_uci::fragment(&package, &shown, Some(&package));
            }
        };
        let package = uci::parse(&text).map_err(|error| malformed(format!("exported {error}")))?;
        from_uci::fragment(&package, &shown, parse_file(&path).ok().as_ref())
    }

    /// With the changes that are not committed yet.
    fn export(&self, package: &str) -> io::Result<String> {
        let arguments = ["-q", "-c", &self.uci_dir.to_string_lossy(), "export", package];
        let call = Call { keep: uci::MAX_BYTES + 1, ..Call::new(&self.uci, &arguments, LIMIT) };
        let done = commands::run_blocking(&call).map_err(io::Error::other)?;
        if !done.status.success() {
            return Err(io::Error::other(done.status.to_string()));
        }
        String::from_utf8(done.output).map_err(io::Error::other)
    }
}

/// Nothing is written anywhere.
pub(super) fn nothing() -> ReadError {
    let Router { uci_dir, toml, .. } = Router::default();
    let path = format!("{} or {}", uci_dir.join(PACKAGE).display(), toml.display());
    ReadError::Unreadable { path, source: io::ErrorKind::NotFound.into() }
}

fn parse_file(path: &Path) -> Result<uci::Package, ReadError> {
    let shown = path.display().to_string();
    let text = match files::read_limited(path, uci::MAX_BYTES) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| ReadError::Malformed {
            path: shown.clone(),
            message: "not UTF-8".to_owned(),
        })?,
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Err(ReadError::TooLarge { path: shown });
        }
        Err(source) => return Err(ReadError::Unreadable { path: shown, source }),
    };
    uci::parse(&text)
        .map_err(|error| ReadError::Malformed { path: shown, message: error.to_string() })
}

/// `None` for a file that is not there.
fn present<T>(read: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(ReadError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::from_fragments;
    use crate::testing::script;

    struct Routed(tempfile::TempDir, Router);

    fn router() -> Routed {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let router = Router { uci: at("uci"), uci_dir: at("config"), toml: at("agent.toml") };
        std::fs::create_dir(&router.uci_dir).unwrap();
        Routed(directory, router)
    }

    impl Routed {
        fn file(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }

        /// Poll interval in seconds, and where it was written.
        fn interval(&self) -> (u64, String) {
            let fragments = self.1.read(&Source::Router).unwrap();
            let settings = from_fragments(fragments).unwrap();
            let entries = settings.effective.0.iter();
            let mut origins = entries.filter(|(_, option, ..)| option == "poll_interval_s");
            let origin = origins.next().unwrap().3.to_string();
            let directory = self.0.path().display().to_string();
            (settings.uplink.poll_interval.as_secs(), origin.replace(&directory, ""))
        }
    }

    const UCI: &str = "config coordinator 'c'\n option url 'https://h'\n\nconfig uplink 'u'\n\
                       \toption poll_interval_s '11'\n";

    #[test]
    fn files_are_read_where_there_is_no_uci_and_toml_goes_over_them() {
        let routed = router();
        assert_eq!(routed.1.read(&Source::Router).unwrap(), []);
        routed.file("config/modem-upgrader", UCI);
        assert_eq!(routed.interval(), (11, "/config/modem-upgrader, line 5".into()));
        routed.file("agent.toml", "[uplink]\npoll_interval_s = 12\n");
        assert_eq!(routed.interval(), (12, "/agent.toml".into()));
    }

    #[test]
    fn uci_knows_what_is_not_committed() {
        let routed = router();
        routed.file("config/modem-upgrader", UCI);
        routed.file("exported", &UCI.replace("11", "13"));
        let exported = routed.0.path().join("exported");
        let arguments = format!("-q -c {} export modem-upgrader", routed.1.uci_dir.display());
        let body = format!("[ \"$*\" = '{arguments}' ] && cat {}", exported.display());
        script(&routed.1.uci, &body);
        assert_eq!(routed.interval(), (13, "/config/modem-upgrader, uncommitted".into()));
        routed.file("exported", UCI);
        assert_eq!(routed.interval(), (11, "/config/modem-upgrader, line 5".into()));
    }

    #[test]
    fn a_uci_that_fails_leaves_the_file_and_its_error() {
        let routed = router();
        script(&routed.1.uci, "exit 1");
        routed.file("config/modem-upgrader", UCI);
        assert_eq!(routed.interval().0, 11);
        routed.file("config/modem-upgrader", "config uplink\n option mqtt 'open\n");
        let error = routed.1.read(&Source::Router).unwrap_err().to_string();
        assert!(error.ends_with("modem-upgrader: line 2: the quote that begins here has no end"));
    }

    #[test]
    fn a_source_is_named_by_its_language() {
        let parse = |text: &str| Source::parse(OsStr::new(text));
        assert_eq!(parse("uci:modem-upgrader"), Ok(Source::Uci("modem-upgrader".into())));
        assert_eq!(parse("uci:/tmp/x"), Ok(Source::UciFile("/tmp/x".into())));
        assert_eq!(parse("/etc/x.toml"), Ok(Source::Toml("/etc/x.toml".into())));
        for wrong in ["uci:", "uci:../x", "uci:-c", "uci:a b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let routed = router();
        routed.file("own", UCI);
        let file = Source::UciFile(routed.0.path().join("own"));
        assert_eq!(routed.1.read(&file).unwrap().len(), 1);
        assert!(routed.1.read(&Source::Uci("none".into())).is_err());
    }

    #[test]
    fn a_broken_neighbour_is_left_alone() {
        let routed = router();
        assert_eq!(routed.1.openwisp(), None);
        routed.file("config/openwisp", "config controller 'http'\n option uuid 'open");
        assert_eq!(routed.1.openwisp(), None);
        let uuid = "option uuid 7ca1b9ab5e3d4f0b8a1f64a1b1c3f3aa";
        routed.file("config/openwisp", &format!("config controller 'http'\n {uuid}\n"));
        assert_eq!(routed.1.openwisp().unwrap().entries.len(), 1);
    }
}
