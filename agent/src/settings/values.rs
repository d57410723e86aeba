//! Texts of options, read: what each may look like.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;

use super::types::SpkiPin;

pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    if text.is_empty() {
        return Err("is missing; expected https://host[:port]/".to_owned());
    }
    let url = Url::parse(text).map_err(|e| format!("{text:?}: {e}"))?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    if url.scheme() == "https" && url.has_host() && bare && nobody {
        Ok(url)
    } else {
        Err(format!("{text:?}: expected https://host[:port]/ and nothing more"))
    }
}

/// # Errors
/// It is not `sha256//` and a digest in base64.
pub fn parse_pin(text: &str) -> Result<SpkiPin, String> {
    text.strip_prefix("sha256//")
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .and_then(|digest| digest.try_into().ok())
        .map(SpkiPin)
        .ok_or_else(|| format!("{text:?}: expected sha256// and the digest in base64"))
}

/// A name that becomes an argument or a file name: nothing a shell or an option parser minds.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && text.len() <= 64 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a plain name"))
    }
}

pub(super) fn parse_imei(text: &str) -> Result<String, String> {
    if text.len() == 15 && text.bytes().all(|b| b.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not an IMEI of 15 digits"))
    }
}

pub(super) fn parse_usb_path(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'-' | b'.' | b':');
    if !text.is_empty() && text.len() <= 32 && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no place such as 1-1.4 (USB) or 0000:01:00.0 (PCIe)"))
    }
}
