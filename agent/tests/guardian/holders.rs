//! Giving back: whose business it is, and when.

use crate::router::{AgentProcess, Router, exit_of, until};
use crate::testing::script;
use agent::files;
use agent::guardian::holders::{Holder, Holders};
use agent::guardian::record::{Plan, RunDir};
use agent::guardian::{Presence, give_back_when_orphaned};
use std::time::Duration;
use uuid::Uuid;

#[tokio::test]
async fn an_orphaned_guardian_gives_back_the_holders() {
    let router = Router::new("until test -e go; do sleep 0.05; done");
    std::fs::create_dir(router.path("init.d")).unwrap();
    script(
        &router.path("init.d/modemmanager"),
        &format!("echo $1 >> {}/calls", router.directory.path().display()),
    );
    let holders = Holders::new(&router.path("run"), router.plan().holders);
    files::create_private_dir(&router.path("run")).unwrap();
    holders.take(&[Holder::Service("modemmanager".into())]).await.unwrap();
    let agent = AgentProcess::start(&router);
    until("a tool", || async { files::is_locked(&router.run().watch_lock()).unwrap() }).await;
    agent.die();
    std::fs::write(router.path("go"), "").unwrap();
    until("given back", || async { !router.run().holders().exists() }).await;
    assert_eq!(router.read("calls").lines().collect::<Vec<_>>(), ["running", "stop", "start"]);
}

/// A router whose service `x` is held, and a plan that gives an orphan no time.
fn holding() -> (Router, Plan) {
    let router = Router::new("exit 0");
    std::fs::create_dir(router.path("init.d")).unwrap();
    let calls = router.path("calls");
    script(&router.path("init.d/x"), &format!("echo $1 >> {}", calls.display()));
    files::create_private_dir(router.run().path()).unwrap();
    std::fs::write(router.run().holders(), r#"{"format":1,"holders":[{"service":"x"}]}"#).unwrap();
    let plan = Plan { orphan_grace_s: 0, ..router.plan() };
    (router, plan)
}

#[tokio::test]
async fn while_an_agent_lives_giving_back_is_its_business() {
    let (router, plan) = holding();
    let _presence = Presence::announce(router.run().path()).unwrap().unwrap();
    exit_of(&mut router.start_plan(&plan).await.unwrap()).await;
    until("a guardian that looks on", || async {
        files::is_locked(&router.run().orphan_lock()).unwrap()
    })
    .await;
    // What an orphan is done with by then, this one had the time for as well.
    let (orphaned, plan) = holding();
    orphaned.start_plan(&plan).await.unwrap();
    until("given back", || async { !orphaned.run().holders().exists() }).await;
    assert!(router.run().holders().exists());
    assert!(!router.path("calls").exists());
    std::fs::remove_file(router.run().holders()).unwrap();
}

#[test]
fn what_another_slots_tool_may_be_disturbed_by_stays_held() {
    let (router, plan) = holding();
    let slot = |name: &str| RunDir::new(&router.path("slots").join(name));
    for name in ["a", "b", "c"] {
        files::create_private_dir(slot(name).path()).unwrap();
    }
    let give_back = |slot: &RunDir| {
        let agent_lock = Presence::lock_path(&router.path("slots"));
        give_back_when_orphaned(slot.path(), &plan.holders, &agent_lock, Duration::ZERO);
    };
    let record = std::fs::read(router.run().holders()).unwrap();
    std::fs::write(slot("a").holders(), &record).unwrap();
    let tool = files::try_lock(&slot("b").guardian_lock()).unwrap().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| give_back(&slot("a")));
        // What an orphan is done with by then, that one had the time for as well.
        give_back(&router.run());
        std::thread::sleep(Duration::from_millis(300));
        assert!(slot("a").holders().exists() && !waits.is_finished());
        assert_eq!(router.read("calls"), "start", "the other router's");
        drop(tool);
        waits.join().unwrap();
    });
    assert_eq!(router.read("calls").lines().collect::<Vec<_>>(), ["start"; 2]);
    assert!(!slot("a").holders().exists());
}

#[tokio::test]
async fn an_agent_that_comes_back_meanwhile_keeps_its_holders() {
    let (router, plan) = holding();
    let agents = files::try_lock(&router.run().holders_lock()).unwrap().unwrap();
    router.start_plan(&plan).await.unwrap();
    // With the tool's lock in hand it waits for that of the holders.
    until("the orphan", || async {
        files::is_locked(&router.run().orphan_lock()).unwrap() && router.tool_runs()
    })
    .await;
    let _presence = Presence::announce(router.run().path()).unwrap().unwrap();
    drop(agents);
    until("the orphan's retreat", || async { !router.tool_runs() }).await;
    assert!(!router.path("calls").exists(), "{}", router.read("calls"));
    assert!(router.run().holders().exists());
    std::fs::remove_file(router.run().holders()).unwrap();
}

/// The guardians of a router that are there, by their process ids.
fn guardians(router: &Router) -> Vec<String> {
    let run = router.run().path().display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().into_string().ok());
    ids.filter(|id| {
        let words = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        words.contains(&b"guard".as_slice()) && words.contains(&run.as_bytes())
    })
    .collect()
}

#[tokio::test]
async fn one_guardian_waits_for_all() {
    let router = Router::new("exit 0");
    let _presence = Presence::announce(router.run().path()).unwrap().unwrap();
    std::fs::write(router.run().holders(), r#"{"format":1,"holders":[{"service":"x"}]}"#).unwrap();
    for id in 1..=4 {
        let plan = Plan { id: Uuid::from_u128(id), ..router.plan() };
        exit_of(&mut router.start_plan(&plan).await.unwrap()).await;
    }
    until("only one", || async { guardians(&router).len() == 1 }).await;
    let one = guardians(&router).remove(0);
    let score = || std::fs::read_to_string(format!("/proc/{one}/oom_score_adj")).unwrap();
    until("it may be ended for its memory", || async { score().trim() == "0" }).await;
    std::fs::remove_file(router.run().holders()).unwrap();
    until("none", || async { guardians(&router).is_empty() }).await;
}
