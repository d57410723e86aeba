//! What lies on disk of slots that the settings do not name (any more).

use crate::upgrade::{
    journal::{self, Found, peek},
    results::Results,
};
use shared::{
    desired::Job,
    event::{EventBody, Outcome},
    failure::{Failure, FailureKind},
    hex::Sha256,
    ids::StreamId,
    stages::Phase,
};
use std::path::Path;

/// Manifests of the images that their journals may still need. `own`: whether a slot has that name. `None`
/// while that is not known of every one.
pub fn needed(state_dir: &Path, own: impl Fn(&str) -> bool) -> Option<Vec<Sha256>> {
    let journals = journal::all(state_dir).inspect_err(|error| log::warn!("{error}")).ok()?;
    let mut needed = Vec::new();
    for (path, _) in journals.into_iter().filter(|(_, slot)| !own(slot)) {
        match peek(&path) {
            _ if journal::aside(&path).exists() => return None,
            Ok(Found::Nothing) => {}
            Ok(Found::State { state, .. }) => {
                let image = state.may_need_image();
                needed.extend(image.then_some(state.record.job.image.manifest_sha256));
            }
            Ok(Found::Unreadable) | Err(_) => return None,
        }
    }
    Some(needed)
}

/// What is said to a job for such a slot, and as which attempt of which stream if it was one of ours. Never
/// that its modem is untouched where a journal knows better.
pub fn answer(state_dir: &Path, job: &Job) -> (EventBody, Option<(StreamId, u32)>) {
    let slot = job.slot.as_str();
    let path = journal::path(state_dir, &job.slot);
    let results = Results::open(&state_dir.join(slot));
    let unknown = match peek(&path) {
        _ if journal::aside(&path).exists() || results.trouble().is_some() => true,
        Ok(Found::State { state, .. }) => state.has_touched(),
        Ok(Found::Nothing) => false,
        Ok(Found::Unreadable) | Err(_) => true,
    };
    if unknown {
        let reason = format!(
            "this router's settings have no slot {slot:?}, and its upgrade is not finished; name it again"
        );
        return (EventBody::Postponed { reason }, None);
    }
    if let Some(ended) = results.of(job.operation) {
        let outcome = ended.outcome.clone();
        return (EventBody::Finished { outcome }, Some((ended.stream, ended.attempt)));
    }
    let detail = format!("this router has no slot {slot:?}");
    let failure = Failure::untouched(Phase::Inspecting, FailureKind::WrongModem, detail);
    (EventBody::Finished { outcome: Outcome::Failed { failure } }, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::{
        journal::{Journal, Reading},
        state::{Run, State, Step, tests::record},
    };

    #[test]
    fn a_half_written_modem_is_neither_forgotten_nor_called_untouched() {
        let state_dir = tempfile::tempdir().unwrap();
        let state_dir = state_dir.path();
        let job = record().job;
        let says = || match answer(state_dir, &job).0 {
            EventBody::Postponed { reason } => reason,
            EventBody::Finished { outcome } => format!("{outcome:?}"),
            other => panic!("{other:?}"),
        };
        assert!(says().contains("Untouched"), "{}", says());
        assert!(!state_dir.join("main").exists(), "nothing is made for a slot that is not there");
        assert_eq!(needed(state_dir, |_| false), Some(vec![]));

        let path = journal::path(state_dir, &job.slot);
        let (mut journal, _) = Journal::open(&path, "b", Reading::Whole).unwrap();
        let step = Step::Recovering { tries: 9, run: Run::Start };
        journal.save(&State { step, ..State::new(record()) }).unwrap();
        assert!(says().contains("is not finished"), "{}", says());
        assert_eq!(needed(state_dir, |_| false), Some(vec![job.image.manifest_sha256]));
        assert_eq!(needed(state_dir, |slot| slot == "main"), Some(vec![]), "the slot's business");

        std::fs::rename(&path, journal::aside(&path)).unwrap();
        assert!(says().contains("is not finished"), "{}", says());
        assert_eq!(needed(state_dir, |_| false), None);
    }
}
