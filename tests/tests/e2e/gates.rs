//! The router's own conditions: an upgrade waits for each with its reason, the modem untouched, and
//! goes on when they hold.

use crate::scene;
use lab::{
    modem::Surroundings,
    release::{TO, Wanted},
    router::Router,
    scene::Scene,
    watch,
};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

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
