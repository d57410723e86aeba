//! `probe`: the modems of this router, asked over AT.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::{ABSENT, BUSY, FAILED};
use crate::guardian;
use crate::modem::dialect::{VersionCommands, identify, read_versions};
use crate::modem::{Abnormal, Busy, Identity, Modem, ModemError, ModemLock, Port, Snapshot};
use crate::settings::Paths;

/// What a modem tells of its firmware.
const VERSIONS: [&str; 3] = ["#SWPKGV", "+CGMR", "+GMR"];
/// A port that is silent for so long is not the one.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
struct Report {
    modems: Vec<Probed>,
    /// Devices in a mode that no working modem has.
    abnormal: Vec<Abnormal>,
}

#[derive(Debug, Serialize)]
struct Probed {
    modem: Modem,
    answers: Option<Answers>,
    /// Why there are no answers.
    silent: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answers {
    port: String,
    identity: Identity,
    versions: Vec<(String, Vec<String>)>,
}

/// Prints what is there and returns the exit status.
pub async fn probe(paths: &Paths, json: bool) -> ExitCode {
    // A tool may outlive the agent that holds the modem's lock.
    if guardian::is_any_running(&paths.run_dir) {
        eprintln!("a flash is under way, nothing was opened");
        return ExitCode::from(BUSY);
    }
    let snapshot = match Snapshot::read(&paths.sysfs) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            eprintln!("USB devices cannot be listed: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let mut report = Report { modems: Vec::new(), abnormal: snapshot.abnormal() };
    for modem in snapshot.modems() {
        match probe_one(paths, modem).await {
            Ok(probed) => report.modems.push(probed),
            Err(Busy::Held { pid }) => {
                let holder = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
                eprintln!("a modem is in use{holder}: a flash is under way, nothing was opened");
                return ExitCode::from(BUSY);
            }
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(FAILED);
            }
        }
    }
    if json {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("{error}"),
        }
    } else {
        print!("{}", table(&report));
    }
    if report.modems.is_empty() { ExitCode::from(ABSENT) } else { ExitCode::SUCCESS }
}

async fn probe_one(paths: &Paths, modem: Modem) -> Result<Probed, Busy> {
    let _held = ModemLock::acquire(&paths.run_dir, &modem.lock_key())?;
    let mut silent = "it has no AT port".to_owned();
    for name in &modem.at {
        match ask(paths, name).await {
            Ok(answers) => return Ok(Probed { modem, answers: Some(answers), silent: None }),
            Err(error) => silent = format!("{name}: {error}"),
        }
    }
    Ok(Probed { modem, answers: None, silent: Some(silent) })
}

async fn ask(paths: &Paths, name: &str) -> Result<Answers, ModemError> {
    let mut port = Port::open(&paths.dev.join(name), PATIENCE).await?;
    let identity = identify(&mut port).await?;
    let commands = VersionCommands::new([], &VERSIONS.map(str::to_owned));
    let versions = read_versions(&mut port, &commands).await?;
    Ok(Answers { port: name.to_owned(), identity, versions })
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    for probed in &report.modems {
        let modem = &probed.modem;
        text += &format!("usb        {} {}\n", modem.bus_id, modem.usb);
        text += &format!("ports      at {}", modem.at.join(" "));
        text += &format!(", diag {}", modem.diag.as_deref().unwrap_or("none"));
        text += &format!(", net {}\n", modem.net.join(" "));
        match &probed.answers {
            Some(answers) => text += &answers_text(answers),
            None => text += &format!("silent     {}\n", probed.silent.as_deref().unwrap_or("")),
        }
        text += "\n";
    }
    for device in &report.abnormal {
        text += &format!("usb        {} {}\n", device.bus_id, device.usb);
        text += &format!("condition  {}\n\n", device.condition);
    }
    if text.is_empty() { "no modem found\n".to_owned() } else { text }
}

fn answers_text(answers: &Answers) -> String {
    let identity = &answers.identity;
    let mut text = format!("modem      {} {}\n", identity.manufacturer, identity.model);
    text += &format!("imei       {}\n", identity.imei);
    for (command, lines) in &answers.versions {
        text += &format!("{command:<10} {}\n", lines.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Fragment, from_fragments};
    use std::path::Path;

    fn paths(root: &Path) -> Paths {
        let text = format!(
            "[coordinator]\nurl = \"https://h\"\n[paths]\nsysfs = \"{0}/sys\"\ndev = \"{0}/dev\"\n\
             run_dir = \"{0}/run\"",
            root.display()
        );
        from_fragments([Fragment::from_toml(&text, "t").unwrap()]).unwrap().paths
    }

    fn plug(root: &Path, product: &str) {
        let device = root.join("sys/bus/usb/devices/1-1");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("idVendor"), "1bc7\n").unwrap();
        std::fs::write(device.join("idProduct"), format!("{product}\n")).unwrap();
    }

    #[tokio::test]
    async fn a_modem_in_use_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        plug(root.path(), "1070");
        let paths = paths(root.path());
        let modem = Snapshot::read(&paths.sysfs).unwrap().modems().remove(0);
        let held = ModemLock::acquire(&paths.run_dir, &modem.lock_key()).unwrap();
        assert_eq!(probe(&paths, true).await, ExitCode::from(BUSY));
        drop(held);
        assert_eq!(probe(&paths, true).await, ExitCode::SUCCESS, "silent, and shown as such");
    }

    #[tokio::test]
    async fn download_mode_is_shown_and_is_no_modem() {
        let root = tempfile::tempdir().unwrap();
        plug(root.path(), "9010");
        let paths = paths(root.path());
        assert_eq!(probe(&paths, false).await, ExitCode::from(ABSENT));
        let abnormal = Snapshot::read(&paths.sysfs).unwrap().abnormal();
        let text = table(&Report { modems: Vec::new(), abnormal });
        assert!(text.contains("1bc7:9010") && text.contains("download mode"), "{text}");
    }
}
