//! The routers of the batches: a group of their own, all with the same modem and firmware.

use super::{Arguments, scenario::PACE};
use crate::{
    coordinator::Coordinator,
    faults::{ToolFault, ToolFaultKind, write_tool_faults},
    firmware::Model,
    release::FROM,
    router::{Plan, Router},
    watch,
};
use anyhow::Context;
use serde_json::Value;
use std::path::Path;

/// The group's name.
pub const GROUP: &str = "fleet";

/// A router, and the coordinator's id for it.
pub struct Member {
    pub router: Router,
    pub device: String,
}

/// Starts the routers and puts them into their group, with the operator's own commands.
pub async fn start(
    arguments: &Arguments,
    exe: &Path,
    dir: &Path,
    coordinator: &Coordinator,
    key: &str,
) -> anyhow::Result<Vec<Member>> {
    let mut routers = Vec::new();
    for number in (arguments.devices + 1..).take(usize::from(arguments.fleet)) {
        let plan = Plan {
            number,
            model: Model::Fn990a28,
            package: FROM.into(),
            key: key.to_owned(),
            sole_uplink: false,
            seed: arguments.seed.wrapping_mul(1000) + u64::from(number),
            uplink: coordinator.uplink(),
        };
        let mut router = Router::build(exe, dir, &plan).await?;
        tool(&router, &[])?;
        router.start_agent()?;
        routers.push(router);
    }
    let api = coordinator.api()?;
    let mut members = Vec::new();
    for router in routers {
        let device = watch::enrolled(&api, &router).await?;
        members.push(Member { router, device });
    }
    coordinator.cli(&["groups", "create", GROUP, "--organization", "default"])?;
    let mut group = vec!["devices", "group", GROUP];
    group.extend(members.iter().map(|member| member.device.as_str()));
    coordinator.cli(&group)?;
    Ok(members)
}

/// Lets the router's tool meet these faults in every run, at the lab's pace.
pub fn tool(router: &Router, kinds: &[ToolFaultKind]) -> std::io::Result<()> {
    let slow = ToolFaultKind::Slow { bytes_per_second: PACE };
    let faults: Vec<_> =
        [slow].iter().chain(kinds).map(|kind| ToolFault { kind: *kind, times: None }).collect();
    write_tool_faults(&router.dir, &faults)
}

/// The fleet's operations in a batch, by their device.
pub fn operations(coordinator: &Coordinator, batch: &str) -> anyhow::Result<Vec<(String, Value)>> {
    let listed = coordinator.cli(&["operations", "--batch", batch, "--json"])?;
    let listed: Vec<Value> = serde_json::from_str(&listed).context(listed)?;
    let device = |operation: &Value| operation["device"].as_str().unwrap_or_default().to_owned();
    Ok(listed.into_iter().map(|operation| (device(&operation), operation)).collect())
}
