//! Deaths: of the agent, of the guardian, and signals that are none.

use crate::router::{AgentProcess, PATIENCE, Router, ended, exit_of, until};
use agent::files;
use agent::guardian::record::Timeouts;
use agent::guardian::{Ended, NotStarted, Presence, Status, is_any_running};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uuid::Uuid;

#[tokio::test]
async fn a_tool_survives_its_agent_and_is_found_again() {
    let router =
        Router::new("echo $$ > pid; echo 40%; until test -e go; do sleep 0.05; done; echo 90%");
    let agent = AgentProcess::start(&router);
    router.pid("pid").await;
    assert!(matches!(Presence::announce(&router.path("run")), Ok(None)));
    agent.die();
    assert!(Presence::announce(&router.path("run")).unwrap().is_some());
    // As the directory of a slot, in the agent's.
    assert!(is_any_running(router.directory.path()));
    let mut running = router.guardian().attach().expect("the tool lives");
    assert_eq!(running.plan_id(), Some(Uuid::from_u128(42)));
    until("40%", || async { files::read_text(&router.run().progress()).unwrap().contains(":40,") })
        .await;
    std::fs::write(router.path("go"), "").unwrap();
    let record = exit_of(&mut running).await;
    assert_eq!((record.status, record.percent), (Status::Exited(0), Some(90)));
    assert!(router.guardian().attach().is_none());
    assert!(!is_any_running(router.directory.path()));
}

/// Finds the guardian: the one process that holds the watch lock.
async fn kill_guardian(router: &Router, tool: Pid) {
    let stat = std::fs::read_to_string(format!("/proc/{tool}/stat")).unwrap();
    let parent = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned();
    kill(Pid::from_raw(parent.parse().unwrap()), Signal::SIGKILL).unwrap();
    until("the guardian's death", || async {
        !files::is_locked(&router.run().watch_lock()).unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_tool_does_not_notice_its_guardians_death() {
    let router = Router::new(
        "echo $$ > pid; until test -e go; do echo working; sleep 0.02; done; echo over > result",
    );
    let mut running = router.start().await;
    let tool = router.pid("pid").await;
    kill_guardian(&router, tool).await;
    let second = router.start_plan(&router.plan()).await;
    assert!(matches!(second, Err(NotStarted::Busy)));
    std::fs::write(router.path("go"), "").unwrap();
    assert_eq!(ended(&mut running).await, Ended::Lost);
    assert_eq!(router.read("result"), "over");
}

#[tokio::test]
async fn what_a_dead_guardian_left_hanging_is_ended_by_the_agent() {
    let router = Router::new("trap '' TERM; echo $$ > pid; while :; do sleep 600; done");
    let mut plan = router.plan();
    plan.timeouts = Timeouts { idle_ms: 300, total_ms: 2_000, grace_ms: 300 };
    router.start_plan(&plan).await.unwrap();
    let tool = router.pid("pid").await;
    kill_guardian(&router, tool).await;
    let mut running = router.guardian().attach().expect("the tool lives");
    assert_eq!(ended(&mut running).await, Ended::Lost);
    until("the tool's death", || async { kill(tool, None).is_err() }).await;
}

#[tokio::test]
async fn who_follows_a_tool_sees_and_ends_what_its_guardian_left() {
    for told in [true, false] {
        let router = Router::new("trap '' TERM; echo $$ > pid; while :; do sleep 600; done");
        let mut plan = router.plan();
        // Silence alone does not make it stalled.
        plan.timeouts = Timeouts { idle_ms: 600_000, total_ms: 3_000, grace_ms: 300 };
        router.start_plan(&plan).await.unwrap();
        let tool = router.pid("pid").await;
        kill_guardian(&router, tool).await;
        if !told {
            std::fs::write(router.run().progress(), "torn").unwrap();
        }
        let mut running = router.guardian().attach().expect("the tool lives");
        let followed = async {
            let mut stalled = false;
            while let Some(progress) = running.next_progress().await {
                stalled |= progress.stalled;
            }
            stalled
        };
        let stalled = tokio::time::timeout(PATIENCE, followed).await.expect("it is ended");
        assert!(stalled, "nobody watches it");
        assert_eq!(ended(&mut running).await, Ended::Lost);
    }
}

#[tokio::test]
async fn signals_do_not_end_a_guardian() {
    let router = Router::new("echo $$ > pid; until test -e go; do sleep 0.05; done");
    let mut running = router.start().await;
    let tool = router.pid("pid").await;
    let stat = std::fs::read_to_string(format!("/proc/{tool}/stat")).unwrap();
    let fields: Vec<i32> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .skip(1)
        .take(3)
        .map(|f| f.parse().unwrap())
        .collect();
    let (guardian, group, session) = (fields[0], fields[1], fields[2]);
    assert_eq!((group, session), (tool.as_raw(), guardian), "own group, the guardian's session");
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        kill(Pid::from_raw(guardian), signal).unwrap();
    }
    std::fs::write(router.path("go"), "").unwrap();
    assert_eq!(exit_of(&mut running).await.status, Status::Exited(0));
}
