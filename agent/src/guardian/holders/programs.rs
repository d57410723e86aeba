//! How a holder is asked, stopped and started: the router's own programs, one call each.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::inhibition::Inhibition;
use super::{Action, Holder, HolderError};
use crate::{
    commands::{self, Call, NotDone},
    files,
};

/// Most output read of one call, in bytes: `network.interface dump` of a router with many interfaces.
const MAX_OUTPUT: usize = 256 * 1024;

/// `UBUS_STATUS_NOT_FOUND`, which the ubus command ends with where there is no such object.
const UBUS_NOT_FOUND: i32 = 4;

/// The router's programs; all paths are local settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// Where init scripts are, `/etc/init.d`.
    pub services: PathBuf,
    /// netifd is asked over ubus, and by the three commands below where there is no ubus.
    #[serde(default = "ubus")]
    pub ubus: PathBuf,
    pub ifup: PathBuf,
    pub ifdown: PathBuf,
    /// Prints an interface's state as JSON, as OpenWrt's `ifstatus` does.
    pub ifstatus: PathBuf,
    #[serde(default = "mmcli")]
    pub mmcli: PathBuf,
    /// Milliseconds one call may take.
    pub timeout_ms: u64,
}

fn ubus() -> PathBuf {
    "/bin/ubus".into()
}

fn mmcli() -> PathBuf {
    "/usr/bin/mmcli".into()
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            services: "/etc/init.d".into(),
            ubus: ubus(),
            ifup: "/sbin/ifup".into(),
            ifdown: "/sbin/ifdown".into(),
            ifstatus: "/sbin/ifstatus".into(),
            mmcli: mmcli(),
            timeout_ms: 60_000,
        }
    }
}

/// procd's word on one service.
#[derive(Debug, Default, Deserialize)]
struct Service {
    #[serde(default)]
    instances: HashMap<String, Instance>,
}

#[derive(Debug, Deserialize)]
struct Instance {
    #[serde(default)]
    running: bool,
    /// It is started again whenever it ends: what is down just now comes back.
    #[serde(default)]
    respawn: Option<serde::de::IgnoredAny>,
}

impl Instance {
    fn is_wanted(&self) -> bool {
        self.running || self.respawn.is_some()
    }
}

/// netifd's word on one interface.
#[derive(Debug, Default, Deserialize)]
struct Interface {
    #[serde(default)]
    interface: String,
    #[serde(default)]
    up: bool,
    #[serde(default)]
    pending: bool,
    #[serde(default)]
    autostart: bool,
    /// Made by another one's protocol, `wwan_4` by `wwan` for instance, and removed with it.
    #[serde(default)]
    dynamic: bool,
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    l3_device: Option<String>,
}

impl Interface {
    /// Not one that is dynamic: it goes down with the one that made it, which makes it again. netifd removes it
    /// then, so that nobody could bring it up.
    fn is_wanted(&self) -> bool {
        !self.dynamic && (self.up || self.pending || self.autostart)
    }
}

impl Programs {
    pub(super) fn limit(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Unknown counts as running: a holder too many that is stopped and started does no harm.
    pub(super) async fn is_running(&self, holder: &Holder) -> bool {
        match holder {
            Holder::Service(name) => self.is_service_running(name).await,
            Holder::Interface(name) => self.is_interface_up(name).await,
            // It was named because ModemManager has it, or because it is inhibited; the latter is not
            // done twice.
            Holder::Modem(_) => true,
        }
    }

    /// procd knows what it started. Before OpenWrt 21.02 its scripts answer `running` with 0 whatever there is, and
    /// where no script can be run at all they end as those of a stopped service do.
    ///
    /// An init script that procd knows nothing of has no `running`, prints its help instead, and ends with 0.
    /// Of such a one only this can be known: whether it starts at boot.
    async fn is_service_running(&self, name: &str) -> bool {
        let script = self.services.join(name);
        let asked = async |word: &str| {
            let words = [word];
            let call = Call { keep: 256, ..Call::new(&script, &words, self.limit()) };
            commands::run(&call).await
        };
        if !script.exists() {
            return false;
        }
        if let Some(running) = self.is_running_by_procd(&script, name).await {
            return running;
        }
        match asked("running").await {
            Ok(done) if done.status.success() && done.output.starts_with(b"Syntax:") => {
                !matches!(asked("enabled").await, Ok(done) if !done.status.success())
            }
            Ok(done) => done.status.success(),
            Err(_) => true,
        }
    }

    /// None: procd cannot be asked, or it is no service of its.
    async fn is_running_by_procd(&self, script: &Path, name: &str) -> Option<bool> {
        // As rc.common names it.
        let linked = std::fs::read_link(script).ok();
        let name =
            linked.as_deref().and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or(name);
        let asked = serde_json::json!({ "name": name }).to_string();
        let answer = self.output(&self.ubus, &["call", "service", "list", &asked]).await;
        let services = answer.ok().flatten()?;
        let services: HashMap<String, Service> = serde_json::from_slice(&services).ok()?;
        match services.get(name).filter(|service| !service.instances.is_empty()) {
            Some(service) => Some(service.instances.values().any(Instance::is_wanted)),
            None => uses_procd(script).then_some(false),
        }
    }

    async fn is_interface_up(&self, name: &str) -> bool {
        let object = format!("network.interface.{name}");
        let status = if self.ubus.exists() {
            self.output(&self.ubus, &["call", &object, "status"]).await
        } else {
            self.output(&self.ifstatus, &[name]).await
        };
        match status {
            // An interface that netifd does not know.
            Ok(None) => false,
            Ok(Some(json)) => serde_json::from_slice::<Interface>(&json)
                .map_or(true, |interface| interface.is_wanted()),
            Err(error) => !error.is_absent(),
        }
    }

    /// netifd's interfaces on one of `devices` that are up or would come up.
    pub(super) async fn interfaces_on(&self, devices: &[String]) -> Vec<String> {
        #[derive(Deserialize)]
        struct Dump {
            interface: Vec<Interface>,
        }
        let ours = |device: &Option<String>| device.as_ref().is_some_and(|d| devices.contains(d));
        let Ok(Some(json)) = self.dump().await else { return Vec::new() };
        let Ok(dump) = serde_json::from_slice::<Dump>(&json) else { return Vec::new() };
        let on_them = dump.interface.into_iter().filter(|interface| {
            interface.is_wanted() && (ours(&interface.device) || ours(&interface.l3_device))
        });
        on_them.map(|interface| interface.interface).collect()
    }

    /// All of netifd's interfaces; an answer means that it is there.
    async fn dump(&self) -> Result<Option<Vec<u8>>, NotDone> {
        self.output(&self.ubus, &["call", "network.interface", "dump"]).await
    }

    pub(super) async fn act(
        &self,
        holder: &Holder,
        action: Action,
        inhibition: &Inhibition,
    ) -> Result<(), HolderError> {
        let name = action.name();
        match (holder, action) {
            (Holder::Service(service), _) => {
                self.call(holder, action, &self.services.join(service), &[name]).await
            }
            (Holder::Interface(interface), _) if self.ubus.exists() => {
                let object = format!("network.interface.{interface}");
                let method = match action {
                    Action::Stop => "down",
                    Action::Start => "up",
                };
                let done = self.call(holder, action, &self.ubus, &["call", &object, method]).await;
                match action {
                    Action::Stop => done,
                    Action::Start => self.unless_gone(interface, done).await,
                }
            }
            (Holder::Interface(interface), Action::Stop) => {
                self.call(holder, action, &self.ifdown, &[interface]).await
            }
            (Holder::Interface(interface), Action::Start) => {
                self.call(holder, action, &self.ifup, &[interface]).await
            }
            (Holder::Modem(uid), Action::Stop) => {
                let begun = inhibition.begin(&self.mmcli, uid, self.limit()).await;
                begun.map_err(|reason| refused(holder, name, reason))
            }
            (Holder::Modem(_), Action::Start) => {
                let ended = inhibition.end(self.limit()).await;
                ended.map_err(|reason| refused(holder, name, reason))
            }
        }
    }

    /// An interface that netifd does not know any more, because somebody removed it meanwhile, cannot be given back
    /// and is nobody's to wait for. A netifd that is not there just now says the same of all of them.
    async fn unless_gone(
        &self,
        interface: &str,
        done: Result<(), HolderError>,
    ) -> Result<(), HolderError> {
        match done {
            Err(HolderError::Failed { status, .. })
                if status.code() == Some(UBUS_NOT_FOUND)
                    && matches!(self.dump().await, Ok(Some(_))) =>
            {
                log::warn!("interface {interface} is gone: there is nothing to bring up");
                Ok(())
            }
            done => done,
        }
    }

    async fn call(
        &self,
        holder: &Holder,
        action: Action,
        program: &Path,
        arguments: &[&str],
    ) -> Result<(), HolderError> {
        let (holder, action) = (holder.clone(), action.name());
        match commands::run(&Call::new(program, arguments, self.limit())).await {
            Ok(done) if done.status.success() => Ok(()),
            Ok(done) => Err(HolderError::Failed { holder, action, status: done.status }),
            Err(NotDone::Late(_)) => Err(HolderError::Timeout { holder, action }),
            Err(NotDone::Run(source)) => Err(HolderError::Run { holder, action, source }),
        }
    }

    /// `None`: it ended and failed.
    async fn output(&self, program: &Path, arguments: &[&str]) -> Result<Option<Vec<u8>>, NotDone> {
        let call = Call { keep: MAX_OUTPUT, ..Call::new(program, arguments, self.limit()) };
        let done = commands::run(&call).await?;
        Ok(done.status.success().then_some(done.output))
    }
}

/// Whether an init script leaves its service to procd.
fn uses_procd(script: &Path) -> bool {
    let text = files::read_text(script).unwrap_or_default();
    text.lines().any(|line| line.trim_start().starts_with("USE_PROCD="))
}

fn refused(holder: &Holder, action: &'static str, source: io::Error) -> HolderError {
    HolderError::Run { holder: holder.clone(), action, source }
}
