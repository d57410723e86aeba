//! Arguments to a command: pure.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::{Long, Short, Value};

use shared::ids::{BadName, Slot};

use super::probe::Wanted;
use crate::settings::{Fragment, Source};

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Help or version.
    Text(String),
    Command(Command),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Run(Sources),
    Guard { run_dir: PathBuf },
    Probe { sources: Sources, wanted: Wanted },
    Status { sources: Sources, json: bool },
    CheckConfig(Sources),
    Recover { sources: Sources, slot: Slot },
    Profiles { sources: Sources, verb: ProfilesVerb },
    Busy { sources: Sources, begun: bool },
    Hold { sources: Sources, watch: Option<Duration> },
}

/// What to do with tool profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfilesVerb {
    List,
    /// Prints one as TOML.
    Show(String),
    /// No files: all of this router.
    Check(Vec<PathBuf>),
}

/// Where settings come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    pub config: Source,
    pub overrides: Vec<Fragment>,
}

/// A command line that is not understood.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error(transparent)]
    Arguments(#[from] lexopt::Error),
    #[error("no command given")]
    NoCommand,
    #[error("there is no command {0:?}")]
    UnknownCommand(String),
    #[error("--set wants section.option=value, not {0:?}")]
    BadAssignment(String),
    #[error("--config {0}")]
    BadSource(String),
    #[error("guard wants --run-dir DIR")]
    NoRunDir,
    #[error("recover wants --slot SLOT")]
    NoSlot,
    #[error("profiles wants one of: list, show NAME, check [FILE...]")]
    NoVerb,
    #[error("--watch wants a number of seconds, not {0:?}")]
    BadSeconds(String),
    #[error(transparent)]
    BadSlot(#[from] BadName),
}

const GENERAL: &str = "\
Upgrades the firmware of this router's modems when the coordinator asks for it.

Usage: modem-upgrader-agent COMMAND [OPTION...]

  run           Work until stopped; this is what procd starts
  probe         Show the modems of this router
  status        Show what the running agent is doing
  check-config  Check the settings and show those in force
  profiles      List, show and check tool profiles
  recover       Let a held slot go on, once a person has looked at its modem
  busy          Tell whether an upgrade must not be disturbed now
  hold          Keep others off a modem whose flash was interrupted; for the early init script
  guard         Own one running tool; started by 'run', not by hand

'modem-upgrader-agent COMMAND --help' tells more; --version prints the version.
Exit status: 0 done, 1 failed, 2 usage, 3 settings not valid, 4 modem in use,
5 no modem, or the agent does not run; 6 'run', 'check-config': the settings say that no agent is
wanted; 7 an upgrade is not finished.
";

const SETTINGS: &str = "
  -c, --config SOURCE             Settings: a TOML FILE, uci:PACKAGE or uci:/FILE (default: the UCI
                                  package modem-upgrader, and over it
                                  /etc/modem-upgrader/agent.toml)
      --set SECTION.OPTION=VALUE  One setting; wins over all others; may be repeated
";

fn help(command: &str) -> String {
    let (usage, text, settings) = match command {
        "run" => (
            "run [OPTION...]",
            "Signs in at the coordinator, does the jobs it is given, and reports. Ends at SIGTERM;\n\
             a tool that is flashing then goes on under its guardian and is found again.\n\
             MODEM_UPGRADER_LOG sets the log level (error, warn, info, debug).",
            SETTINGS,
        ),
        "probe" => (
            "probe [--json] [--record FILE [--unmasked]] [OPTION...]",
            "Shows each modem with its USB id, ports, IMEI and firmware versions, each device in a mode\n\
             that no working modem has, and what may disturb a flash. Refuses while a modem is being\n\
             flashed (exit status 4). While ModemManager has the ports it is asked instead.\n\
             --record writes what the modem answered, with times, and the router's view of it, so that\n\
             it can be played again elsewhere. Of long numbers (IMEI, IMSI, ICCID) only the first six\n\
             digits are kept, unless --unmasked is given.",
            SETTINGS,
        ),
        "status" => (
            "status [--json] [OPTION...]",
            "Shows modem, operation, progress, last result and the state of the uplink, as the\n\
             running agent wrote them. Exit status 5 when it does not run.",
            SETTINGS,
        ),
        "check-config" => (
            "check-config [OPTION...]",
            "Prints every setting in force with its origin, or every error with file, section and\n\
             option (exit status 3). Exit status 6: they are valid, and no agent is to run by them;\n\
             0: one is, if only to finish an upgrade.",
            SETTINGS,
        ),
        "profiles" => (
            "profiles list|show NAME|check [FILE...] [OPTION...]",
            "list shows the tool profiles of this router, show prints one as TOML, to begin one of\n\
             your own with. check names file, line, column and key of each mistake (exit status 1);\n\
             without FILE it checks all of this router.",
            SETTINGS,
        ),
        "recover" => (
            "recover --slot SLOT [OPTION...]",
            "Says \"go on\" for a slot that the agent holds: its journal was unreadable, or it cannot\n\
             tell which modem needs recovery. Look at the modem first (probe, status).",
            SETTINGS,
        ),
        "busy" => (
            "busy [--begun] [OPTION...]",
            "Exit status 4 while a tool runs, 7 while an upgrade is past its point of no return and not\n\
             finished: its modem may need this agent. Otherwise 0. Opens no modem, changes nothing.\n\
             --begun: 4 as well while leave for a flash is asked for, or given and about to be used.\n\
             While no-flash in the run directory begins with the pid of a process that lives, no leave\n\
             is asked for and no tool started: write it first, ask then.",
            SETTINGS,
        ),
        "hold" => (
            "hold [--watch SECONDS] [OPTION...]",
            "Prints who would start at boot and must not, because a flash was interrupted by the last\n\
             power cut, and notes it for the agent to give back. With --watch: keeps their interfaces\n\
             down, and gives everything back when there is no agent for SECONDS.",
            SETTINGS,
        ),
        _ => (
            "guard --run-dir DIR",
            "Carries out the plan that 'run' left in DIR and outlives it.",
            "",
        ),
    };
    format!("Usage: modem-upgrader-agent {usage}\n\n{text}\n{settings}")
}

/// `arguments` without the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let command = match parser.next()? {
        None => return Err(UsageError::NoCommand),
        Some(Short('h') | Long("help")) => return Ok(Parsed::Text(GENERAL.to_owned())),
        Some(Short('V') | Long("version")) => {
            let version = env!("CARGO_PKG_VERSION");
            return Ok(Parsed::Text(format!("modem-upgrader-agent {version}\n")));
        }
        Some(Value(command)) => command.to_string_lossy().into_owned(),
        Some(other) => return Err(other.unexpected().into()),
    };
    match command.as_str() {
        "help" => Ok(Parsed::Text(GENERAL.to_owned())),
        "run" | "guard" | "probe" | "status" | "check-config" | "recover" | "profiles" | "busy"
        | "hold" => options(&command, parser),
        _ => Err(UsageError::UnknownCommand(command)),
    }
}

fn options(command: &str, mut parser: lexopt::Parser) -> Result<Parsed, UsageError> {
    let mut sources = Sources::default();
    let (mut json, mut run_dir, mut slot, mut watch) = (false, None, None, None);
    let mut begun = false;
    let mut words = Vec::new();
    let (mut record, mut unmasked) = (None, false);
    let (guard, shows) = (command == "guard", matches!(command, "probe" | "status"));
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Parsed::Text(help(command))),
            Short('c') | Long("config") if !guard => {
                sources.config = Source::parse(&parser.value()?).map_err(UsageError::BadSource)?;
            }
            Long("set") if !guard => {
                let text = parser.value()?.to_string_lossy().into_owned();
                let fragment = Fragment::from_assignment(&text);
                sources.overrides.push(fragment.ok_or(UsageError::BadAssignment(text))?);
            }
            Long("json") if shows => json = true,
            Long("record") if command == "probe" => record = Some(parser.value()?.into()),
            Long("unmasked") if command == "probe" => unmasked = true,
            Long("begun") if command == "busy" => begun = true,
            Long("slot") if command == "recover" => {
                slot = Some(parser.value()?.to_string_lossy().parse()?);
            }
            Value(word) if command == "profiles" => words.push(word),
            Long("watch") if command == "hold" => {
                let text = parser.value()?.to_string_lossy().into_owned();
                let seconds = text.parse().map_err(|_| UsageError::BadSeconds(text))?;
                watch = Some(Duration::from_secs(seconds));
            }
            Long("run-dir") if guard => run_dir = Some(parser.value()?.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Parsed::Command(match command {
        "run" => Command::Run(sources),
        "probe" => Command::Probe { sources, wanted: Wanted { json, record, unmasked } },
        "status" => Command::Status { sources, json },
        "check-config" => Command::CheckConfig(sources),
        "busy" => Command::Busy { sources, begun },
        "hold" => Command::Hold { sources, watch },
        "recover" => Command::Recover { sources, slot: slot.ok_or(UsageError::NoSlot)? },
        "profiles" => Command::Profiles { sources, verb: profiles_verb(words)? },
        _ => Command::Guard { run_dir: run_dir.ok_or(UsageError::NoRunDir)? },
    }))
}

fn profiles_verb(words: Vec<OsString>) -> Result<ProfilesVerb, UsageError> {
    let mut words = words.into_iter();
    let verb = words.next().ok_or(UsageError::NoVerb)?;
    let mut rest: Vec<PathBuf> = words.map(PathBuf::from).collect();
    match (verb.to_str(), rest.len()) {
        (Some("list"), 0) => Ok(ProfilesVerb::List),
        (Some("show"), 1) => Ok(ProfilesVerb::Show(rest.remove(0).to_string_lossy().into_owned())),
        (Some("check"), _) => Ok(ProfilesVerb::Check(rest)),
        _ => Err(UsageError::NoVerb),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Parsed, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn commands_and_their_options() {
        let Ok(Parsed::Command(Command::Run(sources))) =
            parsed("run -c /tmp/a.toml --set uplink.mqtt=false")
        else {
            panic!("run");
        };
        assert_eq!(sources.config, Source::Toml("/tmp/a.toml".into()));
        assert_eq!(sources.overrides, [Fragment::from_assignment("uplink.mqtt=false").unwrap()]);

        let guard = Command::Guard { run_dir: "/run/x".into() };
        assert_eq!(parsed("guard --run-dir /run/x").unwrap(), Parsed::Command(guard));
        assert!(matches!(
            parsed("probe --json"),
            Ok(Parsed::Command(Command::Probe { wanted: Wanted { json: true, .. }, .. }))
        ));
        assert!(matches!(
            parsed("recover --slot main"),
            Ok(Parsed::Command(Command::Recover { slot, .. })) if slot.as_str() == "main"
        ));
        let files = ["/etc/a.toml", "b.toml"].map(PathBuf::from).to_vec();
        assert!(matches!(
            parsed("profiles check /etc/a.toml b.toml"),
            Ok(Parsed::Command(Command::Profiles { verb, .. })) if verb == ProfilesVerb::Check(files)
        ));
        assert!(matches!(
            parsed("hold --watch 900"),
            Ok(Parsed::Command(Command::Hold { watch: Some(time), .. })) if time.as_secs() == 900
        ));
        assert!(matches!(
            parsed("status"),
            Ok(Parsed::Command(Command::Status { json: false, .. }))
        ));
        for (line, expected) in [("busy", false), ("busy --begun", true)] {
            let parsed = parsed(line);
            assert!(
                matches!(parsed, Ok(Parsed::Command(Command::Busy { begun, .. })) if begun == expected)
            );
        }
    }

    #[test]
    fn every_command_has_help() {
        for command in [
            "run",
            "guard",
            "probe",
            "status",
            "check-config",
            "recover",
            "profiles",
            "busy",
            "hold",
        ] {
            let Ok(Parsed::Text(text)) = parsed(&format!("{command} --help")) else {
                panic!("{command}");
            };
            assert!(text.starts_with(&format!("Usage: modem-upgrader-agent {command}")), "{text}");
        }
        assert!(matches!(parsed("--version"), Ok(Parsed::Text(text)) if text.contains("0.1.0")));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "",
            "fly",
            "run --json",
            "status --record x",
            "guard",
            "guard --run-dir",
            "guard -c /x --run-dir /y",
            "run --set uplink",
            "run -c uci:../x",
            "run more",
            "recover",
            "recover --slot ../x",
            "profiles",
            "profiles list more",
            "profiles show",
            "profiles delete x",
            "busy --json",
            "status --begun",
            "hold --watch soon",
            "--json",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
