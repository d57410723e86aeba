//! What each router meets on its way, and how that must end.

use super::Run;
use crate::{
    coordinator::Api,
    faults::{ToolFault, ToolFaultKind, write_tool_faults},
    firmware::Model,
    modem::FlashCondition,
    router::Router,
    watch::{cancel, cut, ended, given_back, half_flashed},
};
use anyhow::{Context, ensure};
use futures_util::future::join_all;
use serde_json::Value;
use std::time::Duration;

/// Longest time for one router.
const PATIENCE: Duration = Duration::from_secs(100);
/// The tool's pace in the lab, so that there is a middle to interrupt.
pub const PACE: u64 = 6 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    LinkCut,
    ToolFailsOnce,
    PowerCut,
    AgentKilled,
    ToolLies,
    OtherModel,
    CancelWins,
    CancelTooLate,
    Smooth,
}

/// Whether it ended as it should; if not, why not.
pub type Verdict = Result<(), String>;

impl Scenario {
    pub fn of(number: u8) -> Self {
        [
            Self::LinkCut,
            Self::ToolFailsOnce,
            Self::PowerCut,
            Self::AgentKilled,
            Self::ToolLies,
            Self::OtherModel,
            Self::CancelWins,
            Self::CancelTooLate,
        ]
        .get(usize::from(number) - 1)
        .copied()
        .unwrap_or(Self::Smooth)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::LinkCut => "link cut in the download",
            Self::ToolFailsOnce => "tool fails once",
            Self::PowerCut => "power cut while flashing",
            Self::AgentKilled => "agent killed while flashing",
            Self::ToolLies => "tool lies",
            Self::OtherModel => "firmware for another model",
            Self::CancelWins => "cancel before the grant",
            Self::CancelTooLate => "cancel after the grant",
            Self::Smooth => "smooth",
        }
    }

    /// The status that the operation must end with.
    pub fn expected(self) -> &'static str {
        match self {
            Self::ToolLies => "failed",
            // The predecessor's word for what ended before anything was touched.
            Self::OtherModel => "aborted",
            Self::CancelWins => "cancelled",
            Self::LinkCut
            | Self::ToolFailsOnce
            | Self::PowerCut
            | Self::AgentKilled
            | Self::CancelTooLate
            | Self::Smooth => "success",
        }
    }

    pub fn model(self) -> Model {
        if self == Self::OtherModel { Model::Fn990a40 } else { Model::Fn990a28 }
    }

    /// Whether the router is dark while its modem is flashed.
    pub fn is_sole_uplink(self) -> bool {
        self == Self::PowerCut
    }

    /// Before the agent starts.
    pub fn prepare(self, router: &Router) -> std::io::Result<()> {
        let always = |kind| ToolFault { kind, times: None };
        let once = |kind| ToolFault { kind, times: Some(1) };
        let mut faults = vec![always(ToolFaultKind::Slow { bytes_per_second: PACE })];
        match self {
            Self::ToolFailsOnce => faults.push(once(ToolFaultKind::Fail { at_percent: 30 })),
            Self::ToolLies => faults.push(always(ToolFaultKind::Lie)),
            _ => {}
        }
        write_tool_faults(&router.dir, &faults)
    }

    /// Before the upgrade is asked for.
    pub fn before_start(self, router: &Router) {
        match self {
            Self::LinkCut => router.link.cut_after(12 << 20),
            Self::CancelWins => router.link.cut_after(8 << 20),
            _ => {}
        }
    }
}

/// Lets every router meet its fault and waits for all of them to end.
pub async fn play(api: &Api, runs: &mut [Run]) -> Vec<Verdict> {
    join_all(runs.iter_mut().map(|run| async {
        let played = tokio::time::timeout(PATIENCE, play_one(api, run)).await;
        match played {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err(format!("not ended after {} s", PATIENCE.as_secs())),
        }
    }))
    .await
}

async fn play_one(api: &Api, run: &mut Run) -> anyhow::Result<()> {
    let operation = run.operation.clone();
    match run.scenario {
        Scenario::LinkCut => {
            cut(&run.router).await?;
            run.router.link.restore();
        }
        Scenario::PowerCut => {
            half_flashed(&run.router).await?;
            run.router.power_cut()?;
            run.router.power_on()?;
        }
        Scenario::AgentKilled => {
            half_flashed(&run.router).await?;
            run.router.kill_agent();
            run.router.start_agent()?;
        }
        Scenario::CancelWins => {
            cut(&run.router).await?;
            let (status, answer) = cancel(api, &operation).await?;
            ensure!(status == 200, "the cancel was answered with {status} {answer}");
            run.router.link.restore();
        }
        Scenario::CancelTooLate => {
            half_flashed(&run.router).await?;
            let (status, answer) = cancel(api, &operation).await?;
            ensure!(status == 409, "the cancel was answered with {status} {answer}");
        }
        Scenario::ToolFailsOnce | Scenario::ToolLies | Scenario::OtherModel | Scenario::Smooth => {}
    }
    let ended = ended(api, &run.operation).await?;
    judge(run, &ended).await
}

/// Compares what the coordinator says with what the modem is.
async fn judge(run: &Run, operation: &Value) -> anyhow::Result<()> {
    let status = operation["status"].as_str().context("no status")?;
    let expected = run.scenario.expected();
    ensure!(status == expected, "{status} instead of {expected}: {}", operation["failure"]);
    let flash = run.router.modem.state()?.flash;
    let package = flash.versions.package.as_str();
    ensure!(flash.condition == FlashCondition::Whole, "the modem is left {:?}", flash.condition);
    match run.scenario {
        Scenario::ToolLies => kind(operation, "version_mismatch")?,
        Scenario::OtherModel => kind(operation, "wrong_model")?,
        Scenario::AgentKilled => ensure!(flash.begun == 1, "flashed {} times", flash.begun),
        _ => {}
    }
    match expected {
        "success" => ensure!(package == super::TO, "success, but {package} runs"),
        _ => ensure!(flash.begun == 0, "not a success, but the modem was written to"),
    }
    given_back(&run.router).await
}

fn kind(operation: &Value, expected: &str) -> anyhow::Result<()> {
    let kind = &operation["failure"]["kind"];
    ensure!(kind == expected, "failed with {kind} instead of {expected}");
    Ok(())
}
