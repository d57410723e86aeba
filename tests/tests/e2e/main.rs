//! Whole upgrades with real processes: a coordinator, agents, guardians, tools, and modems simulated
//! down to their serial bytes. Each test has a scene of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what tests share is a test as well"
)]
#![allow(clippy::disallowed_methods, reason = "the lab is the world around the product")]

mod batch;
mod coordinator;
mod disk;
mod fleet;
mod followed;
mod full_disk;
mod gates;
mod grant;
mod liar;
mod lies;
mod manager;
mod page;
mod refusals;
mod settings;
mod terminal;
mod two_modems;
mod unwritable;
mod upgrade;

use lab::{
    faults::{ToolFault, ToolFaultKind, write_tool_faults},
    release::Wanted,
    router::Router,
    scene::Scene,
    watch,
};
use std::path::Path;

/// The tool's pace where there has to be a middle to interrupt: six seconds in all.
const SLOW: ToolFault =
    ToolFault { kind: ToolFaultKind::Slow { bytes_per_second: 512 << 10 }, times: None };

fn scene(name: &str) -> Scene {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    Scene::start(Path::new(env!("CARGO_BIN_EXE_lab")), &dir).unwrap()
}

/// An enrolled router whose tool meets `faults`, and its device's id.
async fn enrolled(scene: &Scene, faults: &[ToolFault]) -> (Router, String) {
    let mut router = scene.router(1, false).await.unwrap();
    write_tool_faults(&router.dir, faults).unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    (router, device)
}

/// Starts the router's agent and an upgrade whose tool meets `faults`: the operation's id.
async fn started(scene: &Scene, router: &mut Router, faults: &[ToolFault]) -> String {
    let image = scene.image(&Wanted::default()).unwrap();
    write_tool_faults(&router.dir, faults).unwrap();
    let device = scene.enrol(router).await.unwrap();
    watch::assign(&scene.api, &device, &image).await.unwrap()
}

/// A router with its upgrade under way.
async fn under_way(scene: &Scene, faults: &[ToolFault]) -> (Router, String) {
    let mut router = scene.router(1, false).await.unwrap();
    let operation = started(scene, &mut router, faults).await;
    (router, operation)
}

/// An upgrade whose link is cut with a third of the image fetched, and stays so.
async fn cut_in_the_download(scene: &Scene) -> (Router, String) {
    let (router, device) = enrolled(scene, &[]).await;
    let image = scene.image(&Wanted::default()).unwrap();
    router.link.cut_after(1 << 20);
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    watch::cut(&router).await.unwrap();
    (router, operation)
}
