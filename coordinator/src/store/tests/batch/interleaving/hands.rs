//! What the devices know: which of their journals has leave for which attempt. The coordinator only hears of
//! it, and must never think that a modem is in nobody's hands while it is in theirs.

use super::act::Journal;
use super::*;

/// Of one journal for one operation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hands {
    /// That it has leave for.
    pub attempt: Option<u32>,
    /// Grants that it has handed back.
    pub returned: u32,
    /// The attempt of the last one of those.
    pub handed_back: Option<u32>,
    /// The coordinator has not taken its word that its leave is over.
    pub unheard: bool,
}

impl Hands {
    pub fn granted(&mut self, attempt: u32) {
        (self.attempt, self.unheard) = (Some(attempt), false);
    }

    /// The attempt that it has leave for no more, its tool not started; with how many that makes.
    pub fn hand_back(&mut self) -> Option<(u32, u32)> {
        let attempt = self.attempt.take()?;
        self.handed_back = Some(attempt);
        self.returned += 1;
        Some((attempt, self.returned))
    }

    /// It says this of the attempt, and was heard or not.
    pub fn said(&mut self, attempt: u32, word: Word, heard: bool) {
        let over = match word {
            Word::Retrying => self.attempt == Some(attempt),
            word => word.is_the_end() && self.attempt.is_some(),
        };
        if over {
            (self.attempt, self.unheard) = (None, !heard);
        }
    }
}

impl Scene {
    pub fn hands(&mut self, operation: OperationId, journal: Journal) -> &mut Hands {
        self.hands.entry((operation, journal)).or_default()
    }

    /// As far as devices and coordinator can know of each other.
    pub async fn check_hands(&self) {
        let mut held = HashMap::new();
        for ((id, journal), hands) in &self.hands {
            let op = self.f.operation(*id).await;
            let known = op.granted.filter(|granted| granted.open);
            let known = known.filter(|granted| granted.stream == stream(*journal));
            let attempt = known.map(|granted| granted.attempt);
            if op.status.is_terminal() {
                let lost = op.failure.is_some_and(|of| of.kind == FailureKind::AttemptLost);
                assert!(hands.attempt.is_none() || lost, "ended in a device's hands: {hands:?}");
            } else if hands.attempt.is_some() {
                assert_eq!(attempt, hands.attempt, "journal {journal} has leave");
                *held.entry(op.batch.unwrap()).or_insert(0) += 1;
            } else {
                assert!(attempt.is_none() || hands.unheard, "nobody has leave: {op:?}");
            }
        }
        for (batch, held) in held {
            assert!(held <= AT_A_TIME, "{held} at a time in {batch}");
        }
    }
}
