//! Named places at which the crash campaign kills or freezes this process.
//!
//! Only with the feature `failpoints`, which the lab asks for and no package does: without it
//! [`at!`] is nothing at all, not even its name.
//!
//! ```text
//! MODEM_UPGRADER_FAILPOINTS=<directory>[;<name>@<pass>=<kill|freeze|panic>]...
//! ```
//! Passes are counted in the directory, over all processes that share it: a process that is started
//! again goes on counting. What struck is written to `<directory>/struck`.

#[cfg(feature = "failpoints")]
macro_rules! at {
    ($($name:tt)+) => { $crate::failpoint::active::pass(&format!($($name)+)) };
}

#[cfg(not(feature = "failpoints"))]
macro_rules! at {
    ($($name:tt)+) => {};
}

pub(crate) use at;

#[cfg(feature = "failpoints")]
pub(crate) mod active {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    use std::{
        fs::OpenOptions,
        io::{self, Write},
        path::{Path, PathBuf},
        sync::OnceLock,
    };

    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

    struct Plan {
        directory: PathBuf,
        rules: Vec<Rule>,
    }

    struct Rule {
        name: String,
        pass: u64,
        /// None: panic.
        signal: Option<Signal>,
    }

    /// Counts the pass, and strikes if it is the one.
    #[allow(clippy::panic, reason = "somebody has asked for one")]
    pub(crate) fn pass(name: &str) {
        let plan =
            PLAN.get_or_init(|| Plan::parse(&std::env::var("MODEM_UPGRADER_FAILPOINTS").ok()?));
        let Some(plan) = plan else { return };
        let Ok(count) = append(&plan.directory.join(format!("{name}.passes")), b".") else {
            return;
        };
        let due = |rule: &&Rule| rule.name == name && rule.pass == count;
        if let Some(rule) = plan.rules.iter().find(due) {
            let struck = format!("{name}@{count} {}\n", std::process::id());
            let _ = append(&plan.directory.join("struck"), struck.as_bytes());
            match rule.signal {
                Some(signal) => drop(kill(Pid::this(), signal)),
                None => panic!("{struck}"),
            }
        }
    }

    /// The length after this piece.
    fn append(path: &Path, piece: &[u8]) -> io::Result<u64> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(piece)?;
        Ok(file.metadata()?.len())
    }

    impl Plan {
        fn parse(text: &str) -> Option<Self> {
            let (directory, rules) = text.split_once(';').unwrap_or((text, ""));
            let rules = rules.split(';').filter_map(Rule::parse).collect();
            Some(Self { directory: PathBuf::from(directory), rules })
        }
    }

    impl Rule {
        fn parse(text: &str) -> Option<Self> {
            let (name, rest) = text.split_once('@')?;
            let (pass, action) = rest.split_once('=')?;
            let signal = match action {
                "kill" => Some(Signal::SIGKILL),
                "freeze" => Some(Signal::SIGSTOP),
                "panic" => None,
                _ => return None,
            };
            Some(Self { name: name.to_owned(), pass: pass.parse().ok()?, signal })
        }
    }
}
