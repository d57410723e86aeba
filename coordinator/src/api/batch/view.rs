//! What a batch looks like: in answers, in live events, and to dashboards.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::ids::{BatchId, DeviceId, OperationId, OrganizationSlug, Slot};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::{
    BASE,
    build::{self, BuildView},
    document::shapes::StatusName,
    time::Time,
    upgrade::shapes::StrategyBody,
};
use crate::batch::{
    Counts, Phase, Reason, Wave, awaited::Awaited, phase::phase, strategy::MOST_WAVES,
};
use crate::operation::Status;
use crate::store::batch::Report;

/// A batch as the API, the live events and the dashboards' topic show it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchView {
    #[schema(value_type = Uuid)]
    id: BatchId,
    build: Option<BuildView>,
    /// A slug.
    #[schema(value_type = String)]
    organization: OrganizationSlug,
    created: Time,
    modified: Time,
    #[schema(value_type = Object)]
    upgrade_options: Map<String, Value>,
    #[schema(value_type = StatusName)]
    status: Status,
    group: Option<Uuid>,
    location: Option<Uuid>,
    #[schema(value_type = BatchPhase)]
    phase: Phase,
    /// The newest one that was opened.
    wave: Option<u32>,
    waves: Vec<WaveView>,
    #[schema(value_type = StrategyBody)]
    strategy: Value,
    tally: TallyView,
    progress_report: String,
    success_rate: f64,
    failed_rate: f64,
    aborted_rate: f64,
    cancelled_rate: f64,
    /// Why it is paused or was stopped.
    paused_reason: Option<String>,
    /// Some of those that the newest wave waits for, those in an attempt's hands first.
    awaited: Vec<AwaitedView>,
    #[schema(value_type = Option<Uuid>)]
    retry_of: Option<BatchId>,
    finished: Option<Time>,
    /// Its operations, as pages; a path of this API.
    operations_url: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct WaveView {
    /// From 0, the canary.
    n: u32,
    size: u64,
    /// Members that have ended.
    done: u64,
    success: u64,
    failed: u64,
    aborted: u64,
    cancelled: u64,
    /// Null: planned.
    opened: Option<Time>,
}

#[derive(Debug, Serialize, ToSchema)]
struct TallyView {
    total: u64,
    /// Modems that were chosen and are no members, because something came between: `left-out/` says what.
    left_out: u64,
    idle: u64,
    in_progress: u64,
    success: u64,
    failed: u64,
    aborted: u64,
    cancelled: u64,
    /// Past the point of no return, those that follow among them.
    granted: u64,
    dark: u64,
    suspect: u64,
    overdue: u64,
    /// Between two attempts, and not heard of for long; up to 200. While others wait for their wave they
    /// are ended, as failed.
    stalled: u64,
    /// Failed and aborted that speak against the build or its tool.
    charged: u64,
}

/// Who has to end before the next wave opens.
#[derive(Debug, Serialize, ToSchema)]
struct AwaitedView {
    #[schema(value_type = Uuid)]
    device: DeviceId,
    name: String,
    #[schema(value_type = String)]
    slot: Slot,
    #[schema(value_type = Uuid)]
    operation: OperationId,
    /// For people.
    why: String,
}

/// What a batch is doing.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum BatchPhase {
    Preparing,
    Scheduled,
    Waiting,
    Canary,
    Wave,
    Soaking,
    Paused,
    Cancelling,
    Finished,
}

impl BatchView {
    pub fn of(report: &Report) -> Self {
        let (batch, counts) = (&report.batch, report.batch.members());
        Self {
            id: batch.id,
            build: report.build.clone().map(build::view),
            organization: batch.organization_slug.clone(),
            created: Time(batch.created),
            modified: Time(batch.modified),
            upgrade_options: batch.upgrade_options.clone(),
            status: counts.status(),
            group: batch.group,
            location: batch.location,
            phase: phase(batch, &report.tally, report.now),
            wave: batch.wave,
            waves: waves(report),
            strategy: strategy(report),
            tally: tally(report, &counts),
            progress_report: counts.progress_report(),
            success_rate: counts.rate(Status::Success),
            failed_rate: counts.rate(Status::Failed),
            aborted_rate: counts.rate(Status::Aborted),
            cancelled_rate: counts.rate(Status::Cancelled),
            paused_reason: batch.reason.as_ref().map(Reason::to_string),
            awaited: report.awaited.iter().map(awaited).collect(),
            retry_of: batch.retry_of,
            finished: batch.finished_at.map(Time),
            operations_url: format!("{BASE}/upgrade-operation/?batch={}", batch.id),
        }
    }
}

fn awaited(awaited: &Awaited) -> AwaitedView {
    AwaitedView {
        device: awaited.device,
        name: awaited.name.clone(),
        slot: awaited.slot.clone(),
        operation: awaited.operation,
        why: awaited.why.clone(),
    }
}

fn tally(report: &Report, counts: &Counts) -> TallyView {
    let silence = &report.tally.silence;
    TallyView {
        total: counts.total(),
        left_out: report.batch.left_out,
        idle: counts.idle,
        in_progress: counts.in_progress,
        success: counts.success,
        failed: counts.failed,
        aborted: counts.aborted,
        cancelled: counts.cancelled,
        granted: silence.granted,
        dark: silence.dark,
        suspect: silence.suspect,
        overdue: silence.overdue,
        stalled: report.tally.stalled,
        charged: counts.charged,
    }
}

/// Those that were opened, and those that are planned for whoever is left.
fn waves(report: &Report) -> Vec<WaveView> {
    let view = |n: u32, size: u64, counts: &Counts, opened| WaveView {
        n,
        size,
        done: counts.done(),
        success: counts.success,
        failed: counts.failed,
        aborted: counts.aborted,
        cancelled: counts.cancelled,
        opened,
    };
    let opened =
        |wave: &Wave| view(wave.n, wave.counts.total(), &wave.counts, Some(Time(wave.opened_at)));
    let mut views: Vec<_> = report.waves.iter().map(opened).collect();
    let next = report.batch.wave.map_or(0, |wave| wave.saturating_add(1));
    let may_prove = |wave: &Wave| wave.counts.proved() + wave.counts.undecided();
    let best = report.tally.best.max(report.tally.wave.as_ref().map_or(0, may_prove));
    let pool = report.tally.pool + report.batch.takeovers;
    let sizes = report.batch.strategy.planned(next, best, pool);
    let room = (MOST_WAVES as usize).saturating_sub(views.len());
    let planned = (next..).zip(sizes).take(room);
    views.extend(planned.map(|(n, size)| view(n, size, &Counts::default(), None)));
    views
}

fn strategy(report: &Report) -> Value {
    let mut strategy = json!(report.batch.strategy);
    strategy["start_at"] = json!(report.batch.start_at.map(Time));
    strategy["expires_at"] = json!(Time(report.batch.expires_at));
    // Windows are the routers' own.
    strategy["window"] = Value::Null;
    strategy
}

/// The same as JSON bytes, for the feed: without the build's changelog, which never changes with the
/// batch and may be longer than a dashboard's packet, and with the latest waves alone: a fleet whose last ones
/// trickle in opens more than it holds.
pub fn payload(report: &Report) -> Bytes {
    let mut view = BatchView::of(report);
    if let Some(build) = &mut view.build {
        build.changelog = None;
    }
    let old = view.waves.len().saturating_sub(MOST_WAVES as usize);
    view.waves.drain(..old);
    bytes(&view)
}

pub(super) fn bytes(view: &BatchView) -> Bytes {
    serde_json::to_vec(view).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Tally, tests::batch};

    #[test]
    fn planned_waves_are_those_that_would_be_opened() {
        let counts = Counts { success: 1, cancelled: 1, ..Counts::default() };
        let wave = |n| Wave { n, counts, opened_at: 0, last_result: Some(0) };
        let all: Vec<_> = (0..5).map(wave).collect();
        let tally = Tally { pool: 20, best: 1, wave: Some(wave(4)), ..Tally::default() };
        let batch = Batch { wave: Some(4), ..batch() };
        let mut report =
            Report { batch, build: None, tally, waves: all, awaited: Vec::new(), now: 0 };
        let planned = |report: &Report| {
            let views = waves(report).into_iter().filter(|wave| wave.opened.is_none());
            views.map(|wave| (wave.n, wave.size)).collect::<Vec<_>>()
        };
        assert_eq!(planned(&report), [(5, 4), (6, 8), (7, 8)]);
        // Who is in the newest one may prove itself still.
        report.tally.wave.as_mut().unwrap().counts.in_progress = 9;
        assert_eq!(planned(&report), [(5, 20)]);
    }
}
