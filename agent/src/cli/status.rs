//! `status`: the file that `run` keeps, for people or as it is.

use std::path::Path;
use std::process::ExitCode;

use shared::event::{Outcome, Tick};
use shared::inventory::Modem;

use super::{ABSENT, FAILED};
use crate::files;
use crate::guardian::Presence;
use crate::settings::Paths;
use crate::status::Status;
use crate::uplink::{Access, UplinkState};

const MAX_FILE_BYTES: usize = 64 * 1024;

pub fn show(paths: &Paths, json: bool) -> ExitCode {
    let lock = Presence::lock_path(&paths.run_dir);
    let runs = files::is_locked(&lock).unwrap_or(false);
    let status = match read(&paths.status_file()) {
        Ok(status) => status,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && runs => {
            eprintln!("the agent runs, and has not looked at its modems yet");
            return ExitCode::SUCCESS;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("the agent does not run: there is no {}", paths.status_file().display());
            return ExitCode::from(ABSENT);
        }
        Err(error) => {
            eprintln!("{}: {error}", paths.status_file().display());
            return ExitCode::from(FAILED);
        }
    };
    if json {
        match serde_json::to_string_pretty(&status) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("{error}"),
        }
    } else {
        print!("{}", text(&status));
    }
    if runs {
        ExitCode::SUCCESS
    } else {
        eprintln!("the agent does not run; this is what it wrote last");
        ExitCode::from(ABSENT)
    }
}

fn read(path: &Path) -> std::io::Result<Status> {
    Ok(serde_json::from_slice(&files::read_limited(path, MAX_FILE_BYTES)?)?)
}

fn text(status: &Status) -> String {
    let mut text = format!("agent      {}\n", status.agent_version);
    text += &status.uplink.as_ref().map_or("uplink     not started\n".to_owned(), uplink);
    if let Some(trouble) = &status.storage_trouble {
        text += &format!("storage    {trouble}\n");
    }
    if let Some(trouble) = &status.clock_trouble {
        text += &format!("clock      {trouble}\n");
    }
    if let Some(refused) = &status.settings_refused {
        text += &format!("settings   refused, those valid last are used: {refused}\n");
    }
    status.modems.iter().for_each(|modem| text += &modem_text(modem));
    for held in &status.held {
        text += &format!("slot {:<5} waits for a person: {}\n", held.slot, held.reason);
    }
    status.upgrades.iter().for_each(|tick| text += &progress(tick));
    if let Some(last) = &status.last_result {
        text += &format!("last       {}: {}\n", last.operation, outcome(&last.outcome));
    }
    text
}

fn uplink(state: &UplinkState) -> String {
    let access = match &state.access {
        Access::SigningIn => "signing in".to_owned(),
        Access::Accepted => "accepted".to_owned(),
        Access::Pending => "waits for an operator to accept this device".to_owned(),
        Access::Refused { code } => format!("refused ({code})"),
        Access::Unreachable { reason } => format!("no access: {reason}"),
    };
    let mut text = format!("uplink     {access}");
    if let (Some(device), Some(organization)) = (&state.device, &state.organization) {
        text += &format!(", device {device} of {organization}");
    }
    text += if state.line { ", MQTT connected\n" } else { ", no MQTT\n" };
    if state.pending_events > 0 {
        text += &format!("outbox     {} events not acknowledged\n", state.pending_events);
    }
    if let Some(trouble) = &state.outbox_trouble {
        text += &format!("outbox     {trouble}\n");
    }
    text
}

fn modem_text(modem: &Modem) -> String {
    let Modem { slot, manufacturer, model, imei, .. } = modem;
    if let Some(reason) = &modem.unreadable {
        return format!("slot {slot:<5} not read: {reason}\n");
    }
    let mut text = format!("slot {slot:<5} {manufacturer} {model}, IMEI {imei}\n");
    if let Some(network) = &modem.network {
        let words = [&network.registration, &network.operator, &network.technology];
        let words: Vec<_> = words.into_iter().flatten().map(String::as_str).collect();
        let signal = network.rsrp_dbm.map_or(String::new(), |dbm| format!(", {dbm} dBm"));
        let sim = if network.sim == Some(false) { ", no SIM" } else { "" };
        text += &format!("           network {}{signal}{sim}\n", words.join(" "));
    }
    for version in &modem.versions {
        text += &format!("           {} {}\n", version.command, version.value);
    }
    text
}

fn progress(tick: &Tick) -> String {
    let Tick { slot, operation, attempt, phase, percent, .. } = tick;
    let stalled = if tick.stalled { ", stalled" } else { "" };
    let detail = tick.detail.as_ref().map_or(String::new(), |detail| format!(": {detail}"));
    format!(
        "slot {slot:<5} operation {operation}, attempt {attempt}\n           {phase} {percent} %{stalled}{detail}\n"
    )
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded { .. } => "succeeded".to_owned(),
        Outcome::AlreadyInstalled { .. } => "was installed already".to_owned(),
        Outcome::Cancelled => "cancelled".to_owned(),
        Outcome::Failed { failure } => format!("failed: {failure}"),
        Outcome::Unknown => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::StatusFile;
    use shared::ids::{OperationId, Slot, StreamId};
    use shared::stages::Phase;

    #[test]
    fn what_the_agent_publishes_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.json");
        assert_eq!(read(&path).unwrap_err().kind(), std::io::ErrorKind::NotFound);

        let access = Access::Pending;
        let uplink = UplinkState { access, pending_events: 3, ..Default::default() };
        let tick = Tick {
            v: 1,
            operation: OperationId::from_random([1; 16]),
            slot: Slot::default(),
            stream: StreamId::from_random([2; 16]),
            attempt: 2,
            n: 1,
            phase: Phase::Installing,
            percent: 55,
            stalled: true,
            detail: Some("writing".into()),
            fetched: None,
        };
        StatusFile::new(path.clone()).update(|status| {
            status.uplink = Some(uplink);
            let other = Tick { slot: "alpha".parse().unwrap(), percent: 5, ..tick.clone() };
            status.goes_on(tick.clone());
            status.goes_on(other);
            status.goes_on(Tick { percent: 56, ..tick });
        });
        let status = read(&path).unwrap();
        let shown: Vec<_> = status.upgrades.iter().map(|t| (t.slot.as_str(), t.percent)).collect();
        assert_eq!(shown, [("alpha", 5), ("main", 56)], "one a slot, the latest");
        let text = text(&read(&path).unwrap());
        for part in [
            "waits for an operator",
            "3 events not acknowledged",
            "attempt 2",
            "installing 5 %, stalled: writing",
            "installing 56 %, stalled: writing",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
