//! `probe`: the modems of this router, asked over AT, or ModemManager in their place while it has them;
//! and what on this router may get in a flash's way.

mod show;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::{ABSENT, BUSY, FAILED};
use crate::cron::{self, Suspect};
use crate::modem::dialect::{VersionCommands, identify, read_versions};
use crate::modem::manager::{self, Managed};
use crate::modem::recording::{Recorded, Recording, record};
use crate::modem::{
    Abnormal, Busy, Identity, Modem, ModemError, ModemLock, Port, Snapshot, Sought,
};
use crate::settings::Paths;
use crate::{files, guardian, processes};

/// What a modem tells of its firmware.
const VERSIONS: [&str; 3] = ["#SWPKGV", "+CGMR", "+GMR"];
/// A port that is silent for so long is not the one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `probe` was asked to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub json: bool,
    /// Writes a [`Recording`] there.
    pub record: Option<std::path::PathBuf>,
    /// With all digits.
    pub unmasked: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    modems: Vec<Probed>,
    /// Devices in a mode that no working modem has.
    abnormal: Vec<Abnormal>,
    /// Cron jobs that no lock keeps off.
    cron: Vec<Suspect>,
}

#[derive(Debug, Serialize)]
struct Probed {
    modem: Modem,
    answers: Option<Answers>,
    /// ModemManager's word, where it has the ports.
    managed: Option<Managed>,
    /// Ports that another process has open, which are left alone: port and process.
    used: Vec<(String, String)>,
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
pub async fn probe(paths: &Paths, wanted: &Wanted) -> ExitCode {
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
    let cron = cron::suspects(&paths.crontab);
    let mut report = Report { modems: Vec::new(), abnormal: snapshot.abnormal(), cron };
    let mut recording = Recording::of_router(&paths.sysfs, &paths.proc, snapshot.clone());
    for modem in snapshot.modems() {
        match probe_one(paths, modem, wanted.record.is_some()).await {
            Ok((probed, recorded)) => {
                recording.used.extend(probed.used.iter().cloned());
                recording.modems.extend(recorded);
                report.modems.push(probed);
            }
            Err(busy) => return refused(busy),
        }
    }
    show::print(&report, wanted.json);
    if let Some(file) = &wanted.record
        && let Err(error) = keep(recording, wanted.unmasked, file)
    {
        eprintln!("{}: {error}", file.display());
        return ExitCode::from(FAILED);
    }
    if report.modems.is_empty() { ExitCode::from(ABSENT) } else { ExitCode::SUCCESS }
}

fn refused(busy: Busy) -> ExitCode {
    match busy {
        Busy::Held { pid } => {
            let holder = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
            eprintln!("a modem is in use{holder}: a flash is under way, nothing was opened");
            ExitCode::from(BUSY)
        }
        error @ Busy::Unusable { .. } => {
            eprintln!("{error}");
            ExitCode::from(FAILED)
        }
    }
}

fn keep(recording: Recording, unmasked: bool, file: &Path) -> std::io::Result<()> {
    let recording = if unmasked { recording } else { recording.masked() };
    let mut json = serde_json::to_vec_pretty(&recording)?;
    json.push(b'\n');
    files::write_atomic(&std::path::absolute(file)?, &json)
}

async fn probe_one(
    paths: &Paths,
    mut modem: Modem,
    recording: bool,
) -> Result<(Probed, Option<Recorded>), Busy> {
    let _held = ModemLock::acquire(&paths.run_dir, &modem.lock_key())?;
    let all = modem.at.iter().chain(&modem.diag);
    let used: Vec<(String, String)> = all
        .filter_map(|name| {
            let user = processes::having_open(&paths.proc, &paths.dev.join(name))?;
            Some((name.clone(), user.to_string()))
        })
        .collect();
    // Two who read one port steal each other's answers.
    let free = |name: &String| used.iter().all(|(taken, _)| taken != name);
    let ports = modem.at.clone();
    let mut silent = match used.first() {
        Some((port, user)) => format!("{port} is in use by {user}"),
        None => "it has no AT port".to_owned(),
    };
    let mut answers = None;
    for name in ports.iter().filter(|name| free(name)) {
        match ask(paths, name).await {
            Ok(told) => {
                answers = Some(told);
                break;
            }
            Err(error) => silent = format!("{name}: {error}"),
        }
    }
    let mut recorded = None;
    if recording {
        modem.at.retain(|name| free(name));
        match record(&modem, &paths.dev, PATIENCE).await {
            Ok(lines) => recorded = Some(lines),
            Err(error) => eprintln!("nothing is recorded of {}: {error}", modem.bus_id),
        }
        modem.at = ports;
    }
    let managed = match answers {
        None if !used.is_empty() => {
            manager::find(&paths.mmcli, Sought::At(&modem.bus_id)).await.ok()
        }
        _ => None,
    };
    let silent = answers.is_none().then_some(silent);
    Ok((Probed { modem, answers, managed, used, silent }, recorded))
}

async fn ask(paths: &Paths, name: &str) -> Result<Answers, ModemError> {
    let mut port = Port::open(&paths.dev.join(name), PATIENCE).await?;
    let identity = identify(&mut port).await?;
    let commands = VersionCommands::new([], &VERSIONS.map(str::to_owned));
    let versions = read_versions(&mut port, &commands).await?;
    Ok(Answers { port: name.to_owned(), identity, versions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Fragment, from_fragments};
    use std::path::Path;

    fn paths(root: &Path) -> Paths {
        let text = format!(
            "[coordinator]\nurl = \"https://h\"\n[paths]\nsysfs = \"{0}/sys\"\ndev = \"{0}/dev\"\n\
             run_dir = \"{0}/run\"\nproc = \"{0}/proc\"\nmmcli = \"{0}/mmcli\"\n\
             crontab = \"{0}/crontab\"",
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
        assert_eq!(probe(&paths, &Wanted::default()).await, ExitCode::from(BUSY));
        drop(held);
        assert_eq!(
            probe(&paths, &Wanted::default()).await,
            ExitCode::SUCCESS,
            "silent, and shown as such"
        );
    }

    #[tokio::test]
    async fn download_mode_is_shown_and_is_no_modem() {
        let root = tempfile::tempdir().unwrap();
        plug(root.path(), "9010");
        let paths = paths(root.path());
        assert_eq!(probe(&paths, &Wanted::default()).await, ExitCode::from(ABSENT));
        let abnormal = Snapshot::read(&paths.sysfs).unwrap().abnormal();
        let text = show::table(&Report { modems: Vec::new(), abnormal, cron: Vec::new() });
        assert!(text.contains("1bc7:9010") && text.contains("download mode"), "{text}");
    }

    #[tokio::test]
    async fn a_port_in_use_is_not_opened_and_its_user_is_named() {
        let root = tempfile::tempdir().unwrap();
        plug(root.path(), "1070");
        let interface = root.path().join("sys/bus/usb/devices/1-1:1.4");
        std::fs::create_dir_all(interface.join("ttyUSB2")).unwrap();
        std::fs::write(interface.join("bInterfaceNumber"), "04\n").unwrap();
        let process = root.path().join("proc/812/fd");
        std::fs::create_dir_all(&process).unwrap();
        std::fs::create_dir_all(root.path().join("dev")).unwrap();
        let port = root.path().join("dev/ttyUSB2");
        std::fs::write(&port, "").unwrap();
        std::os::unix::fs::symlink(&port, process.join("5")).unwrap();
        std::fs::write(root.path().join("proc/812/cmdline"), "/usr/sbin/ModemManager\0").unwrap();
        std::fs::write(root.path().join("crontab"), "* * * * * sms_tool status\n").unwrap();
        let paths = paths(root.path());
        let modem = Snapshot::read(&paths.sysfs).unwrap().modems().remove(0);
        let (probed, recorded) = probe_one(&paths, modem, true).await.unwrap();
        assert_eq!(recorded, None);
        let user = "ModemManager (pid 812)";
        assert_eq!(probed.used, [("ttyUSB2".to_owned(), user.to_owned())]);
        let cron = cron::suspects(&paths.crontab);
        let text = show::table(&Report { modems: vec![probed], abnormal: Vec::new(), cron });
        assert!(text.contains("in use     ttyUSB2 by ModemManager (pid 812)"), "{text}");
        assert!(text.contains("sms_tool status"), "{text}");
    }
}
