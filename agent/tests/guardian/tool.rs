//! How a tool runs, ends and is understood.

use crate::router::{Router, ended, exit_of, until, verified};
use agent::files;
use agent::guardian::record::{FORMAT, Plan, Timeouts};
use agent::guardian::{Ended, NotStarted, Status, is_any_running};
use nix::sys::signal::kill;
use shared::profile::ImageArgument;
use uuid::Uuid;

#[tokio::test]
async fn a_tool_runs_and_is_understood() {
    let router = Router::new(
        r#"cmp "$1" "$T/image" && echo same; ls -l /proc/self/fd > fds; env > env
           seen() { until test -e seen-$1; do sleep 0.02; done; }
           printf ' 10%%\r'; seen 10; printf ' 55%%\r'; seen 55; echo 100%; echo 'all done' >&2; exit 3"#,
    );
    let mut running = router.start().await;
    let mut seen = Vec::new();
    while let Some(progress) = running.next_progress().await {
        seen.extend(progress.percent);
        if let Some(percent) = progress.percent {
            // The tool waits for it.
            std::fs::write(router.path(&format!("seen-{percent}")), "").unwrap();
        }
    }
    assert!(seen.contains(&10) && seen.contains(&55), "{seen:?}");
    assert_eq!(seen.last(), Some(&100));
    let record = exit_of(&mut running).await;
    assert_eq!(record.status, Status::Exited(3));
    assert_eq!((record.hints.success.len(), record.hints.failure.len()), (1, 0));
    assert_eq!(record.last_lines, ["same", "100%", "all done"]);
    assert_eq!(router.guardian().last_exit(Uuid::from_u128(42)), Some(record));
    assert_eq!(router.guardian().last_exit(Uuid::from_u128(43)), None);
    assert_eq!(router.guardian().transcript().unwrap(), "same\n100%\nall done\n");
    // The image, the lock, the standard streams, and what the shell and ls open themselves.
    assert!(router.read("fds").contains("guardian.lock"));
    let names: Vec<_> =
        router.read("env").lines().filter_map(|l| Some(l.split_once('=')?.0.to_owned())).collect();
    assert!(
        names.iter().all(|n| ["PATH", "T", "PWD", "_", "SHLVL", "OLDPWD"].contains(&n.as_str()))
    );
    assert!(!router.tool_runs());
}

#[tokio::test]
async fn a_tool_that_will_not_end_is_killed_with_all_it_started() {
    let router = Router::new(
        r#"trap '' TERM; echo $$ > pid; setsid sh -c 'trap "" TERM; echo $$ > daemon; sleep 600' & sleep 600; sleep 600"#,
    );
    let mut plan = router.plan();
    plan.timeouts.total_ms = 700;
    let mut running = router.start_plan(&plan).await.unwrap();
    let (tool, daemon) = (router.pid("pid").await, router.pid("daemon").await);
    let mut stalled = false;
    while let Some(progress) = running.next_progress().await {
        stalled |= progress.stalled;
    }
    assert!(stalled, "silence is reported");
    let record = exit_of(&mut running).await;
    assert!(record.timed_out);
    assert_eq!(record.status, Status::Signaled(9));
    assert!(record.ended_ms - record.started_ms >= 1_000);
    for process in [tool, daemon] {
        assert!(kill(process, None).is_err(), "{process} lives");
    }
}

#[tokio::test]
async fn a_tool_that_is_asked_may_end_by_itself() {
    let router = Router::new("trap 'echo cleaning; exit 9' TERM; while :; do sleep 0.05; done");
    let mut plan = router.plan();
    plan.timeouts = Timeouts { idle_ms: 300, total_ms: 500, grace_ms: 30_000 };
    let record = exit_of(&mut router.start_plan(&plan).await.unwrap()).await;
    assert!(record.timed_out);
    assert_eq!(record.status, Status::Exited(9));
    assert!(record.last_lines.contains(&"cleaning".to_owned()), "{:?}", record.last_lines);
}

#[tokio::test]
async fn no_second_tool_while_anything_of_the_first_lives() {
    let router = Router::new(
        "setsid sh -c 'echo $$ > daemon; until test -e go; do sleep 0.05; done' & exit 0",
    );
    let mut first = router.start().await;
    router.pid("daemon").await;
    let second = router.start_plan(&Plan { id: Uuid::from_u128(43), ..router.plan() }).await;
    assert!(matches!(second, Err(NotStarted::Busy)));
    assert_eq!(first.plan_id(), router.guardian().attach().unwrap().plan_id());
    std::fs::write(router.path("go"), "").unwrap();
    assert_eq!(exit_of(&mut first).await.status, Status::Exited(0));
    // Waited for, so that no process is left in a directory that is gone.
    exit_of(&mut router.start().await).await;
}

#[tokio::test]
async fn who_objects_is_asked_when_the_start_can_be_seen_already() {
    let router = Router::new("exit 0");
    let image = verified(&router.path("image")).await;
    let mut seen = false;
    let objection = || {
        seen = is_any_running(router.run().path());
        Some("not now".to_owned())
    };
    let refused = router.guardian().start(&router.plan(), &image, objection).await;
    assert!(matches!(refused, Err(NotStarted::Objected(reason)) if reason == "not now"));
    assert!(seen, "who looks for tools would have missed this one");
    assert!(!is_any_running(router.run().path()));
}

#[tokio::test]
async fn a_torn_or_foreign_record_counts_as_lost() {
    let router = Router::new("exit 0");
    let mut running = router.start().await;
    let record = exit_of(&mut running).await;
    let text = serde_json::to_string(&record).unwrap();
    for torn in [&text[..text.len() / 2], "", &text.replace("2a", "2b")] {
        std::fs::write(router.run().exit(), torn).unwrap();
        assert_eq!(ended(&mut running).await, Ended::Lost);
    }
    std::fs::remove_file(router.run().exit()).unwrap();
    assert_eq!(ended(&mut running).await, Ended::Lost);
}

#[tokio::test]
async fn a_flood_of_output_stays_bounded() {
    let router =
        Router::new("yes 'a line that says nothing' | head -c 60000000; echo; echo 'all done'");
    let mut running = router.start().await;
    let mut most = 0;
    while running.next_progress().await.is_some() {
        let used = std::fs::metadata(router.run().output()).map_or(0, |m| {
            use std::os::unix::fs::MetadataExt;
            m.blocks() * 512
        });
        most = most.max(used);
    }
    let record = exit_of(&mut running).await;
    assert_eq!(record.hints.success, ["all done"]);
    assert!(most < 60_000_000, "{most} bytes of output on disk");
    assert!(router.guardian().transcript().unwrap().len() < 140 * 1024);
    assert!(!router.run().output().exists());
}

#[tokio::test]
async fn what_cannot_be_started_leaves_nothing_behind() {
    let router = Router::new("touch touched");
    let missing = Plan { program: "/nonexistent/tool".into(), ..router.plan() };
    let mut swapped = router.plan();
    swapped.image.inode += 1;
    let mut renamed = router.plan();
    renamed.image.argument = ImageArgument::Path;
    renamed.image.path = router.path("tool");
    let newer = Plan { format: FORMAT + 1, ..router.plan() };
    for (plan, word) in
        [(missing, "tool"), (swapped, "image"), (renamed, "image"), (newer, "format")]
    {
        let refused = router.start_plan(&plan).await.unwrap_err();
        assert!(matches!(&refused, NotStarted::Refused(text) if text.contains(word)), "{refused}");
        assert!(router.guardian().last_exit(plan.id).is_none());
    }
    until("the lock is free", || async { !router.tool_runs() }).await;
    assert!(!router.path("touched").exists());
    exit_of(&mut router.start().await).await;
    assert!(router.path("touched").exists());
}

#[tokio::test]
async fn a_guardian_is_nobody_without_its_lock() {
    let router = Router::new("touch touched");
    files::create_private_dir(router.run().path()).unwrap();
    files::write_atomic(&router.run().plan(), &serde_json::to_vec(&router.plan()).unwrap())
        .unwrap();
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_modem-upgrader-agent"))
        .args(["guard", "--run-dir"])
        .arg(router.run().path())
        .stdin(std::fs::File::open(router.path("image")).unwrap())
        .stdout(files::open_private(&router.path("other.lock")).unwrap())
        .stderr(std::process::Stdio::null())
        .status();
    assert!(!status.unwrap().success());
    assert!(!router.path("touched").exists());
}
