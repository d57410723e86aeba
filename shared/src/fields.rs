//! Reading enums whose tag stands among their fields, `{"result": "refused", "reason": "..."}`.
//!
//! serde's own way copies all that is in the object first and reads the copy, so that everything that may stand
//! in it has its code twice: 130 kB of a router's binary. Here every field of every variant is read at once, which
//! wants a field to have one type in all of them, also in those of later versions.

use thiserror::Error;

/// The tag names a variant whose field is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("missing field `{0}`")]
pub struct Missing(pub &'static str);

/// A field that its variant must have.
///
/// # Errors
/// It is not there.
pub fn needed<T>(name: &'static str, field: Option<T>) -> Result<T, Missing> {
    field.ok_or(Missing(name))
}

#[cfg(test)]
mod tests {
    use crate::{
        ack::{Ack, Verdict},
        desired::OptionValue,
        event::{EventBody, Outcome},
    };
    use serde::de::DeserializeOwned;
    use std::fmt::Debug;

    fn refusal<T: DeserializeOwned + Debug>(text: &str) -> String {
        serde_json::from_str::<T>(text).unwrap_err().to_string()
    }

    #[test]
    fn a_variant_without_its_field_is_refused() {
        for (text, field) in [
            (r#"{"type": "entered"}"#, "phase"),
            (r#"{"type": "postponed", "phase": "probing"}"#, "reason"),
            (r#"{"type": "returned", "reason": "hot"}"#, "returned"),
            (r#"{"type": "retrying", "delay_s": 1}"#, "failure"),
            (r#"{"type": "recovering", "tries": 1}"#, "detail"),
            (r#"{"type": "finished", "outcome": {"result": "failed"}}"#, "failure"),
            (r#"{"phase": "probing"}"#, "type"),
        ] {
            let refusal = refusal::<EventBody>(text);
            assert!(refusal.contains(&format!("missing field `{field}`")), "{text}: {refusal}");
        }
        for text in [r#"{"result": "succeeded"}"#, r#"{"result": "already_installed"}"#] {
            assert!(refusal::<Outcome>(text).contains("missing field `versions`"));
        }
    }

    #[test]
    fn what_is_of_a_newer_version_is_unknown() {
        let newer = r#"{"type": "teleported", "to": [1, {"x": null}], "reason": "new"}"#;
        assert_eq!(serde_json::from_str::<EventBody>(newer).unwrap(), EventBody::Unknown);
        let newer = r#"{"result": "half", "share": 0.5}"#;
        assert_eq!(serde_json::from_str::<Outcome>(newer).unwrap(), Outcome::Unknown);
        let id = "01010101-0101-4101-8101-010101010101";
        let newer =
            format!(r#"{{"operation": "{id}", "stream": "{id}", "seq": 1, "result": "later"}}"#);
        assert_eq!(serde_json::from_str::<Ack>(&newer).unwrap().verdict, Verdict::Unknown);
        assert!(refusal::<Ack>(&newer.replace("later", "refused")).contains("`reason`"));
    }

    #[test]
    fn an_option_is_a_flag_a_number_or_a_word() {
        let read = |text| serde_json::from_str::<OptionValue>(text).ok();
        assert_eq!(read("true"), Some(OptionValue::Flag(true)));
        assert_eq!(read("921600"), Some(OptionValue::Number(921_600)));
        assert_eq!(read(r#""921600""#), Some(OptionValue::Word("921600".into())));
        for wrong in ["-1", "1.5", "null", "[]", "{}"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert!(refusal::<OptionValue>("-1").contains("a number from 0"));
    }
}
