//! What is remembered of past jobs while an agent lives: bounded, whatever the coordinator sends.

use shared::ids::OperationId;
use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// Operations remembered. One that is forgotten is answered once more.
const MOST: usize = 1024;
/// Upgrades of a slot that may begin within [`DAY`]: each writes to the disk, whatever becomes of it.
const A_DAY: usize = 48;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Operations, the latest of them.
#[derive(Debug, Default)]
pub struct Operations {
    known: HashSet<OperationId>,
    order: VecDeque<OperationId>,
}

impl Operations {
    pub fn contains(&self, operation: OperationId) -> bool {
        self.known.contains(&operation)
    }

    /// Whether it was not known.
    pub fn insert(&mut self, operation: OperationId) -> bool {
        let new = self.known.insert(operation);
        if new {
            self.order.push_back(operation);
            if self.order.len() > MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        new
    }
}

/// When upgrades began.
#[derive(Debug, Default)]
pub struct Begun(VecDeque<Instant>);

impl Begun {
    pub fn add(&mut self, now: Instant) {
        self.0.push_back(now);
        if self.0.len() > A_DAY {
            self.0.pop_front();
        }
        if let Some(opens) = self.opens().filter(|opens| *opens > now) {
            let hours = (opens - now).as_secs() / 3600;
            log::warn!("{A_DAY} upgrades have begun in a day; the next may in {hours} hours");
        }
    }

    /// When the next may begin; `None`: at any time.
    pub fn opens(&self) -> Option<Instant> {
        (self.0.len() >= A_DAY).then(|| self.0.front().map(|first| *first + DAY)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_operations_are_known() {
        let operation = |n: usize| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            OperationId::from_random(bytes)
        };
        let mut operations = Operations::default();
        for n in 0..=MOST {
            assert!(operations.insert(operation(n)));
            assert!(!operations.insert(operation(n)));
        }
        assert!(!operations.contains(operation(0)) && operations.contains(operation(1)));
        assert_eq!((operations.known.len(), operations.order.len()), (MOST, MOST));
    }

    #[test]
    fn so_many_begin_in_any_day_and_no_more() {
        let (mut begun, start) = (Begun::default(), Instant::now());
        let minute = |n: u32| start + n * Duration::from_secs(60);
        for n in 0..48 {
            assert_eq!(begun.opens(), None);
            begun.add(minute(n));
        }
        assert_eq!(begun.opens(), Some(start + DAY));
        begun.add(start + DAY);
        assert_eq!(begun.opens(), Some(minute(1) + DAY));
    }
}
