//! The pause between two tries that failed. What is new on this router (an interface that came up, a person
//! who says so) ends it early: after a flash of the only uplink everybody is deep in their back-off.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

/// However often somebody nudges, no two tries follow each other faster.
const GAP: Duration = Duration::from_secs(2);
/// What the coordinator asked for is kept to for so long whatever happens here.
const ASKED: Duration = Duration::from_secs(60);

/// Ends the pauses of all its [`Rest`]s.
#[derive(Debug, Clone)]
pub struct Nudge(watch::Sender<()>);

impl Default for Nudge {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Nudge {
    pub fn now(&self) {
        self.0.send_replace(());
    }

    #[must_use]
    pub fn rest(&self) -> Rest {
        Rest(self.0.subscribe())
    }
}

/// Of one task.
#[derive(Debug, Clone)]
pub struct Rest(watch::Receiver<()>);

impl Rest {
    /// Pauses for `own`, or for as long as the coordinator `asked`. Answers whether that ended early: then the
    /// back-off begins anew. A nudge during the try before counts.
    pub async fn pause(&mut self, own: Duration, asked: Option<Duration>) -> bool {
        let asked = asked.unwrap_or_default();
        let whole = own.max(asked);
        let least = own.min(GAP).max(asked.min(ASKED));
        sleep(least).await;
        tokio::select! {
            () = sleep(whole - least) => false,
            Ok(()) = self.0.changed() => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test(start_paused = true)]
    async fn a_nudge_ends_a_pause_and_those_that_come_often_do_not_hurry() {
        let nudge = Nudge::default();
        let mut rest = nudge.rest();
        let began = Instant::now();
        assert!(!rest.pause(LONG, None).await, "nobody nudged");
        assert_eq!(began.elapsed(), LONG);
        for _ in 0..9 {
            nudge.now();
        }
        let began = Instant::now();
        assert!(rest.pause(LONG, None).await);
        assert_eq!(began.elapsed(), GAP);
        assert!(timeout(LONG / 2, rest.pause(LONG, None)).await.is_err(), "they were one");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_coordinator_asked_for_is_kept_to_for_a_while() {
        let nudge = Nudge::default();
        let mut rest = nudge.rest();
        nudge.now();
        let began = Instant::now();
        assert!(rest.pause(Duration::from_secs(1), Some(LONG)).await);
        assert_eq!(began.elapsed(), ASKED);
        nudge.now();
        let began = Instant::now();
        rest.pause(Duration::from_millis(300), Some(Duration::from_secs(5))).await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }
}
