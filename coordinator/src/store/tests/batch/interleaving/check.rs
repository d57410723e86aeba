//! What must hold whatever happened.

use super::*;

impl Scene {
    pub async fn check(&mut self) {
        self.follow().await;
        self.check_hands().await;
        for batch in self.batches.clone() {
            self.check_batch(batch).await;
        }
    }

    async fn check_batch(&mut self, id: BatchId) {
        let operations = operations(&self.f.store, id).await;
        let report = self.f.store.batch_report(Scope::Everything, id).await;
        let report = report.unwrap().unwrap();
        assert_eq!(report.batch.counts, count_all(operations.iter()), "the counters");
        let known = report.batch.members().total() + report.batch.left_out;
        assert_eq!(known, self.chosen[&id], "a member, or left out");
        assert_eq!(left_out(&self.f.store, id).await.len() as u64, report.batch.left_out);
        for wave in &report.waves {
            let own = operations.iter().filter(|op| op.wave == Some(wave.n));
            assert_eq!(wave.counts, count_all(own), "of wave {}", wave.n);
        }
        let pool = operations.iter().filter(|op| op.wave.is_none() && !op.status.is_terminal());
        assert_eq!(report.tally.pool, pool.count() as u64);
        let status = stored_status(&self.f.store, id).await;
        assert_eq!(status, report.batch.members().status(), "one arithmetic");
        let granted = operations.iter().filter(|op| op.is_granted());
        assert!(granted.clone().all(|op| op.attempts_granted > 0 && !op.status.is_terminal()));
        let in_hand = granted.count();
        assert!(in_hand <= AT_A_TIME as usize, "{in_hand} at a time");
        assert_eq!(report.batch.granted, in_hand as u64, "the counter of grants");
        let silence = report.tally.silence;
        assert!(silence.forgiven <= silence.overdue && silence.overdue <= silence.granted);
        assert!(report.batch.forgiven.failures <= report.batch.counts.charged, "a credit");
        let ended = report.batch.counts.undecided() == 0 && report.batch.takeovers == 0;
        assert!(ended || !status.is_terminal(), "{status}, and somebody is to join still");
        let phase = crate::batch::phase::phase(&report.batch, &report.tally, report.now);
        assert_eq!(ended, report.batch.course == Course::Finished, "{:?}", report.batch.course);
        assert_eq!(ended, phase == crate::batch::Phase::Finished, "{phase:?}");
        for operation in &operations {
            if operation.status.is_terminal() {
                let first = *self.ended.entry(operation.id).or_insert(operation.status);
                assert_eq!(operation.status, first, "terminal never changes");
            }
        }
        self.check_wave(&report.batch, &operations);
        self.count(&report.batch);
        self.before.insert(id, report.batch);
    }

    fn count(&mut self, now: &Batch) {
        let before = self.before.get(&now.id);
        let by_itself = |batch: &Batch| {
            matches!(batch.reason, Some(Reason::Gate { .. } | Reason::Threshold { .. }))
                && batch.course == Course::Paused
        };
        let later = |batch: &Batch| batch.wave.is_some_and(|wave| wave > 0);
        if later(now) && before.is_some_and(|before| before.wave != now.wave) {
            self.reached.later_waves += 1;
        }
        if by_itself(now) && !before.is_some_and(by_itself) {
            self.reached.paused += 1;
        }
    }

    /// No wave has opened on missing evidence.
    fn check_wave(&self, now: &Batch, operations: &[Operation]) {
        let before = self.before.get(&now.id).and_then(|before| before.wave);
        let (Some(last), Some(newest)) = (before, now.wave) else { return };
        let forgiven = now.forgiven.wave.is_some_and(|wave| wave >= last);
        if newest == last || forgiven {
            return;
        }
        let of_last: Vec<_> = operations.iter().filter(|op| op.wave == Some(last)).collect();
        assert!(of_last.iter().all(|op| op.status.is_terminal()), "an unfinished wave");
        let proved = |op: &&&Operation| op.status == Status::Success && is_proof(op);
        let succeeded = of_last.iter().filter(proved).count();
        assert!(succeeded >= 1, "no success in wave {last}");
        assert!(!of_last.iter().any(|op| op.status == Status::Failed), "a failure passed");
    }
}
