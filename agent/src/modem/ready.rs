//! Waiting for a modem to answer, wherever it comes back.
//!
//! After a boot an FN990's ports may be there and silent for 40 s, and a modem that was flashed may return on
//! another bus under other names. So each round looks at sysfs anew and tries the ports it finds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::dialect::{self, Identity};
use super::discovery::{Abnormal, Condition, Modem, Snapshot};
use super::manager;
use super::port::{self, Port};
use crate::processes::{self, Process};

/// How long one port may be silent before the next is tried.
const PATIENCE: Duration = Duration::from_millis(700);

/// Where the router keeps what the modem shows of itself.
#[derive(Debug, Clone)]
pub struct Place {
    /// `/sys`.
    pub sysfs: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// `/proc`, where ports that another process has open are to be left alone.
    pub sparing: Option<PathBuf>,
    /// Modems that are never asked, by their places: somebody uses them, and they are known not to be ours.
    pub strangers: Vec<String>,
}

impl Place {
    pub fn new(sysfs: &Path, dev: &Path) -> Place {
        Place { sysfs: sysfs.to_owned(), dev: dev.to_owned(), sparing: None, strangers: Vec::new() }
    }

    /// The control devices (`cdc-wdm0`) of the device at `bus_id`.
    #[must_use]
    pub fn control_devices(&self, bus_id: &str) -> Vec<String> {
        let interfaces = std::fs::read_dir(self.sysfs.join("bus/usb/devices"));
        let interfaces = interfaces.into_iter().flatten().flatten().filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .and_then(|name| name.strip_prefix(bus_id))
                .is_some_and(|n| n.starts_with(':'))
        });
        let names = interfaces.flat_map(|interface| {
            let devices = std::fs::read_dir(interface.path().join("usbmisc"));
            devices.into_iter().flatten().flatten().map(|device| device.file_name())
        });
        names.filter_map(|name| name.into_string().ok()).collect()
    }

    /// Opens no port that another process, by what `proc` says, has open.
    #[must_use]
    pub fn sparing(self, proc: &Path) -> Place {
        Place { sparing: Some(proc.to_owned()), ..self }
    }

    /// Asks none of the modems at these places.
    #[must_use]
    pub fn without(self, strangers: Vec<String>) -> Place {
        Place { strangers, ..self }
    }

    fn may_ask(&self, modem: &Modem) -> bool {
        !self.strangers.contains(&modem.bus_id)
    }

    /// Who must not be disturbed at this port.
    fn user(&self, port: &Path) -> Option<Process> {
        processes::having_open(self.sparing.as_deref()?, port)
    }

    /// What is plugged in now; nothing where sysfs cannot be read.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::read(&self.sysfs).unwrap_or_default()
    }

    /// The file of a port that discovery named.
    pub fn port(&self, name: &str) -> PathBuf {
        self.dev.join(name)
    }
}

/// A modem that answered.
#[derive(Debug)]
pub struct Ready {
    pub modem: Modem,
    pub identity: Identity,
    pub port: Port,
}

/// The deadline passed.
#[derive(Debug, thiserror::Error)]
#[error("no such modem answered in time; last seen: {seen}")]
pub struct NotReady {
    pub seen: Seen,
}

/// What was there in the last round, the most telling first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A modem that answers, and is another one.
    OtherModem {
        imei: String,
    },
    /// A modem that another process talks to, which is not disturbed.
    InUse {
        by: String,
    },
    /// A modem whose ports are silent.
    Silent,
    /// No modem, but a device in one of its other modes.
    Abnormal(Condition),
    Nothing,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Seen::OtherModem { imei } => write!(f, "the modem with IMEI {imei}"),
            Seen::InUse { by } => write!(f, "a modem in use by {by}"),
            Seen::Silent => f.write_str("a modem that does not answer"),
            Seen::Abnormal(condition) => write!(f, "a device in {condition}"),
            Seen::Nothing => f.write_str("nothing"),
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Condition::DownloadMode => "download mode",
            Condition::CrashDump => "crash dump",
            Condition::Qdl => "emergency download (QDL)",
            Condition::Fastboot => "fastboot",
        })
    }
}

/// Which modem is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought<'a> {
    /// Wherever it is by now.
    Imei(&'a str),
    /// Whatever is plugged in there; for as long as its IMEI is not known.
    At(&'a str),
    Any,
}

impl Sought<'_> {
    fn may_be(self, modem: &Modem) -> bool {
        match self {
            Sought::At(bus_id) => modem.bus_id == bus_id,
            Sought::Imei(_) | Sought::Any => true,
        }
    }

    fn is(self, identity: &Identity) -> bool {
        match self {
            Sought::Imei(imei) => identity.imei == imei,
            Sought::At(_) | Sought::Any => true,
        }
    }
}

/// Waits until the modem that is sought answers. The caller holds its lock.
pub async fn wait_ready(
    place: &Place,
    sought: Sought<'_>,
    deadline: Instant,
) -> Result<Ready, NotReady> {
    let mut seen = Seen::Nothing;
    loop {
        match timeout_at(deadline, look(place, sought)).await {
            Ok(Ok(ready)) => return Ok(ready),
            Ok(Err(seen @ Seen::InUse { .. })) => return Err(NotReady { seen }),
            Ok(Err(found)) => seen = found,
            // Cut off while a port was tried: there is one, and it is silent.
            Err(_late) => {
                let modems = place.snapshot().modems();
                let silent = seen == Seen::Nothing && modems.iter().any(|m| place.may_ask(m));
                return Err(NotReady { seen: if silent { Seen::Silent } else { seen } });
            }
        }
        if timeout_at(deadline, port::pause()).await.is_err() {
            return Err(NotReady { seen });
        }
    }
}

async fn look(place: &Place, sought: Sought<'_>) -> Result<Ready, Seen> {
    let snapshot = place.snapshot();
    let (mut other, mut user) = (None, None);
    let mut modems = snapshot.modems();
    modems.retain(|modem| sought.may_be(modem) && place.may_ask(modem));
    let silent = !modems.is_empty();
    for modem in modems {
        match ask(place, &modem).await {
            Ok((port, identity)) if sought.is(&identity) => {
                return Ok(Ready { modem, identity, port });
            }
            Ok((_, identity)) => other = Some(identity.imei),
            Err(Mute::InUse(process)) => user = Some(process),
            Err(Mute::Silent) => {}
        }
    }
    if let Some(user) = user {
        return Err(Seen::InUse { by: user.to_string() });
    }
    Err(match (other, snapshot.abnormal().first()) {
        (_, Some(device)) if !silent => Seen::Abnormal(device.condition),
        (Some(imei), _) => Seen::OtherModem { imei },
        (None, _) if silent => Seen::Silent,
        (None, _) => Seen::Nothing,
    })
}

/// Who answers on the bus now, and who does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// The IMEIs of those who answer.
    pub answering: Vec<String>,
    /// The places of modems that are mute.
    pub silent: Vec<String>,
    pub abnormal: Vec<Abnormal>,
}

/// Asks every modem once; of one whose ports somebody has, ModemManager (`mmcli`). The caller holds the
/// modems' lock.
pub async fn survey(place: &Place, mmcli: &Path) -> Survey {
    let snapshot = place.snapshot();
    let mut survey = Survey { abnormal: snapshot.abnormal(), ..Survey::default() };
    for modem in snapshot.modems() {
        let imei = match ask(place, &modem).await {
            Ok((_, identity)) => identity.imei,
            Err(Mute::InUse(_)) => {
                let managed = manager::find(mmcli, Sought::At(&modem.bus_id)).await;
                managed.map(|managed| managed.imei).unwrap_or_default()
            }
            Err(Mute::Silent) => String::new(),
        };
        if imei.is_empty() {
            survey.silent.push(modem.bus_id);
        } else {
            survey.answering.push(imei);
        }
    }
    survey
}

enum Mute {
    InUse(Process),
    Silent,
}

async fn ask(place: &Place, modem: &Modem) -> Result<(Port, Identity), Mute> {
    let mut user = None;
    for name in &modem.at {
        let path = place.port(name);
        if let Some(process) = place.user(&path) {
            user = Some(process);
            continue;
        }
        let mut port = match Port::open(&path, PATIENCE).await {
            Ok(port) => port,
            Err(error) => {
                log::debug!("{}: {error}", path.display());
                continue;
            }
        };
        match dialect::identify(&mut port).await {
            Ok(identity) => return Ok((port, identity)),
            Err(error) => log::debug!("{}: {error}", path.display()),
        }
    }
    Err(user.map_or(Mute::Silent, Mute::InUse))
}
