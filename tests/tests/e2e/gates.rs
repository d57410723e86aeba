//! The router's own conditions: an upgrade waits for each with its reason, the modem untouched, and
//! goes on when they hold.

use crate::scene;
use lab::{
    modem::Surroundings,
    release::{TO, Wanted},
    router::Router,
    scene::Scene,
    watch::{self, until},
};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

struct Waiting {
    // Ends before what it lies in.
    router: Router,
    scene: Scene,
    operation: String,
}

impl Waiting {
    /// The operation once its log says `reason`; until then nothing was written to the modem.
    async fn postponed(&self, reason: &str) -> Value {
        let says =
            |operation: &Value| operation["log"].as_str().is_some_and(|log| log.contains(reason));
        let operation = watch::operation(&self.scene.api, &self.operation, says).await;
        let operation = operation.unwrap_or_else(|error| {
            panic!("nobody said {reason:?}: {error:#}\n{}", self.router.agent_log());
        });
        assert_eq!(operation["status"], "in-progress", "postponed is not failed: {operation:#}");
        assert_eq!(self.router.modem.state().unwrap().flash.begun, 0);
        operation
    }

    /// The owner changes the router's settings.
    fn change(&mut self, from: &str, to: &str) {
        self.router.kill_agent();
        self.router.edit("agent.toml", from, to).unwrap();
        self.router.start_agent().unwrap();
    }
}

/// Two hours that begin in three.
fn not_now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600;
    format!("{:02}:00-{:02}:00", (now + 3) % 24, (now + 5) % 24)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_waits_for_each_gate_and_says_why() {
    let scene = scene("gates");
    let image = scene.image(&Wanted { compress: true, ..Wanted::default() }).unwrap();
    let mut router = scene.router(1, true).await.unwrap();
    let window = not_now();
    let gates = format!(
        "data_budget_bytes = 1000000\n\n[gates]\ntimezone = \"UTC\"\nwindow = [\"{window}\"]\n\
         min_rsrp_dbm = -100\nmin_free_memory_bytes = 200000000\n\n[upgrade]"
    );
    router.edit("agent.toml", "[upgrade]", &format!("[image]\n{gates}")).unwrap();
    router
        .edit("profiles/telit-uxfp.toml", "# min_voltage_mv = 3135", "min_voltage_mv = 3200")
        .unwrap();
    router
        .modem
        .surround(Surroundings { rsrp_dbm: -120, voltage_mv: 3000, ..Default::default() })
        .unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let mut waiting = Waiting { router, scene, operation };

    let operation = waiting.postponed("the data budget has 1000000 of 1000000 bytes left").await;
    assert_eq!(operation["attempt"], 0);
    waiting.change("data_budget_bytes = 1000000", "data_budget_bytes = 100000000");
    waiting.postponed("outside the maintenance window, which opens").await;
    waiting.change(&window, "00:00-24:00");
    waiting.postponed("less than 200000000 bytes of memory are available").await;
    waiting.change("= 200000000", "= 100000000");
    waiting.postponed("the signal is below -100 dBm and the modem is the only uplink").await;
    let strong = Surroundings { voltage_mv: 3000, ..Default::default() };
    waiting.router.modem.surround(strong).unwrap();
    waiting.postponed("the modem's supply is below 3200 mV").await;
    waiting.router.modem.surround(Surroundings::default()).unwrap();

    let operation = watch::ended(&waiting.scene.api, &waiting.operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", waiting.router.agent_log());
    assert_eq!(operation["attempt"], 1, "waiting costs no attempt");
    assert_eq!(waiting.router.modem.versions().unwrap().package, TO);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_the_time_waits_for_it() {
    let scene = scene("gates-clock");
    let image = scene.image(&Wanted::default()).unwrap();
    let mut router = scene.router(1, true).await.unwrap();
    let window = not_now();
    let gates = format!("[gates]\ntimezone = \"UTC\"\nwindow = [\"{window}\"]\n\n[upgrade]");
    router.edit("agent.toml", "[upgrade]", &gates).unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let mut waiting = Waiting { router, scene, operation };
    waiting.postponed("outside the maintenance window, which opens").await;

    // Started again where nobody tells the time: the window is open, and it cannot know.
    waiting.router.link.cut();
    waiting.change(&window, "00:00-24:00");
    let says = || waiting.router.agent_log().contains("the clock is not set");
    until("it waits for the time", says).await.unwrap();
    assert_eq!(waiting.router.modem.state().unwrap().flash.begun, 0);
    waiting.router.link.restore();
    let operation = watch::ended(&waiting.scene.api, &waiting.operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", waiting.router.agent_log());
}

/// An upgrade that waits because the only uplink's signal is too weak.
async fn weak(scene: Scene) -> Waiting {
    let image = scene.image(&Wanted::default()).unwrap();
    let mut router = scene.router(1, true).await.unwrap();
    router.edit("agent.toml", "[upgrade]", "[gates]\nmin_rsrp_dbm = -100\n\n[upgrade]").unwrap();
    router.modem.surround(Surroundings { rsrp_dbm: -120, ..Default::default() }).unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let waiting = Waiting { router, scene, operation };
    waiting.postponed("the signal is below -100 dBm and the modem is the only uplink").await;
    waiting
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_signal_stops_no_upgrade_where_there_is_another_uplink() {
    let waiting = weak(scene("gates-two-ways")).await;
    waiting.router.set_sole_uplink(false).unwrap();
    let operation = watch::ended(&waiting.scene.api, &waiting.operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", waiting.router.agent_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_while_an_upgrade_waits_flashes_nothing_any_more() {
    let waiting = weak(scene("gates-revoked")).await;
    let revoked = waiting.router.dir.join("keys/revoked");
    fs::create_dir_all(&revoked).unwrap();
    fs::write(revoked.join("operator.pub"), &waiting.scene.key.public).unwrap();
    waiting.router.modem.surround(Surroundings::default()).unwrap();
    let operation = watch::ended(&waiting.scene.api, &waiting.operation).await.unwrap();
    assert_eq!(operation["status"], "aborted", "{operation:#}\n{}", waiting.router.agent_log());
    assert_eq!(operation["failure"]["kind"], "key_revoked", "{operation:#}");
    assert_eq!(waiting.router.modem.state().unwrap().flash.begun, 0);
}

/// What the kernel counts of the modem's interface: as if somebody downloaded without end.
struct Flood(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Flood {
    fn through(router: &Router) -> Self {
        let statistics = router.dir.join("sys/class/net/wwan0/statistics");
        fs::create_dir_all(&statistics).unwrap();
        fs::write(statistics.join("tx_bytes"), "7").unwrap();
        let flows = Arc::new(AtomicBool::new(true));
        let count = {
            let flows = flows.clone();
            move || {
                let began = Instant::now();
                while flows.load(Ordering::Relaxed) {
                    // Four megabits in a second.
                    let bytes = began.elapsed().as_millis() * 500;
                    let (part, whole) = (statistics.join("part"), statistics.join("rx_bytes"));
                    fs::write(&part, bytes.to_string()).unwrap();
                    fs::rename(part, whole).unwrap();
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        };
        Self(flows, Some(std::thread::spawn(count)))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
        let _ = self.1.take().map(JoinHandle::join);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_opens_soon_is_waited_for_where_a_cancel_ends_it() {
    let scene = scene("gates-door");
    let image = scene.image(&Wanted::default()).unwrap();
    let mut router = scene.router(1, false).await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60;
    let at = |minutes: u64| {
        let minute = (now + minutes) % (24 * 60);
        format!("{:02}:{:02}", minute / 60, minute % 60)
    };
    let gates = format!("timezone = \"UTC\"\nwindow = [\"{}-{}\"]", at(15), at(120));
    router.edit("agent.toml", "[upgrade]", &format!("[gates]\n{gates}\n\n[upgrade]")).unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let waiting = Waiting { router, scene, operation };
    waiting.postponed("outside the maintenance window, which opens").await;
    let Waiting { router, scene, operation } = waiting;
    let (status, answer) = watch::cancel(&scene.api, &operation).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    until("it is over", || router.agent_log().contains("ended: Cancelled")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_transfer_does_not_go_beyond_the_data_budget() {
    let scene = scene("gates-budget");
    let image = scene.image(&Wanted { size: 3 << 20, ..Wanted::default() }).unwrap();
    let mut router = scene.router(1, false).await.unwrap();
    let budget = format!("[image]\ndata_budget_bytes = {}\n\n[upgrade]", 3 << 20);
    router.edit("agent.toml", "[upgrade]", &budget).unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    // So much does not fit between the two: the router has read some of it, and its last block is not whole.
    router.link.cut_after(5 << 19);
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    watch::cut(&router).await.unwrap();
    router.link.restore();
    let mut waiting = Waiting { router, scene, operation };
    waiting.postponed("the data budget has").await;
    waiting.change("data_budget_bytes = 3145728", "data_budget_bytes = 100000000");
    let operation = watch::ended(&waiting.scene.api, &waiting.operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", waiting.router.agent_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_not_there_yet_is_waited_for_after_a_boot() {
    let scene = scene("gates-settling");
    let image = scene.image(&Wanted::default()).unwrap();
    let mut router = scene.router(1, false).await.unwrap();
    router.edit("agent.toml", "settle_s = 0", "settle_s = 31536000").unwrap();
    let (tool, away) = (router.dir.join("bin/uxfp"), router.dir.join("bin/away"));
    fs::rename(&tool, &away).unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let mut waiting = Waiting { router, scene, operation };
    waiting.postponed("is not an executable file").await;
    fs::rename(&away, &tool).unwrap();
    let operation = watch::ended(&waiting.scene.api, &waiting.operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", waiting.router.agent_log());
    let last = |router: &Router| router.status().and_then(|status| status.last_result);
    until("the result is shown", || last(&waiting.router).is_some()).await.unwrap();

    waiting.router.kill_agent();
    fs::remove_file(waiting.router.dir.join("run/status.json")).unwrap();
    waiting.router.start_agent().unwrap();
    until("it is shown after a restart", || last(&waiting.router).is_some()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weaker_signal_after_the_flash_is_a_remark() {
    let scene = scene("gates-remark");
    let (router, id) = crate::under_way(&scene, &[crate::SLOW]).await;
    scene.operation(&id, |operation| operation["granted"] == true).await.unwrap();
    until("it is flashed", || router.modem.state().unwrap().flash.begun > 0).await.unwrap();
    router.modem.surround(Surroundings { rsrp_dbm: -120, ..Default::default() }).unwrap();
    let operation = scene.ended(&id).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
    let log = operation["log"].as_str().unwrap();
    assert!(log.contains("with a difference: the signal fell from -81 to -120 dBm"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_waits_while_somebody_uses_the_modem() {
    let scene = scene("gates-traffic");
    let image = scene.image(&Wanted::default()).unwrap();
    let mut router = scene.router(1, false).await.unwrap();
    router
        .edit("agent.toml", "[upgrade]", "[gates]\nmax_traffic_kbit_s = 1000\n\n[upgrade]")
        .unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    let flood = Flood::through(&router);
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let waiting = Waiting { router, scene, operation };
    waiting.postponed("more than 1000 kbit/s flow through the modem").await;
    drop(flood);

    let operation = watch::ended(&waiting.scene.api, &waiting.operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", waiting.router.agent_log());
    assert_eq!(operation["attempt"], 1, "waiting costs no attempt");
}

/// Kilobits a second, and the bytes of the one answer that they are for.
const LIMIT: u64 = 2000;
const BYTES: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_download_keeps_below_the_bandwidth() {
    let scene = scene("gates-bandwidth");
    let image = scene.image(&Wanted { size: BYTES, ..Wanted::default() }).unwrap();
    let mut router = scene.router(1, false).await.unwrap();
    let limit = format!("[image]\nbandwidth_kbit_s = {LIMIT}\n\n[upgrade]");
    router.edit("agent.toml", "[upgrade]", &limit).unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    let began = Instant::now();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let mut fetched = 0;
    // By the agent's own count, at every instant: a slow machine only makes less of it.
    let below = || {
        let now = router.fetched().unwrap_or(0).max(fetched);
        let may = u64::try_from(began.elapsed().as_millis()).unwrap() * LIMIT / 8;
        assert!(now <= may, "{now} bytes in {:?}", began.elapsed());
        fetched = now;
        now >= u64::try_from(BYTES).unwrap()
    };
    watch::until("the image is fetched", below).await.unwrap();
    let operation = scene.ended(&operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_begins_while_the_router_gets_another_system() {
    let scene = scene("gates-sysupgrade");
    let image = scene.image(&Wanted::default()).unwrap();
    let mut router = scene.router(1, false).await.unwrap();
    let no_flash = router.dir.join("run/no-flash");
    let device = scene.enrol(&mut router).await.unwrap();
    fs::write(&no_flash, format!("{}\n", std::process::id())).unwrap();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let waiting = Waiting { router, scene, operation };
    let operation = waiting.postponed("a sysupgrade is under way").await;
    assert_eq!(operation["granted"], false, "{operation:#}");
    assert_eq!(waiting.router.ask(&["busy", "--begun"]).unwrap().0, Some(0));

    // This sysupgrade gave up; the next one comes between the grant and the tool.
    let hook = waiting.router.dir.join("hooks/pre-flash/sysupgrade");
    let (own, said) = (std::process::id(), waiting.router.dir.join("begun"));
    let ask = "modem-upgrader-agent busy --begun --config";
    let script = format!(
        "#!/bin/sh\n[ -e {said} ] && exit 0\necho {own} > {no_flash}\n\
         {agent} {ask} {router}/agent.toml; echo $? > {said}\n",
        said = said.display(),
        no_flash = no_flash.display(),
        agent = env!("CARGO_BIN_EXE_lab"),
        router = waiting.router.dir.display(),
    );
    hook.parent().map(fs::create_dir_all).unwrap().unwrap();
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    // Above the kernel's largest: nobody's.
    fs::write(&no_flash, "4194305\n").unwrap();
    until("the sysupgrade has asked", || said.exists()).await.unwrap();
    let waits = waiting.scene.operation(&waiting.operation, |operation| {
        let log = operation["log"].as_str().unwrap_or_default();
        log.matches("a sysupgrade is under way").count() > 1
    });
    waits.await.unwrap();
    assert_eq!(fs::read_to_string(&said).unwrap(), "4\n", "the sysupgrade is refused");
    assert_eq!(waiting.router.modem.state().unwrap().flash.begun, 0);
    watch::given_back(&waiting.router).await.unwrap();
    fs::remove_file(&no_flash).unwrap();
    let operation = watch::ended(&waiting.scene.api, &waiting.operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", waiting.router.agent_log());
    assert_eq!(waiting.router.modem.state().unwrap().flash.begun, 1);
}
