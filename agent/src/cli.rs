//! The command line of `modem-upgrader-agent`.
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed, the reason is on stderr |
//! | 2 | the command line was not understood |
//! | 3 | the settings are not valid |
//! | 4 | `probe`: a modem is being flashed or otherwise in use; `busy`: a tool runs |
//! | 5 | `probe`: no modem; `status`: the agent does not run |
//! | 6 | `run`, `check-config`: the settings are valid and say `enabled '0'`, and nothing is unfinished |
//! | 7 | `busy`: an upgrade is past its point of no return and not finished |
//! | 8 | `check-config`: the settings are not valid, and `run` goes on with an upgrade that is not finished |

mod arguments;
mod busy;
mod chain;
mod forsaken;
mod hold;
mod log_lines;
mod probe;
mod profiles;
mod recover;
mod status;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use crate::settings::{self, Settings, SettingsError, Source, last_valid};
use arguments::{Command, Parsed, Sources};
use chain::Chain;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const SETTINGS: u8 = 3;
const BUSY: u8 = 4;
const ABSENT: u8 = 5;
const DISABLED: u8 = 6;
const UNFINISHED: u8 = 7;
/// Settings are refused, and an agent has to run all the same.
const FINISH: u8 = 8;

/// Between two looks whether refused settings could be taken by now.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Entry point, shared with the lab's multi-call binary.
#[must_use]
pub fn main() -> ExitCode {
    end_with_any_panic();
    main_from(std::env::args_os().skip(1))
}

/// As [`main`], with the arguments given (without the program's name).
#[must_use]
pub fn main_from(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match arguments::parse(arguments) {
        Ok(Parsed::Text(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Parsed::Command(command)) => execute(command),
        Err(error) => {
            eprintln!("modem-upgrader-agent: {error}\nTry 'modem-upgrader-agent --help'.");
            ExitCode::from(USAGE)
        }
    }
}

fn execute(command: Command) -> ExitCode {
    log_lines::start();
    match command {
        Command::Run(sources) => match load(&sources) {
            Ok(settings) => run(&sources.config, settings),
            Err(refused) => run_refused(&sources, refused),
        },
        Command::Guard { run_dir } => crate::guardian::guard_main(&run_dir),
        Command::Probe { sources, wanted } => with(load_local(&sources), |settings| {
            on_runtime(probe::probe(&settings.paths, &wanted))
                .unwrap_or_else(|error| failed(&error))
        }),
        Command::Status { sources, json } => {
            with(load_local(&sources), |settings| status::show(&settings.paths, json))
        }
        Command::Recover { sources, slot } => {
            with(load_local(&sources), |settings| recover::say_go_on(&settings, &slot))
        }
        Command::Profiles { sources, verb } => with(load_local(&sources), |settings| {
            profiles::execute(&settings.paths.profiles_dir, &verb)
        }),
        Command::Busy { sources, begun } => {
            with(load_local(&sources), |settings| busy::busy(&settings, begun))
        }
        Command::Hold { sources, watch: None } => {
            with(load_local(&sources), |settings| hold::hold(&settings))
        }
        Command::Hold { sources, watch: Some(grace) } => {
            with(load_local(&sources), |settings| hold::watch(&settings, grace))
        }
        Command::CheckConfig(sources) => check_config(&sources),
    }
}

/// Where a build unwinds, as OpenWrt's does, a task that panicked would be missed by nobody: procd and
/// the journal know what to do about an agent that is gone, not about one that is half there.
fn end_with_any_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tell(info);
        std::process::abort();
    }));
}

/// What is in force; the exit status says whether an agent is to run by it.
fn check_config(sources: &Sources) -> ExitCode {
    let settings = match load(sources) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{}", Chain(&error));
            let finish = to_finish_with(sources, &error).is_some();
            return ExitCode::from(if finish { FINISH } else { SETTINGS });
        }
    };
    print!("{}", settings.effective);
    match wanted(settings) {
        Some(settings) => {
            settings.refused.iter().for_each(|refused| eprintln!("{refused}"));
            ExitCode::SUCCESS
        }
        None => ExitCode::from(DISABLED),
    }
}

fn run(source: &Source, settings: Settings) -> ExitCode {
    let Some(settings) = wanted(settings) else {
        log::warn!("the settings say that this agent is not enabled");
        return ExitCode::from(DISABLED);
    };
    if let Some(refused) = &settings.refused {
        log::error!("{refused}");
        return work(settings);
    }
    if let Err(error) = last_valid::keep(source, &settings) {
        log::warn!("no copy of the valid settings is kept: {error}");
    }
    work(settings)
}

/// Settings by which an agent is to work, if one is: who has switched it off in the middle of an upgrade
/// has it finished, and nothing begun.
fn wanted(settings: Settings) -> Option<Settings> {
    if settings.enabled {
        return Some(settings);
    }
    let unfinished = busy::unfinished(&settings)?;
    let refused = format!("enabled is off, but {unfinished}: that is finished, and nothing begun");
    Some(Settings { refused: Some(refused), ..settings })
}

/// A modem whose flash was cut short is not left so because somebody broke the settings.
fn run_refused(sources: &Sources, error: SettingsError) -> ExitCode {
    let refused = Chain(&error).to_string();
    refused.lines().for_each(|line| log::error!("settings refused: {line}"));
    match to_finish_with(sources, &error) {
        Some(settings) => {
            log::error!(
                "an upgrade is not finished: it is, with the settings that were valid last; \
                 no other begins until those of the router are mended"
            );
            let settings = Settings { refused: Some(refused), ..settings };
            match error {
                // Then nobody says so: procd starts this one again with the settings of the router.
                SettingsError::Unfinished(_) => work_until(settings, accepted_again(sources)),
                SettingsError::Read(_) | SettingsError::Invalid(_) => work(settings),
            }
        }
        None => ExitCode::from(SETTINGS),
    }
}

/// Settings for what is not finished, while those of the router are refused: the last valid ones. Where
/// those are gone, and only the slot of a journal has no name any more, all others may be served still, and
/// somebody is to hear of it.
fn to_finish_with(sources: &Sources, error: &SettingsError) -> Option<Settings> {
    let last = last_valid::find(&sources.config).ok();
    let now = || match error {
        SettingsError::Unfinished(_) => {
            settings::load(&sources.config, sources.overrides.clone()).ok()
        }
        SettingsError::Read(_) | SettingsError::Invalid(_) => None,
    };
    last.filter(|settings| busy::to_go_on_with(settings).is_some()).or_else(now)
}

/// Ends when what the settings were refused for is finished.
async fn accepted_again(sources: &Sources) {
    while let Err(error) = load(sources) {
        log::debug!("{error}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    log::info!("what the settings were refused for is finished: they are taken over");
}

fn work(settings: Settings) -> ExitCode {
    work_until(settings, std::future::pending())
}

/// Works until `end`, or until the process is told to end.
fn work_until(settings: Settings, end: impl Future<Output = ()>) -> ExitCode {
    let work = async {
        tokio::select! {
            worked = crate::run::run(settings) => worked,
            () = end => Ok(()),
        }
    };
    match on_runtime(work) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            log::error!("{}", Chain(&error));
            ExitCode::from(FAILED)
        }
        Err(error) => failed(&error),
    }
}

fn on_runtime<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    log::error!("{error}");
    ExitCode::from(FAILED)
}

fn load(sources: &Sources) -> Result<Settings, SettingsError> {
    accepted(&sources.config, settings::load(&sources.config, sources.overrides.clone()))
}

/// Settings of now, as far as they leave no modem alone that those of before looked after.
fn accepted(
    source: &Source,
    settings: Result<Settings, SettingsError>,
) -> Result<Settings, SettingsError> {
    forsaken::accepted(settings?, last_valid::find(source).ok().as_ref())
}

/// For commands that look at this router only. What they are asked is not less true while settings are
/// refused.
fn load_local(sources: &Sources) -> Result<Settings, SettingsError> {
    let local = settings::load_local(&sources.config, sources.overrides.clone());
    accepted(&sources.config, local).or_else(|error| {
        let Ok(settings) = last_valid::find(&sources.config) else { return Err(error) };
        eprintln!("{error}\nThe settings are refused; those that were valid last are used.");
        Ok(settings)
    })
}

fn with(
    settings: Result<Settings, SettingsError>,
    work: impl FnOnce(Settings) -> ExitCode,
) -> ExitCode {
    match settings {
        Ok(settings) => work(settings),
        Err(error) => {
            eprintln!("{}", Chain(&error));
            ExitCode::from(SETTINGS)
        }
    }
}
