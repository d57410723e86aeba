//! A router with two modems: one at a time, each independent of the other's troubles.

use crate::{SLOW, scene};
use agent::status::Status;
use lab::{
    faults::{ToolFault, ToolFaultKind, write_tool_faults},
    firmware::Model,
    modem::{self, Mode, SimulatedModem},
    release::{FROM, TO, Wanted},
    router::{Router, imei},
    scene::Scene,
    watch::{self, until},
};
use serde_json::Value;
use std::{fs, os::unix::process::CommandExt, process::Command};

/// The modem of slot "main" carries the default route; "spare" is the other.
struct TwoModems {
    router: Router,
    spare: SimulatedModem,
    /// Ends last: it removes the directory.
    scene: Scene,
    device: String,
    image: String,
}

impl TwoModems {
    async fn start(name: &str) -> Self {
        let scene = scene(&format!("two-modems-{name}"));
        let image = scene.image(&Wanted::default()).unwrap();
        let mut router = scene.router(1, true).await.unwrap();
        let second = imei(201);
        let mut settings = modem::Settings::new(&router.dir, Model::Fn990a28, FROM, &second);
        settings.name = "spare".into();
        (settings.bus_id, settings.download_bus_id) = ("2-2".into(), "1-2".into());
        settings.net = "wwan1".into();
        let spare = SimulatedModem::start(settings).unwrap();
        let slots = format!(
            "recovery_s = 31\n\n[[slot]]\nname = \"main\"\nimei = \"{}\"\n\n[[slot]]\nname = \
             \"spare\"\nimei = \"{second}\"\n",
            router.imei
        );
        router.edit("agent.toml", "backoff_s = 1\n", &format!("backoff_s = 1\n{slots}")).unwrap();
        let device = scene.enrol(&mut router).await.unwrap();
        let both = Self { scene, router, spare, device, image };
        both.status("both modems are known", |status| {
            status.modems.iter().filter(|modem| modem.unreadable.is_none()).count() == 2
        })
        .await;
        watch::modems(&both.scene.api, &both.device, 2).await.unwrap();
        both
    }

    async fn assign(&self, slot: &str) -> String {
        watch::assign_to(&self.scene.api, &self.device, slot, &self.image).await.unwrap()
    }

    async fn succeeds(&self, operation: &str) -> Value {
        let ended = self.scene.ended(operation).await;
        let ended = ended.unwrap_or_else(|e| panic!("{e:#}\n{}", self.router.agent_log()));
        assert_eq!(ended["status"], "success", "{ended:#}\n{}", self.router.agent_log());
        ended
    }

    async fn status(&self, what: &str, holds: impl Fn(&Status) -> bool) {
        let holds = || {
            let text = fs::read(self.router.dir.join("run/status.json")).unwrap_or_default();
            serde_json::from_slice(&text).is_ok_and(|status| holds(&status))
        };
        until(what, holds).await.unwrap_or_else(|error| {
            panic!("{error}\n{}", self.router.agent_log());
        });
    }

    fn package(modem: &SimulatedModem) -> String {
        modem.versions().unwrap().package
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_modem_that_carries_the_default_route_is_flashed_last() {
    let both = TwoModems::start("order").await;
    // Both jobs are there when the agent asks.
    both.router.link.cut();
    let main = both.assign("main").await;
    let spare = both.assign("spare").await;
    both.router.link.restore();
    let begun = || both.router.modem.state().unwrap().flash.begun > 0;
    until("the main modem's turn", begun).await.unwrap();
    assert_eq!(TwoModems::package(&both.spare), TO, "the spare one was to be first");
    both.succeeds(&spare).await;
    both.succeeds(&main).await;
    assert_eq!(TwoModems::package(&both.router.modem), TO);
    watch::given_back(&both.router).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_slot_stops_no_other_and_goes_on_without_a_restart() {
    let mut both = TwoModems::start("held").await;
    both.router.kill_agent();
    fs::write(both.router.dir.join("state/main/journal"), [7; 4096]).unwrap();
    both.router.start_agent().unwrap();
    both.status("the slot is held", |status| status.held.iter().any(|h| h.slot.as_str() == "main"))
        .await;

    let main = both.assign("main").await;
    let spare = both.assign("spare").await;
    both.succeeds(&spare).await;
    assert_eq!(TwoModems::package(&both.spare), TO);
    assert_eq!(TwoModems::package(&both.router.modem), FROM, "flashed without a journal");

    let told = |operation: &Value| {
        operation["log"].as_str().is_some_and(|log| log.contains("waits for a person"))
    };
    both.scene.operation(&main, told).await.unwrap();

    let recover = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg0("modem-upgrader-agent")
        .args(["recover", "--slot", "main", "--config"])
        .arg(both.router.dir.join("agent.toml"))
        .status();
    assert!(recover.unwrap().success());
    both.succeeds(&main).await;
    both.status("nothing is held", |status| status.held.is_empty()).await;
    assert_eq!(TwoModems::package(&both.router.modem), TO);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_modem_is_in_download_mode_no_other_is_flashed() {
    let mut both = TwoModems::start("recovery").await;
    let dir = both.router.dir.clone();
    write_tool_faults(&dir, &[SLOW]).unwrap();
    let main = both.assign("main").await;
    watch::half_flashed(&both.router).await.unwrap();
    both.router.power_cut().unwrap();
    both.spare.power_cut().unwrap();
    // The first recovery fails, and the next one is a while away.
    let fail = ToolFaultKind::Fail { at_percent: 10 };
    write_tool_faults(&dir, &[ToolFault { kind: fail, times: Some(1) }]).unwrap();
    let spare = both.assign("spare").await;
    both.spare.power_on().unwrap();
    both.router.power_on().unwrap();

    let waits = |operation: &Value| {
        operation["log"].as_str().is_some_and(|log| log.contains("a modem without a name"))
    };
    let waited = both.scene.operation(&spare, waits).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", both.router.agent_log()));
    assert_eq!(both.router.modem.state().unwrap().mode, Mode::Download);
    let begun = || both.spare.state().unwrap().flash.begun;
    assert_eq!(begun(), 0, "flashed beside a modem without a name");

    both.succeeds(&main).await;
    assert_eq!(TwoModems::package(&both.router.modem), TO);
    both.succeeds(&spare).await;
    assert_eq!(TwoModems::package(&both.spare), TO);
    watch::given_back(&both.router).await.unwrap();
}
