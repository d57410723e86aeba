//! Batches against everything that can come in between: in any order, and over restarts.

mod act;
mod check;
mod hands;
mod scene;

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use proptest::prelude::{Just, ProptestConfig, any, prop_oneof, proptest};
use proptest::strategy::{Strategy as _, ValueTree};
use proptest::test_runner::TestRunner;

use super::*;
use act::{Act, Word, acts};
use hands::Hands;
use scene::{Reached, Scene};

const DEVICES: usize = 6;
/// What one run of the property tries, and the test of what that reaches.
const CASES: u32 = 48;

fn play(acts: &[Act]) -> Reached {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut scene = Scene::new().await;
        scene.check().await;
        for act in acts {
            scene.act(act).await;
            scene.check().await;
        }
        scene.reached
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_batch_never_lies_and_never_grants_too_much(acts in acts()) {
        play(&acts);
    }
}

/// A property that nothing interesting happens to holds as well.
#[test]
fn what_is_tried_reaches_later_waves_retries_and_takeovers() {
    let mut runner = TestRunner::deterministic();
    let mut all = Reached::default();
    for _ in 0..CASES {
        let acts = acts().new_tree(&mut runner).unwrap().current();
        all.add(play(&acts));
    }
    let least = [
        ("grants", all.grants, 50),
        ("grants that were handed back", all.handed_back, 4),
        ("grants after one that was handed back", all.anew, 2),
        ("grants to another journal", all.to_another_journal, 4),
        ("waves after the first", all.later_waves, 3),
        ("batches that paused by themselves", all.paused, 4),
        ("pieces of a resumption", all.forgiven, 1),
        ("pieces of a cancellation", all.withdrawn, 5),
        ("retries", all.retries, 1),
        ("takeovers", all.takeovers, 6),
        ("takeovers that left somebody out", all.left_out, 1),
    ];
    for (what, count, least) in least {
        assert!(count >= least, "{count} {what}: {all:?}");
    }
}
