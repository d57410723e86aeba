//! Unsolicited result codes: lines that a modem sends when nobody asked.
//!
//! Known ones are taken out before a reply is put together. An unknown one stays in the reply, so a value
//! must still be recognised by its pattern (see [`super::dialect`]).

/// Prefixes up to and including the colon, from 3GPP TS 27.007 and 27.005, Telit's guides and gammu's table.
const PREFIXED: &[&str] = &[
    "#CEND:",
    "#CODECINFO:",
    "#ECAM:",
    "#ENS:",
    "#FTPGET:",
    "#HTTPRING:",
    "#JDR:",
    "#MONI:",
    "#MQRING:",
    "#MWI:",
    "#NITZ:",
    "#OTAEV:",
    "#PSNT:",
    "#QSS:",
    "#SLED:",
    "#SRING:",
    "#STN:",
    "#TEMPMEAS:",
    "#TEMPMON:",
    "$GPSR:",
    "*PSUTTZ:",
    "+C5GREG:",
    "+CALA:",
    "+CALV:",
    "+CBM:",
    "+CCWA:",
    "+CDS:",
    "+CDSI:",
    "+CEREG:",
    "+CGEV:",
    "+CGREG:",
    "+CIEV:",
    "+CLIP:",
    "+CMT:",
    "+CMTI:",
    "+CNAP:",
    "+COLP:",
    "+CPSB:",
    "+CRC:",
    "+CREG:",
    "+CRING:",
    "+CSCON:",
    "+CSSI:",
    "+CSSU:",
    "+CTZE:",
    "+CTZEU:",
    "+CTZV:",
    "+CUSD:",
    "+PACSP",
    "DST:",
    "SRING:",
    "^SYSSTART",
];

/// Whole lines.
const BARE: &[&str] =
    &["+SIM READY", "BLOCKED", "NORMAL POWER DOWN", "POWERED DOWN", "RDY", "RING", "SHUTDOWN"];

/// NMEA sentences, where somebody turned the receiver on and left it on the AT port.
const NMEA: &[&str] = &["$GP", "$GN", "$GL", "$GA", "$BD", "$PQ", "$PT"];

/// What a line is when nobody asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Single,
    /// The next line belongs to it, whatever it says: the text of an SMS or a cell broadcast, which
    /// anybody may write and which may well read `OK`.
    WithText,
}

/// Whether `line` is unsolicited while `command` (without `AT`) is waited for.
///
/// A line that starts with the waited-for command's own name is an answer: `+CEREG: 0,1` and the unsolicited
/// `+CEREG: 1` cannot be told apart here, only by their fields.
pub fn classify(line: &str, command: &str) -> Option<Kind> {
    if let Some(prefix) = PREFIXED.iter().find(|prefix| line.starts_with(**prefix)) {
        return match *prefix {
            own if is_answer_to(own, command) => None,
            "+CMT:" | "+CDS:" | "+CBM:" => Some(Kind::WithText),
            _ => Some(Kind::Single),
        };
    }
    let known = BARE.contains(&line) || NMEA.iter().any(|prefix| line.starts_with(prefix));
    known.then_some(Kind::Single)
}

fn is_answer_to(prefix: &str, command: &str) -> bool {
    let name = prefix.trim_end_matches(':');
    let asked = command.split(['?', '=']).next().unwrap_or(command);
    asked.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_are_unsolicited_unless_asked_for() {
        assert_eq!(classify("+CEREG: 1", "#SWPKGV"), Some(Kind::Single));
        assert_eq!(classify("+CEREG: 0,1", "+CEREG?"), None);
        assert_eq!(classify("+CGREG: 1", "+CEREG?"), Some(Kind::Single));
        assert_eq!(classify("#QSS: 1", "#QSS?"), None);
        assert_eq!(classify("+CMT: \"+1\",,\"\"", "+CGMI"), Some(Kind::WithText));
        assert_eq!(classify("RING", "+CGMI"), Some(Kind::Single));
        assert_eq!(classify("RINGING", "+CGMI"), None);
        assert_eq!(classify("$GPGSV,1,1", "+CGMI"), Some(Kind::Single));
    }

    #[test]
    fn values_are_never_unsolicited() {
        for value in ["Telit", "FN990A28", "351234567890123", "45.00.012", "M0R.010002", "OK"] {
            assert_eq!(classify(value, "+CGMR"), None, "{value}");
        }
    }
}
