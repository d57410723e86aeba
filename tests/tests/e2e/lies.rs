//! What is said of an image's length is not believed: a length that cannot be right ends the upgrade,
//! a body that ends before it is fetched again; either way before the modem is touched.

use crate::{
    liar::{Liar, Lie},
    refusals::{UNUSED, expect_refused},
    scene,
};
use lab::{
    faults::write_tool_faults,
    release::{TO, Wanted},
    router::Router,
    scene::Scene,
    watch,
};
use serde_json::Value;

/// For ever.
const ALWAYS: u32 = u32::MAX;

/// A router that reaches the coordinator's API by way of a liar alone, and its upgrade.
async fn lied_to(scene: &Scene, number: u8, image: &str, lie: Lie) -> (Liar, Router, String) {
    let liar = Liar::start(scene, lie).await;
    let mut router = scene.router(number, false).await.unwrap();
    let honest = format!("https://127.0.1.{number}:{}/", scene.coordinator.https.port());
    let lying = format!("https://127.0.0.1:{}/", liar.port);
    router.edit("agent.toml", &honest, &lying).unwrap();
    write_tool_faults(&router.dir, &[UNUSED]).unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    let operation = watch::assign(&scene.api, &device, image).await.unwrap();
    (liar, router, operation)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_is_not_the_images_is_refused() {
    let scene = scene("lies-length");
    let image = scene.image(&Wanted::default()).unwrap();
    let all: fn(usize) -> usize = |length| length;
    let lies: [(&str, Lie); 3] = [
        ("too long", Lie { announced: |length| length + 7, sent: all, times: ALWAYS }),
        ("too short", Lie { announced: |length| length - 7, sent: |l| l - 7, times: ALWAYS }),
        ("nothing", Lie { announced: |_| 0, sent: |_| 0, times: ALWAYS }),
    ];
    for (number, (case, lie)) in (1..).zip(lies) {
        let (liar, router, operation) = lied_to(&scene, number, &image, lie).await;
        expect_refused(&scene, &router, case, &operation, "downloading", "checksum_mismatch").await;
        assert_eq!(liar.told(), 1, "{case}: what cannot be right is not asked for again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_before_its_length_is_fetched_again() {
    let scene = scene("lies-end");
    let image = scene.image(&Wanted::default()).unwrap();
    let early = Lie { announced: |length| length, sent: |length| length - 7, times: 2 };
    let (liar, router, operation) = lied_to(&scene, 1, &image, early).await;
    // The refusals' sign that no tool ran: here one has to.
    write_tool_faults(&router.dir, &[]).unwrap();
    let ended: Value = scene.ended(&operation).await.unwrap();
    assert_eq!((&ended["status"], &ended["attempt"]), (&"success".into(), &1.into()), "{ended:#}");
    let flash = router.modem.state().unwrap().flash;
    assert_eq!((flash.versions.package.as_str(), flash.begun), (TO, 1));
    assert_eq!(liar.told(), 2);
}
