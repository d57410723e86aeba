//! What it means that our modem does not answer, by exclusion of all the others.
//!
//! A download mode has neither IMEI nor serial number, and modems of other slots, of other owners
//! and phones share the bus. So a device is ours only when nothing else is left that could be: every
//! other modem of the router answers under its own IMEI, and nobody unknown is there.

#![deny(clippy::wildcard_enum_match_arm)]

use super::state::Sighting;
use crate::modem::Condition;
use shared::ids::UsbId;

/// One moment of the router's USB, read under the modems' lock.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The IMEI of the modem that is looked for, once it is known.
    pub ours: Option<&'a str>,
    /// The IMEIs of the router's other slots.
    pub others: &'a [&'a str],
    /// The IMEIs that answer now.
    pub answering: &'a [String],
    /// Places of modems that are enumerated and mute.
    pub silent: &'a [String],
    pub abnormal: &'a [(UsbId, Condition)],
    /// What the profile's tool recovers from.
    pub download_mode: &'a [UsbId],
}

/// What our modem is, given that it did not answer in time.
#[must_use]
pub fn decide(scene: &Scene<'_>) -> Sighting {
    let ours = |imei: &String| scene.ours == Some(imei.as_str());
    if scene.answering.iter().any(ours) {
        // Back between the last wait and this look: to be asked again.
        return Sighting::Silent;
    }
    let (fitting, rest): (Vec<_>, Vec<_>) =
        scene.abnormal.iter().partition(|(usb, _)| scene.download_mode.contains(usb));
    let crashed = rest.iter().filter(|(_, c)| *c == Condition::CrashDump).count();
    match (fitting.len(), crashed) {
        (0, 0) => missing(scene),
        (1, 0) => excluded(scene).unwrap_or(Sighting::DownloadMode),
        (0, 1) => excluded(scene).unwrap_or(Sighting::CrashDump),
        (fitting, crashed) => Sighting::Ambiguous {
            reason: format!("{fitting} devices are in download mode and {crashed} crashed"),
        },
    }
}

/// Why a flash of our modem should not be begun now: if it were cut short, the modem could not be
/// told apart from others, and nobody but a person could go on. `None` also where the profile has no
/// recovery that would have to tell.
#[must_use]
pub fn obstacle(scene: &Scene<'_>) -> Option<String> {
    let mode = *scene.download_mode.first()?;
    let confusing = |(usb, condition): &&(UsbId, Condition)| {
        scene.download_mode.contains(usb) || *condition == Condition::CrashDump
    };
    let reason = if let Some((usb, _)) = scene.abnormal.iter().find(confusing) {
        format!("{usb}, a modem without a name, is on the bus")
    } else {
        // As it would be seen then.
        let is_other = |imei: &&String| scene.ours != Some(imei.as_str());
        let answering: Vec<_> = scene.answering.iter().filter(is_other).cloned().collect();
        let abnormal = [(mode, Condition::DownloadMode)];
        match decide(&Scene { answering: &answering, abnormal: &abnormal, ..*scene }) {
            Sighting::Ambiguous { reason } => reason,
            Sighting::Target
            | Sighting::Old
            | Sighting::OtherVersion { .. }
            | Sighting::WrongModem { .. }
            | Sighting::CrashDump
            | Sighting::DownloadMode
            | Sighting::ForeignDownloadMode { .. }
            | Sighting::Silent
            | Sighting::Absent => return None,
        }
    };
    Some(format!("a flash that is cut short could not be recovered: {reason}"))
}

/// Why a device in another mode need not be ours.
fn excluded(scene: &Scene<'_>) -> Option<Sighting> {
    let reason = if let Some(imei) = unknown(scene) {
        format!("the modem with IMEI {imei} belongs to no slot")
    } else if let Some(imei) = scene.others.iter().find(|imei| !answers(scene, imei)) {
        format!("the modem with IMEI {imei}, of another slot, does not answer either")
    } else {
        format!("the modem at {} does not answer either", scene.silent.first()?)
    };
    Some(Sighting::Ambiguous { reason })
}

/// No device is in a mode that we know from our modem.
fn missing(scene: &Scene<'_>) -> Sighting {
    if !scene.silent.is_empty() {
        return Sighting::Silent;
    }
    if let Some((usb, _)) = scene.abnormal.first() {
        return Sighting::ForeignDownloadMode { usb: usb.to_string() };
    }
    match unknown(scene) {
        Some(imei) if scene.others.is_empty() => Sighting::WrongModem { imei: imei.clone() },
        _ => Sighting::Absent,
    }
}

fn unknown<'a>(scene: &Scene<'a>) -> Option<&'a String> {
    scene.answering.iter().find(|imei| !scene.others.contains(&imei.as_str()))
}

fn answers(scene: &Scene<'_>, imei: &str) -> bool {
    scene.answering.iter().any(|answering| answering == imei)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "351234560000014";
    const B: &str = "351234560000022";
    const STRANGER: &str = "351234560000030";

    fn device(id: &str) -> (UsbId, Condition) {
        let usb = id.parse().unwrap();
        (usb, crate::modem::discovery::condition(usb).unwrap())
    }

    /// What modem A's scene is judged to be where these answer, are mute and are in these modes.
    fn judge<T>(
        judge: impl FnOnce(&Scene<'_>) -> T,
        others: &[&str],
        answering: &[&str],
        silent: &[&str],
        modes: &[&str],
    ) -> T {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        judge(&Scene {
            ours: Some(A),
            others,
            answering: &own(answering),
            silent: &own(silent),
            abnormal: &modes.iter().map(|id| device(id)).collect::<Vec<_>>(),
            download_mode: &["1bc7:9010".parse().unwrap()],
        })
    }

    #[test]
    fn a_device_in_another_mode_is_ours_only_when_nothing_else_can_be() {
        let download = "1bc7:9010";
        let crash = "1bc7:9000";
        let phone = "18d1:d00d";
        for (others, answering, silent, modes, expected) in [
            // One slot.
            (&[][..], &[][..], &[][..], &[download][..], "DownloadMode"),
            (&[], &[], &[], &[phone, download], "DownloadMode"),
            (&[], &[], &[], &[crash], "CrashDump"),
            (&[], &[STRANGER], &[], &[download], STRANGER),
            (&[], &[STRANGER], &[], &[crash], STRANGER),
            (&[], &[], &["2-1"], &[download], "2-1"),
            (&[], &[], &[], &[download, download], "2 devices"),
            (&[], &[], &[], &[download, crash], "1 crashed"),
            (&[], &[], &[], &[phone], "ForeignDownloadMode"),
            (&[], &[], &["2-1"], &[phone], "Silent"),
            (&[], &[], &["2-1"], &[], "Silent"),
            (&[], &[STRANGER], &[], &[], "WrongModem"),
            (&[], &[], &[], &[], "Absent"),
            (&[], &[A], &[], &[download], "Silent"),
            // Two slots.
            (&[B], &[B], &[], &[download], "DownloadMode"),
            (&[B], &[B], &[], &[crash], "CrashDump"),
            (&[B], &[], &[], &[download], B),
            (&[B], &[], &[], &[crash], B),
            (&[B], &[], &["2-1"], &[download], B),
            (&[B], &[B, STRANGER], &[], &[download], STRANGER),
            (&[B], &[B], &["2-1"], &[download], "2-1"),
            (&[B], &[], &[], &[download, download], "2 devices"),
            (&[B], &[B], &[], &[], "Absent"),
            (&[B], &[B, STRANGER], &[], &[], "Absent"),
            (&[B], &[B], &["2-1"], &[], "Silent"),
        ] {
            let seen = format!("{:?}", judge(decide, others, answering, silent, modes));
            let ambiguous = !expected.starts_with(|c: char| c.is_ascii_uppercase());
            let case = format!("{others:?} {answering:?} {silent:?} {modes:?}: {seen}");
            assert_eq!(ambiguous, seen.starts_with("Ambiguous"), "{case}");
            assert!(seen.contains(expected), "{case}");
        }
    }

    #[test]
    fn no_flash_begins_that_could_not_be_told_apart_if_it_were_cut_short() {
        let (download, crash, phone) = ("1bc7:9010", "1bc7:9000", "18d1:d00d");
        for (others, answering, silent, modes, expected) in [
            (&[][..], &[A][..], &[][..], &[][..], None),
            (&[], &[A], &[], &[phone], None),
            (&[B], &[A, B], &[], &[], None),
            (&[B], &[A, B], &[], &[phone], None),
            (&[B], &[A, B], &[], &[download], Some(download)),
            (&[], &[A], &[], &[download], Some(download)),
            (&[B], &[A, B], &[], &[crash], Some(crash)),
            (&[B], &[A], &[], &[], Some(B)),
            (&[B], &[A], &["2-1"], &[], Some(B)),
            (&[B], &[A, B], &["2-1"], &[], Some("2-1")),
            (&[B], &[A, B, STRANGER], &[], &[], Some(STRANGER)),
        ] {
            let found = judge(obstacle, others, answering, silent, modes);
            let case = format!("{others:?} {answering:?} {silent:?} {modes:?}: {found:?}");
            assert_eq!(found.is_some(), expected.is_some(), "{case}");
            assert!(found.is_none_or(|reason| reason.contains(expected.unwrap())), "{case}");
        }
    }
}
