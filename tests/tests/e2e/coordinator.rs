//! A coordinator that is killed in the middle of things and started again, and devices that are not
//! what they were.

use crate::{SLOW, cut_in_the_download, enrolled, scene, under_way};
use lab::{
    release::{TO, Wanted},
    scene::Scene,
    watch::{self, until},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Bodies of an operation's milestones by stream and number, as they are on disk.
fn milestones(scene: &Scene, id: &str) -> BTreeMap<(String, u64), String> {
    let database = scene.database().unwrap();
    let statement = "SELECT stream, seq, body FROM milestones WHERE operation = ?1";
    let mut statement = database.prepare(statement).unwrap();
    let rows = statement.query_map([id], |row| {
        Ok(((row.get::<_, String>(0)?, row.get::<_, u64>(1)?), row.get::<_, String>(2)?))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_killed_again_and_again_loses_nothing() {
    let mut scene = scene("coordinator-killed");
    let image = scene.image(&Wanted::default()).unwrap();
    let (router, device) = enrolled(&scene, &[SLOW]).await;
    watch::online(&scene.api, &device).await.unwrap();

    // In the download.
    let fetched = router.link.bytes_down();
    let id = watch::assign(&scene.api, &device, &image).await.unwrap();
    let some = || router.link.bytes_down() > fetched + (512 << 10);
    until("the download has begun", some).await.unwrap();
    scene.coordinator.kill();
    let mut known = milestones(&scene, &id);
    scene.coordinator.restart().unwrap();
    watch::online(&scene.api, &device).await.unwrap();

    // While the modem is flashed: what it reports meanwhile waits on the router.
    watch::half_flashed(&router).await.unwrap();
    let before = scene.operation(&id, |o| o["granted"] == true).await.unwrap();
    scene.coordinator.kill();
    for (key, body) in std::mem::replace(&mut known, milestones(&scene, &id)) {
        assert_eq!(known.get(&key), Some(&body), "lost by the first kill");
    }
    let flashed = || router.modem.state().unwrap().flash.versions.package == TO;
    until("flashed without a coordinator", flashed).await.unwrap();
    scene.coordinator.restart().unwrap();

    let ended = scene.ended(&id).await.unwrap();
    assert_eq!(ended["status"], "success", "{ended:#}\n{}", router.agent_log());
    assert_eq!(ended["attempt"], 1);
    assert_eq!(router.modem.state().unwrap().flash.begun, 1);
    let (before, after) = (before["log"].as_str().unwrap(), ended["log"].as_str().unwrap());
    assert!(after.starts_with(before), "what was told is not taken back:\n{before}\n--\n{after}");
    let all = milestones(&scene, &id);
    for (key, body) in &known {
        assert_eq!(all.get(key), Some(body), "lost by the second kill");
    }
    // One journal, and not a number is missing.
    let numbers: Vec<_> = all.keys().map(|(_, seq)| *seq).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{all:#?}");
    assert!(known.len() > 3 && known.len() < all.len(), "killed at the wrong time");
    watch::online(&scene.api, &device).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_begins_anew_is_not_taken_for_the_one_before() {
    let scene = scene("coordinator-journal");
    let (mut router, id) = cut_in_the_download(&scene).await;
    // Without its modem the agent comes so far and no further.
    router.modem.power_cut().unwrap();
    router.link.restore();
    scene.operation(&id, |o| o["phase"] == "baselining").await.unwrap();
    router.kill_agent();
    router.modem.power_on().unwrap();
    let first = milestones(&scene, &id);
    assert!(!first.is_empty(), "nothing was heard before");

    // Reinstalled with its key kept: the same device, which counts its milestones from 1 again.
    for entry in fs::read_dir(router.dir.join("state")).unwrap().map(Result::unwrap) {
        match (entry.file_name() == "identity", entry.path().is_dir()) {
            (true, _) => {}
            (false, true) => fs::remove_dir_all(entry.path()).unwrap(),
            (false, false) => fs::remove_file(entry.path()).unwrap(),
        }
    }
    fs::remove_dir_all(router.dir.join("staging")).unwrap();
    router.start_agent().unwrap();
    let ended = scene.ended(&id).await.unwrap();
    assert_eq!(ended["status"], "success", "{ended:#}");
    assert_eq!(router.modem.state().unwrap().flash.begun, 1);
    assert_eq!(watch::devices(&scene.api, &router).await.unwrap(), [ended["device"].clone()]);

    let all = milestones(&scene, &id);
    for (key, body) in &first {
        assert_eq!(all.get(key), Some(body), "the past was overwritten");
    }
    let streams: BTreeSet<_> = all.keys().map(|(stream, _)| stream).collect();
    assert_eq!(streams.len(), 2, "{all:#?}");
    for stream in streams {
        let numbers: Vec<_> = all.keys().filter(|key| key.0 == *stream).map(|key| key.1).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{all:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_begins_anew_under_an_open_grant_does_not_flash() {
    let scene = scene("coordinator-grant");
    let (mut router, id) = under_way(&scene, &[SLOW]).await;
    watch::half_flashed(&router).await.unwrap();
    router.kill_agent();
    let state = router.dir.join("state");
    fs::rename(state.join("identity"), router.dir.join("identity")).unwrap();
    fs::remove_dir_all(&state).unwrap();
    fs::create_dir(&state).unwrap();
    fs::rename(router.dir.join("identity"), state.join("identity")).unwrap();
    router.start_agent().unwrap();
    // The first tool goes on under its guardian and no second one begins.
    let whole = || router.modem.state().unwrap().flash.versions.package == TO;
    until("the tool ends", whole).await.unwrap();
    let over = || router.agent_log().contains(" ended: ");
    until("the new journal comes to its end", over).await.unwrap();
    assert_eq!(router.modem.state().unwrap().flash.begun, 1);
    // What the new journal saw is no proof for the granted attempt, whose journal is gone.
    let refused = || {
        let database = scene.database().unwrap();
        let count = "SELECT count(*) FROM dead_letters WHERE operation = ?1";
        database.query_row(count, [&id], |row| row.get::<_, u32>(0)).unwrap() > 0
    };
    until("its milestones are kept apart", refused).await.unwrap();
    assert_eq!(scene.operation(&id, |_| true).await.unwrap()["granted"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_with_a_new_key_has_no_past() {
    let scene = scene("coordinator-new-key");
    let (mut router, id) = cut_in_the_download(&scene).await;
    router.kill_agent();
    let past = scene.operation(&id, |_| true).await.unwrap();
    let (device, image) = (past["device"].as_str().unwrap(), past["image"].as_str().unwrap());
    for wiped in ["state", "staging", "run"] {
        fs::remove_dir_all(router.dir.join(wiped)).unwrap();
    }
    router.link.restore();
    router.start_agent().unwrap();
    let new = watch::another(&scene.api, &router, device).await.unwrap();

    // Its own upgrade runs; the one of before is not its business.
    let own = watch::assign(&scene.api, &new, image).await.unwrap();
    let own = scene.ended(&own).await.unwrap();
    assert_eq!(own["status"], "success", "{own:#}");
    assert_eq!(router.modem.state().unwrap().flash.begun, 1);
    let past = scene.operation(&id, |_| true).await.unwrap();
    assert_eq!((&past["status"], &past["granted"]), (&"in-progress".into(), &false.into()));
}
