//! What each action does to the world. Every function here looks, acts and says what came of it;
//! none decides what follows.

mod accept;
mod fetch;
mod gates;
mod inspect;
mod install;
mod probe;
mod recover;
mod surroundings;
mod told;

use crate::{
    environment::Environment,
    guardian::holders::Holder,
    modem::{self, ModemLock, NotReady, Ready, Sought, discovery, discovery::Modem, manager},
    processes::{self, Process},
    sysupgrade,
    upgrade::state::{Action, Before, Outcome, Sighting, State},
    uplink::StartAnswer,
};
use shared::{
    event::VersionLine,
    failure::{Failure, FailureKind, ModemCondition},
    grant::StartRequest,
};
use std::time::Duration;
use tokio::time::Instant;

/// How long a holder that was stopped may take to close its ports.
const PORT_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(500);

impl Environment {
    /// Performs `action`, the pending one of `state`.
    pub async fn perform(&mut self, action: Action, state: &State) -> Outcome {
        match action {
            Action::Inspect => self.inspect(state).await,
            Action::CheckGates(gates) => self.check_gates(gates, state).await,
            Action::Download => self.download(state).await,
            Action::Verify => self.verify(state).await,
            Action::Baseline => self.baseline(state).await,
            Action::RequestGrant { attempt } => self.request_grant(attempt, state).await,
            Action::Prepare => self.prepare(state).await,
            Action::Install => self.install(state).await,
            Action::Attach => self.attach(state).await,
            Action::Probe => self.probe(state).await,
            Action::Restore => self.restore(state).await,
            Action::Confirm => self.confirm(state).await,
            Action::PostFlash => self.post_flash(state).await,
            Action::Release => self.release().await,
            Action::Recover => self.recover(state).await,
            // The driver has rested before, and waited for a person's word.
            Action::Pause { .. } => Outcome::Paused,
            Action::AwaitRelease => Outcome::OperatorReleased,
        }
    }

    async fn request_grant(&mut self, attempt: u32, state: &State) -> Outcome {
        if let Err(reason) = self.begin() {
            return Outcome::Again { reason };
        }
        let outcome = self.grant_requested(attempt, state).await;
        if outcome != Outcome::Granted {
            self.job.begun = None;
        }
        outcome
    }

    /// From here on `busy --begun` sees this upgrade.
    fn begin(&mut self) -> Result<(), String> {
        if self.job.begun.is_none() {
            let begun = sysupgrade::begin(&self.settings.paths.run_dir);
            let begun = begun.map_err(|error| format!("the run directory: {error}"))?;
            self.job.begun = Some(begun.ok_or("somebody looks whether an upgrade begins")?);
        }
        Ok(())
    }

    async fn grant_requested(&mut self, attempt: u32, state: &State) -> Outcome {
        let mut checked = self.check_again(state).await;
        if checked.is_ok() {
            checked = self.check_trust(state);
        }
        if let Err(outcome) = checked {
            return match outcome {
                Outcome::Again { .. } | Outcome::ImageLost => Outcome::GatesClosed,
                other => other,
            };
        }
        let Some(profile) = &self.job.profile else { return lost_context(state) };
        let (expected, longest) = profile.dark_window_s();
        let request = StartRequest {
            attempt,
            stream: state.record.stream,
            dark_expected_s: if self.job.sole_uplink.unwrap_or(true) { expected } else { 0 },
            dark_longest_s: longest,
            returned: state.record.returned,
        };
        match self.uplink.request_start(state.record.job.operation, &request).await {
            StartAnswer::Granted(_) => Outcome::Granted,
            StartAnswer::Refused(refusal) => Outcome::Refused(refusal),
            StartAnswer::NoAnswer(reason) => Outcome::Again {
                reason: format!("no answer to the request for the grant: {reason}"),
            },
        }
    }

    async fn prepare(&mut self, state: &State) -> Outcome {
        match self.prepared(state).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn prepared(&mut self, state: &State) -> Result<Outcome, Outcome> {
        let imei = state.record.before.as_ref().map(|b| b.imei.clone());
        let failed =
            |reason| Outcome::Failed(untouched(state, FailureKind::ToolNotStarted, reason));
        let closed = |reason| Outcome::Postponed { reason };
        self.check_sysupgrade().map_err(closed)?;
        // Holding may take the interfaces down: then it is too late to ask.
        self.check_way(state).await.map_err(closed)?;
        self.check_trust(state).map_err(|outcome| match outcome {
            Outcome::ImageLost => failed("what is staged cannot be read any more".into()),
            other => other,
        })?;
        self.take_hold(state).await.map_err(failed)?;
        // Another modem may have been lost while the coordinator was asked.
        if let Some(reason) = self.obstacle(imei.as_deref()).await {
            return Err(failed(reason));
        }
        self.last_look(state).await
    }

    /// Takes the modem for this process, and makes its holders let go; repeated by a fresh process,
    /// whose router may have started everything again.
    async fn take_hold(&mut self, state: &State) -> Result<(), String> {
        if self.job.holding {
            return Ok(());
        }
        self.lock_modem()?;
        let mut holders = self.who_holds().await;
        for before in &state.record.held {
            // ModemManager's name of the modem is one of an earlier life of it.
            if !matches!(before, Holder::Modem(_)) && !holders.contains(before) {
                holders.push(before.clone());
            }
        }
        self.holders.take(&holders).await.map_err(|e| chain(&e))?;
        self.job.holding = true;
        if !holders.is_empty() {
            self.closed_ports(state).await;
        }
        Ok(())
    }

    /// Waits until those who let go have closed the modem's ports, or for a while: the scripts that stop them do
    /// not wait for their end, and two who read one port steal each other's answers.
    async fn closed_ports(&self, state: &State) {
        let imei = state.record.before.as_ref().map(|before| before.imei.as_str());
        let strangers = self.strangers(imei).await;
        let deadline = Instant::now() + PORT_PATIENCE;
        loop {
            let mut modems = self.place.snapshot().modems();
            modems.retain(|modem| !strangers.contains(&modem.bus_id));
            let Some(user) = modems.iter().find_map(|modem| self.user_of(modem)) else { return };
            if Instant::now() >= deadline {
                log::warn!("{user} has a port of the modem open still");
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn user_of(&self, modem: &Modem) -> Option<Process> {
        let mut ports = modem.at.iter().map(|name| self.place.port(name));
        ports.find_map(|port| processes::having_open(&self.settings.paths.proc, &port))
    }

    /// The places of modems that somebody uses and ModemManager knows for others than ours: one that is only
    /// told to leave ours alone has them still, and they may be the way out.
    async fn strangers(&self, imei: Option<&str>) -> Vec<String> {
        let mut strangers = Vec::new();
        let Some(ours) = imei.or(self.slot.imei.as_deref()) else { return strangers };
        for modem in self.place.snapshot().modems() {
            if self.user_of(&modem).is_none() {
                continue;
            }
            let sought = Sought::At(&modem.bus_id);
            let managed = manager::find(&self.settings.paths.mmcli, sought).await;
            if managed.is_ok_and(|other| !other.imei.is_empty() && other.imei != ours) {
                strangers.push(modem.bus_id);
            }
        }
        strangers
    }

    pub(super) fn lock_modem(&mut self) -> Result<(), String> {
        if self.job.lock.is_none() {
            let key = modem::discovery::LOCK_KEY;
            let lock =
                ModemLock::acquire(&self.settings.paths.run_dir, key).map_err(|e| chain(&e))?;
            self.job.lock = Some(lock);
        }
        Ok(())
    }

    async fn release(&mut self) -> Outcome {
        self.job.begun = None;
        self.job.lock = None;
        self.job.holding = false;
        match self.holders.give_back().await {
            Ok(()) => Outcome::Released,
            Err(error) => Outcome::Again { reason: format!("giving back: {}", chain(&error)) },
        }
    }

    /// Others have their turn meanwhile: the modems' lock is theirs, and after it this takes hold
    /// anew. `slow`: for hours, in which the holders may be all that connects the router over another
    /// modem; where there is none, nothing is gained by disturbing a loader.
    pub async fn park(&mut self, slow: bool) {
        self.job.begun = None;
        self.job.lock = None;
        self.job.holding = false;
        let another =
            self.settings.slots.len() > 1 || discovery::any_talks(&self.settings.paths.sysfs);
        if slow
            && another
            && let Err(error) = self.holders.give_back().await
        {
            log::warn!("giving back: {}", chain(&error));
        }
    }

    /// The modem of this slot, answering AT, within `patience`. Until its holders have let go, no port is
    /// opened that somebody has: two who read one port steal each other's answers. After that none of another
    /// modem is, that somebody uses.
    async fn answering(&self, imei: Option<&str>, patience: Duration) -> Result<Ready, NotReady> {
        let deadline = Instant::now() + patience;
        let place = if self.job.holding {
            self.place.clone().without(self.strangers(imei).await)
        } else {
            self.place.clone().sparing(&self.settings.paths.proc)
        };
        modem::wait_ready(&place, self.slot.sought(imei), deadline).await
    }

    /// How long a modem may take after the tool: away from the bus, booting, silent.
    fn boot_patience(&self) -> Duration {
        let profile = self.job.profile.as_ref();
        profile.map_or(self.settings.modem.away, |p| Duration::from_secs(p.timeouts.boot_s))
    }
}

/// The file by which `modem-upgrader-agent recover` says "go on".
#[must_use]
pub fn release_word(run_dir: &std::path::Path, slot: &str) -> std::path::PathBuf {
    run_dir.join(slot).join("go-on")
}

/// Whether a person has said "go on"; the word is gone afterwards.
#[must_use]
pub fn take_release_word(run_dir: &std::path::Path, slot: &str) -> bool {
    std::fs::remove_file(release_word(run_dir, slot)).is_ok()
}

/// An error with its causes, for people.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn untouched(state: &State, kind: FailureKind, detail: impl Into<String>) -> Failure {
    Failure::new(state.phase(), kind, ModemCondition::Untouched, detail)
}

/// A step was reached without what the steps before it put into memory.
fn lost_context(state: &State) -> Outcome {
    Outcome::Failed(untouched(state, FailureKind::Internal, "the upgrade's context is missing"))
}

/// Replies to version commands as single lines, counted from 1.
pub(crate) fn version_lines(replies: Vec<(String, Vec<String>)>) -> Vec<VersionLine> {
    let lines = replies.into_iter().flat_map(|(command, lines)| {
        lines.into_iter().zip(1..).map(move |(value, line)| VersionLine {
            command: command.clone(),
            line,
            value,
        })
    });
    lines.collect()
}

/// Whether everything in `wanted` stands in `found`, by equality.
fn all_found(wanted: &[VersionLine], found: &[VersionLine]) -> bool {
    wanted.iter().all(|line| found.contains(line))
}

/// Whether what was `known` is there still, as far as the modem answers: a command that it refuses so soon after its
/// start says nothing. What the manifest asks for it has to answer.
fn all_kept(known: &[VersionLine], found: &[VersionLine]) -> bool {
    let answered = |line: &&VersionLine| found.iter().any(|other| other.command == line.command);
    let mut known = known.iter().filter(answered).peekable();
    known.peek().is_some() && known.all(|line| found.contains(line))
}

/// What the modem is by its versions alone.
fn judge(wanted: &[VersionLine], before: Option<&Before>, found: &[VersionLine]) -> Sighting {
    if all_found(wanted, found) {
        return Sighting::Target;
    }
    match before {
        // Before any tool starts the modem itself is asked: where it was not, no tool was started.
        Some(before) if !before.by_modem || all_kept(&before.versions, found) => Sighting::Old,
        _ => {
            let found: Vec<_> =
                found.iter().map(|l| format!("{} {}", l.command, l.value)).collect();
            Sighting::OtherVersion { found: found.join(", ") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::state::tests::before;

    #[test]
    fn where_the_modem_was_never_asked_no_tool_was_started() {
        let line =
            |value: &str| VersionLine { command: "#SWPKGV".into(), line: 1, value: value.into() };
        let (old, new) = ([line("45.00.003")], [line("45.00.004")]);
        let unknown = Before { by_modem: false, ..before() };
        assert_eq!(judge(&new, Some(&unknown), &old), Sighting::Old);
        assert_eq!(judge(&new, Some(&unknown), &new), Sighting::Target);
        let asked = Before { by_modem: true, ..before() };
        assert!(matches!(judge(&new, Some(&asked), &old), Sighting::OtherVersion { .. }));
        let known = Before { versions: old.to_vec(), ..asked };
        assert_eq!(judge(&new, Some(&known), &old), Sighting::Old);
    }
}
