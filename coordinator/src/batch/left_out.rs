//! Why a modem that was chosen for a batch is no member of it after all.

use serde::{Deserialize, Serialize};

use super::verdict::Reason;

/// What has come between the look and the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// Its device is not of the selection any more.
    NotSelected,
    /// Somebody has asked for something else for it.
    AskedSince,
    /// The batch was taken back, or its time was over.
    BatchEnded,
    OptionsRefused,
    /// A dry run would say so by then.
    #[serde(untagged)]
    Unfit(Reason),
}

impl LeftOut {
    /// A sentence, as of a dry run.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NotSelected => "The device has left the selection.",
            Self::AskedSince => "Something else was asked for its modem since.",
            Self::BatchEnded => "The batch ended before an older upgrade of the modem gave way.",
            Self::OptionsRefused => "The options of the batch are not good.",
            Self::Unfit(reason) => reason.detail(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_a_word() {
        for (reason, word) in [
            (LeftOut::AskedSince, "\"asked_since\""),
            (LeftOut::Unfit(Reason::Deactivated), "\"deactivated\""),
        ] {
            assert_eq!(serde_json::to_string(&reason).unwrap(), word);
            assert_eq!(serde_json::from_str::<LeftOut>(word).unwrap(), reason);
        }
    }
}
