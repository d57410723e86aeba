//! How the modem stood before the flash, to be compared with how it stands after it. Pure: what
//! [`super::standing`] reads.
//!
//! Everything here is the best that could be read: a modem without SIM still has a baseline, and a command
//! that this firmware does not know is `None`.

mod remark;

use serde::{Deserialize, Serialize};
use shared::{inventory::Network, profile::Setting};

/// SIM, network and settings of a modem at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Baseline {
    /// `READY`, `SIM PIN`, ... or the error (`+CME ERROR: 10`: no SIM).
    pub sim: Option<String>,
    /// 18 to 22 digits, perhaps with a filling F.
    pub iccid: Option<String>,
    /// `#QSS`: the SIM as the modem sees it.
    pub sim_status: Option<String>,
    pub lte: Option<Registration>,
    pub nr: Option<Registration>,
    /// `#FWSWITCH`: the carrier image and where it is stored, as in `40,0,0`.
    pub firmware_switch: Option<String>,
    /// `#USBCFG`: the composition, as in `1`.
    pub usb_composition: Option<String>,
    /// `+CGDCONT`: the contexts as far as they go back into a command, as in `1,"IP","internet"`.
    pub contexts: Option<Vec<String>>,
    /// `+COPS`: the access technology (3GPP TS 27.007), 7 = LTE, 11 to 13 = 5G.
    pub access_technology: Option<u8>,
    /// `+COPS`: the network's name or number.
    pub operator: Option<String>,
    /// The signal, see [`super::measure::rsrp`].
    pub rsrp_dbm: Option<i32>,
}

/// The status of `+CEREG`/`+C5GREG` (3GPP TS 27.007).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    NotSearching,
    Home,
    Searching,
    Denied,
    Unknown,
    Roaming,
    /// A status that is not for data: SMS only, emergency only, ...
    Other,
}

impl Registration {
    /// As the inventory tells it.
    fn name(self) -> &'static str {
        match self {
            Registration::NotSearching => "not_searching",
            Registration::Home => "home",
            Registration::Searching => "searching",
            Registration::Denied => "denied",
            Registration::Unknown => "unknown",
            Registration::Roaming => "roaming",
            Registration::Other => "other",
        }
    }

    pub fn is_registered(self) -> bool {
        matches!(self, Registration::Home | Registration::Roaming)
    }
}

/// Something that was there before the flash and is not after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Sim { before: String, after: Option<String> },
    SimCard { before: String, after: Option<String> },
    Network,
    FirmwareSwitch { before: String, after: Option<String> },
    UsbComposition { before: String, after: Option<String> },
    Context { before: String },
}

impl Difference {
    /// The setting that differs, if it is one.
    #[must_use]
    pub fn setting(&self) -> Option<Setting> {
        match self {
            Difference::FirmwareSwitch { .. } => Some(Setting::FirmwareSwitch),
            Difference::UsbComposition { .. } => Some(Setting::UsbComposition),
            Difference::Context { .. } => Some(Setting::Contexts),
            Difference::Sim { .. } | Difference::SimCard { .. } | Difference::Network => None,
        }
    }

    /// The command that puts a setting back. Which of them restart the modem is the profile's word;
    /// after [`Difference::UsbComposition`] it comes back with another USB id.
    pub fn restoring_command(&self) -> Option<String> {
        match self {
            Difference::FirmwareSwitch { before, .. } => Some(format!("AT#FWSWITCH={before}")),
            Difference::UsbComposition { before, .. } => Some(format!("AT#USBCFG={before}")),
            Difference::Context { before } => Some(format!("AT+CGDCONT={before}")),
            Difference::Sim { .. } | Difference::SimCard { .. } | Difference::Network => None,
        }
    }
}

impl Baseline {
    /// Takes over from `read`, the modem's own word, what ModemManager could not tell. Not the network: its
    /// holders have let go of it by then.
    pub fn complete(&mut self, read: Baseline) {
        let fill = |known: &mut Option<String>, read: Option<String>| {
            if known.is_none() {
                *known = read;
            }
        };
        fill(&mut self.sim, read.sim);
        fill(&mut self.iccid, read.iccid);
        fill(&mut self.sim_status, read.sim_status);
        fill(&mut self.firmware_switch, read.firmware_switch);
        fill(&mut self.usb_composition, read.usb_composition);
        self.contexts = self.contexts.take().or(read.contexts);
    }

    /// What of SIM and network leaves the router.
    pub fn told(&self) -> Network {
        let registrations = || [self.nr, self.lte].into_iter().flatten();
        let registration = registrations().find(|r| r.is_registered());
        let no_sim = |text: &String| text.ends_with(": 10") || text.contains("not inserted");
        // 3GPP TS 27.007, +COPS.
        let technology = self.access_technology.and_then(|technology| match technology {
            0 | 1 | 3 => Some("gsm"),
            2 | 4..=6 => Some("umts"),
            7 => Some("lte"),
            11 => Some("5g"),
            12 | 13 => Some("5g-nsa"),
            _ => None,
        });
        Network {
            sim: self.iccid.as_ref().map(|_| true).or(self.sim.as_ref().map(|text| !no_sim(text))),
            sim_issuer: self.iccid.as_ref().and_then(|iccid| iccid.get(..6)).map(str::to_owned),
            registration: registration.or(self.lte).or(self.nr).map(|r| r.name().to_owned()),
            operator: self.operator.clone(),
            technology: technology.map(str::to_owned),
            rsrp_dbm: self.rsrp_dbm,
        }
    }

    pub fn is_registered(&self) -> bool {
        [self.lte, self.nr].into_iter().flatten().any(Registration::is_registered)
    }

    /// Why what was before cannot be held against `now`: there was neither SIM nor network, somebody has
    /// changed the SIM meanwhile, or it waits for a PIN that whoever gives it has not given yet.
    #[must_use]
    pub fn not_comparable(&self, now: &Baseline) -> Option<&'static str> {
        // Not everybody tells the filling.
        let digits = |iccid: &str| iccid.trim_end_matches(['F', 'f']).to_owned();
        match (&self.iccid, &now.iccid) {
            (Some(before), Some(after)) if digits(before) != digits(after) => {
                Some("another SIM is in the modem")
            }
            (None, _) if !self.is_registered() => Some("there was no SIM and no network before"),
            _ if now.is_locked() && !now.is_registered() => Some("the SIM waits for its PIN"),
            _ => None,
        }
    }

    /// Whether the SIM asks for a PIN: a restart locks it, and who gives it is held.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.sim.as_deref().is_some_and(|sim| sim == "SIM PIN")
    }

    /// Why the way into the network is not back, if it is not: a SIM if there was one, registered if
    /// it was. Ask [`Self::not_comparable`] first.
    pub fn missing_network(&self, now: &Baseline) -> Option<String> {
        if self.iccid.is_some() && now.iccid.is_none() {
            return Some("the SIM is not back".into());
        }
        if self.is_registered() && !now.is_registered() {
            return Some("the modem is not registered in a network again".into());
        }
        None
    }

    /// What `now` lacks of what `self` had; nothing is missed that was not read before.
    pub fn differences(&self, now: &Baseline) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut compare =
            |before: &Option<String>, after: &Option<String>, kind: MakeDifference| {
                if let Some(before) = before.as_ref().filter(|_| before != after) {
                    found.push(kind(before.clone(), after.clone()));
                }
            };
        compare(&self.sim, &now.sim, |before, after| Difference::Sim { before, after });
        compare(&self.iccid, &now.iccid, |before, after| Difference::SimCard { before, after });
        compare(&self.firmware_switch, &now.firmware_switch, |before, after| {
            Difference::FirmwareSwitch { before, after }
        });
        compare(&self.usb_composition, &now.usb_composition, |before, after| {
            Difference::UsbComposition { before, after }
        });
        if let (Some(before), Some(after)) = (&self.contexts, &now.contexts) {
            let gone = before.iter().filter(|context| !after.contains(context));
            found.extend(gone.map(|context| Difference::Context { before: context.clone() }));
        }
        if self.is_registered() && !now.is_registered() {
            found.push(Difference::Network);
        }
        found
    }
}

type MakeDifference = fn(String, Option<String>) -> Difference;

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Baseline {
        Baseline {
            sim: Some("READY".into()),
            iccid: Some("8949000000000000001".into()),
            lte: Some(Registration::Home),
            firmware_switch: Some("40,0,0".into()),
            usb_composition: Some("1".into()),
            ..Baseline::default()
        }
    }

    #[test]
    fn what_was_lost_is_named_and_settings_have_a_command() {
        let now = Baseline {
            sim: Some("+CME ERROR: 10".into()),
            iccid: None,
            lte: Some(Registration::Searching),
            usb_composition: Some("2".into()),
            firmware_switch: Some("0,0,0".into()),
            ..before()
        };
        let found = before().differences(&now);
        assert_eq!(found.len(), 5);
        let commands: Vec<_> = found.iter().filter_map(Difference::restoring_command).collect();
        assert_eq!(commands, ["AT#FWSWITCH=40,0,0", "AT#USBCFG=1"]);
    }

    #[test]
    fn a_network_that_was_there_is_missed_and_another_way_into_it_is_not() {
        let missing = |now: Baseline| before().missing_network(&now);
        assert_eq!(missing(before()), None);
        let roaming = Baseline { lte: None, nr: Some(Registration::Roaming), ..before() };
        assert_eq!(missing(roaming), None);
        let searching = Baseline { lte: Some(Registration::Searching), ..before() };
        assert!(missing(searching).unwrap().contains("not registered"));
        assert!(missing(Baseline { iccid: None, ..before() }).unwrap().contains("SIM"));
        let never = Baseline { lte: None, ..before() };
        assert_eq!(never.missing_network(&Baseline { lte: None, ..before() }), None);
    }

    #[test]
    fn what_was_never_there_is_not_missed() {
        assert_eq!(Baseline::default().differences(&before()), []);
        assert_eq!(before().differences(&before()), []);
        let roaming = Baseline { lte: None, nr: Some(Registration::Roaming), ..before() };
        assert_eq!(before().differences(&roaming), []);
    }

    #[test]
    fn no_sims_number_leaves_the_router() {
        let searching = Some(Registration::Searching);
        let told = Baseline { nr: searching, access_technology: Some(13), ..before() }.told();
        assert_eq!((told.sim, told.sim_issuer.as_deref()), (Some(true), Some("894900")));
        assert_eq!(told.registration.as_deref(), Some("home"), "where it is registered counts");
        assert_eq!(told.technology.as_deref(), Some("5g-nsa"));
        for none in ["+CME ERROR: 10", "+CME ERROR: SIM not inserted"] {
            let none = Baseline { iccid: None, sim: Some(none.into()), ..before() };
            assert_eq!(none.told().sim, Some(false));
        }
        let locked = Baseline { iccid: None, sim: Some("SIM PIN".into()), ..before() };
        assert_eq!((locked.told().sim, Baseline::default().told().sim), (Some(true), None));
    }

    #[test]
    fn what_the_modem_tells_completes_and_replaces_nothing() {
        let mut told = Baseline { lte: Some(Registration::Home), ..Baseline::default() };
        let read = Baseline { lte: None, contexts: Some(vec![]), ..before() };
        told.complete(read.clone());
        assert_eq!(told, Baseline { lte: Some(Registration::Home), ..read });
        told.complete(Baseline { usb_composition: Some("2".into()), ..before() });
        assert_eq!(told.usb_composition.as_deref(), Some("1"));
    }

    #[test]
    fn another_sim_or_none_before_is_not_comparable() {
        let other = Baseline { iccid: Some("8949000000000000002".into()), ..before() };
        let none = Baseline { iccid: None, ..before() };
        let nothing = Baseline::default();
        let filled = Baseline { iccid: Some("8949000000000000001F".into()), ..before() };
        assert_eq!(before().not_comparable(&filled), None);
        assert!(before().not_comparable(&other).is_some());
        assert!(nothing.not_comparable(&before()).is_some());
        assert_eq!(before().not_comparable(&before()), None);
        assert_eq!(before().not_comparable(&none), None, "a SIM that is gone is missed");
        let locked = Baseline { sim: Some("SIM PIN".into()), lte: None, iccid: None, ..before() };
        assert_eq!(before().not_comparable(&locked), Some("the SIM waits for its PIN"));
        let denied = Baseline { sim: Some("SIM PUK".into()), ..locked };
        assert_eq!(before().not_comparable(&denied), None, "that is more than a restart");
    }
}
