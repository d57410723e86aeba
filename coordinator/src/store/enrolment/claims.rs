//! What a device says of itself, made fit to be shown and to be compared. Pure.

use shared::identity::Claims;

/// Bytes of a name that a device gives itself.
const NAME: usize = 64;

/// Claims as far as they can be shown and compared; they are hints.
pub(super) struct Plain {
    pub name: Option<String>,
    pub board: Option<String>,
    pub mac: Option<String>,
    pub serial: Option<String>,
}

impl From<&Claims> for Plain {
    fn from(claims: &Claims) -> Self {
        Self {
            name: plain(&claims.hostname),
            board: plain(&claims.board),
            mac: claims.mac.as_deref().and_then(mac),
            serial: claims.serial.as_deref().and_then(serial),
        }
    }
}

fn plain(text: &str) -> Option<String> {
    let mut plain: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    while plain.len() > NAME {
        plain.pop();
    }
    (!plain.is_empty()).then_some(plain)
}

/// What firmware says where nobody wrote a serial number: letters and digits only, lower case.
const NO_SERIALS: [&str; 16] = [
    "none",
    "null",
    "na",
    "nil",
    "unknown",
    "default",
    "defaultstring",
    "empty",
    "invalid",
    "serial",
    "serialnumber",
    "systemserialnumber",
    "notspecified",
    "notapplicable",
    "notavailable",
    "tobefilledbyoem",
];

/// None for what cannot tell devices apart.
fn serial(text: &str) -> Option<String> {
    let serial = plain(text)?;
    let word: String =
        serial.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let mut digits = word.chars();
    let repeated = digits.next().is_none_or(|first| digits.all(|digit| digit == first));
    let counted = "1234567890".starts_with(&word) || "0123456789".starts_with(&word);
    let usable = !repeated && !counted && !NO_SERIALS.contains(&word.as_str());
    usable.then_some(serial)
}

/// `00:11:22:aa:bb:cc`, whatever way it was written; None for what cannot tell devices apart.
fn mac(text: &str) -> Option<String> {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b':' | b'-')).collect();
    let usable = digits.len() == 12
        && digits.iter().all(u8::is_ascii_hexdigit)
        && digits.iter().any(|digit| !matches!(digit, b'0'))
        && digits.iter().any(|digit| !matches!(digit, b'f' | b'F'));
    let pairs = digits.chunks(2).map(|pair| String::from_utf8_lossy(pair).to_lowercase());
    usable.then(|| pairs.collect::<Vec<_>>().join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_has_one_spelling() {
        for text in ["00:11:22:AA:bb:cc", "00-11-22-aa-bb-cc", "001122aabbcc"] {
            assert_eq!(mac(text).unwrap(), "00:11:22:aa:bb:cc");
        }
        for text in
            ["", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "00:11:22:aa:bb", "zz:11:22:aa:bb:cc"]
        {
            assert_eq!(mac(text), None, "{text}");
        }
    }

    #[test]
    fn a_serial_that_many_have_is_none() {
        for text in ["", "0", "0000", "N/A", "None", "To be filled by O.E.M.", "0123456789", "---"]
        {
            assert_eq!(serial(text), None, "{text}");
        }
        assert_eq!(serial(" RN-00123 "), Some("RN-00123".into()));
    }

    #[test]
    fn names_are_plain_and_short() {
        assert_eq!(plain(" a\u{1b}[31mb\n "), Some("a[31mb".into()));
        assert_eq!(plain("\n"), None);
        assert!(plain(&"ä".repeat(100)).unwrap().len() <= NAME);
    }
}
