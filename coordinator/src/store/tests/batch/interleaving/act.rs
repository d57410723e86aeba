//! What can happen.

use proptest::strategy::Strategy;

use super::*;

/// One thing that happens; the numbers choose devices and their journals.
#[derive(Debug, Clone)]
pub enum Act {
    Fly,
    /// A pilot that fills waves with one member a turn, and remembers what is left to do until a crash.
    FlyATurn,
    /// One of those whose wave is open asks for its next attempt, as agents do; if it may, that comes to this.
    Work(usize, Word, Journal),
    /// For an attempt, whichever it is in.
    Ask(usize, u32, Journal),
    /// Number, attempt and word.
    Tell(usize, u64, u32, Word, Journal),
    /// Whoever was granted hands it back, and says so under this number: 0 is never taken.
    HandBack(usize, u64, Journal),
    /// One of those that have handed a grant back says so once more.
    SayAgain(usize),
    Pause,
    Resume,
    /// The first of what a resumption does beforehand, and no more: it broke off.
    Forgive,
    /// And so many of the members are taken back at once; the others have to be seen to.
    Cancel(usize),
    Crash,
    Pass(u64),
    /// The clock is set back.
    Back(u64),
    Hold(usize, bool),
    Newer(usize),
    See(usize),
    SeeAll,
    Script(usize),
    Expire,
    /// What failed in a batch that is over; it may be cancelled for that.
    Retry(bool),
    /// Another batch of all of them; so many join by its launch, the others have to be seen to.
    Over(usize),
}

/// Of a device: the first one's, and that of its agent after it was installed anew.
pub type Journal = u128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Entered,
    Retrying,
    /// Once more, how many grants it has handed back.
    Returned,
    Recovering,
    Held,
    Succeeded,
    AlreadyInstalled,
    Failed,
    Untouched,
    Cancelled,
}

impl Word {
    /// As a milestone of a journal that has handed so many grants back.
    pub fn body(self, returned: u32) -> EventBody {
        let failure = |condition| {
            Failure::new(Phase::Installing, FailureKind::ToolFailed, condition, "it broke")
        };
        let outcome = match self {
            Self::Entered => return EventBody::Entered { phase: Phase::Downloading },
            Self::Retrying => {
                let failure = failure(ModemCondition::OldVersion);
                return EventBody::Retrying { failure, delay_s: 1 };
            }
            Self::Returned => return EventBody::Returned { reason: "too hot".into(), returned },
            Self::Recovering => {
                return EventBody::Recovering { tries: 1, detail: "in download mode".into() };
            }
            Self::Held => return EventBody::Held { reason: "it waits for a person".into() },
            Self::Succeeded => return succeeded(),
            Self::AlreadyInstalled => Outcome::AlreadyInstalled { versions: versions() },
            Self::Failed => Outcome::Failed { failure: failure(ModemCondition::Silent) },
            Self::Untouched => Outcome::Failed {
                failure: Failure::untouched(Phase::Downloading, FailureKind::NoSpace, "full"),
            },
            Self::Cancelled => Outcome::Cancelled,
        };
        EventBody::Finished { outcome }
    }

    pub fn is_the_end(self) -> bool {
        match self {
            Self::Succeeded
            | Self::AlreadyInstalled
            | Self::Failed
            | Self::Untouched
            | Self::Cancelled => true,
            Self::Entered | Self::Retrying | Self::Returned | Self::Recovering | Self::Held => {
                false
            }
        }
    }
}

pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    let device = 0..DEVICES;
    let journal = prop_oneof![5 => Just(1), 1 => Just(2)];
    let word = prop_oneof![
        1 => Just(Word::Entered),
        1 => Just(Word::Retrying),
        3 => Just(Word::Returned),
        7 => prop_oneof![Just(Word::Recovering), Just(Word::Held)],
        16 => Just(Word::Succeeded),
        1 => Just(Word::AlreadyInstalled),
        2 => Just(Word::Failed),
        1 => Just(Word::Untouched),
        1 => Just(Word::Cancelled),
    ];
    let ask = (device.clone(), 1..3_u32, journal.clone());
    let tell = (device.clone(), 1..5_u64, 0..3_u32, word.clone(), journal.clone());
    let act = prop_oneof![
        10 => prop_oneof![3 => Just(Act::Fly), 1 => Just(Act::FlyATurn)],
        20 => (device.clone(), word, journal.clone())
            .prop_map(|(device, word, journal)| Act::Work(device, word, journal)),
        4 => ask.prop_map(|(device, attempt, journal)| Act::Ask(device, attempt, journal)),
        6 => tell.prop_map(|(device, seq, attempt, word, journal)| {
            Act::Tell(device, seq, attempt, word, journal)
        }),
        3 => (device.clone(), 0..5_u64, journal)
            .prop_map(|(device, seq, journal)| Act::HandBack(device, seq, journal)),
        2 => device.clone().prop_map(Act::SayAgain),
        1 => Just(Act::Pause),
        2 => Just(Act::Resume),
        5 => Just(Act::Forgive),
        1 => Just(Act::Crash),
        4 => prop_oneof![1 => Just(1), 4 => Just(11_000), 1 => Just(4_000_000), 1 => Just(90_000_000)]
            .prop_map(Act::Pass),
        1 => prop_oneof![Just(11_000), Just(4_000_000)].prop_map(Act::Back),
        1 => (device.clone(), any::<bool>()).prop_map(|(device, held)| Act::Hold(device, held)),
        1 => device.clone().prop_map(Act::Newer),
        1 => device.clone().prop_map(Act::See),
        2 => Just(Act::SeeAll),
        1 => device.prop_map(Act::Script),
        4 => any::<bool>().prop_map(Act::Retry),
        2 => prop_oneof![
            3 => (0..3_usize).prop_map(Act::Cancel),
            1 => Just(Act::Expire),
            2 => (1..DEVICES).prop_map(Act::Over),
        ],
    ];
    proptest::collection::vec(act, 20..80)
}
