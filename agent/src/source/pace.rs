//! Keeps a transfer below a bandwidth: after each piece it waits until so much may have come. TCP
//! then slows the sender down.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The pace of one answer.
#[derive(Debug)]
pub struct Pace {
    kbit_s: u64,
    began: Instant,
    bytes: u64,
}

impl Pace {
    /// `kbit_s`: at least 1.
    pub fn new(kbit_s: u64) -> Self {
        Self { kbit_s: kbit_s.max(1), began: Instant::now(), bytes: 0 }
    }

    /// Waits until `more` bytes on top of all before fit. Time that went by without bytes is not
    /// made up for: no burst follows a stall.
    pub async fn keep(&mut self, more: u64) {
        let now = Instant::now();
        self.began += now.saturating_duration_since(self.due());
        self.bytes = self.bytes.saturating_add(more);
        sleep_until(self.due()).await;
    }

    /// When all bytes until now may be there. Kilobits a second are bits a millisecond.
    fn due(&self) -> Instant {
        self.began + Duration::from_millis(self.bytes.saturating_mul(8) / self.kbit_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_average_stays_below_the_limit_whatever_the_pieces() {
        let began = Instant::now();
        let mut pace = Pace::new(800);
        for piece in [1_000, 99_000, 300_000, 0] {
            pace.keep(piece).await;
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(4) && took < Duration::from_millis(4_010), "{took:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let resumed = Instant::now();
        pace.keep(100_000).await;
        assert!(resumed.elapsed() >= Duration::from_secs(1), "a burst after a stall");
    }
}
