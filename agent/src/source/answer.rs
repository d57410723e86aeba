//! Whether an answer's head is what was asked for (RFC 9110, sections 14 and 15). Pure.

use super::SourceError;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, LOCATION};
use reqwest::{StatusCode, Url};

/// Bytes `first..end` of an image of `size` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub first: u64,
    pub end: u64,
    pub size: u64,
}

impl Span {
    pub fn length(&self) -> u64 {
        self.end - self.first
    }

    pub fn header(&self) -> String {
        format!("bytes={}-{}", self.first, self.end - 1)
    }

    fn is_whole(&self) -> bool {
        self.first == 0 && self.end == self.size
    }
}

/// Accepts 206 with exactly the span, or 200 where the span is the whole image.
pub fn check(status: StatusCode, headers: &HeaderMap, span: Span) -> Result<(), SourceError> {
    let other = |text: String| Err(SourceError::OtherImage(text));
    match status {
        StatusCode::PARTIAL_CONTENT => {
            let expected = format!("bytes {}-{}/{}", span.first, span.end - 1, span.size);
            match text(headers, CONTENT_RANGE.as_str()) {
                Some(found) if found.trim() == expected => {}
                found => return other(format!("range {found:?} instead of {expected:?}")),
            }
        }
        StatusCode::OK if span.is_whole() => {}
        StatusCode::OK => return other("the server ignores ranges".into()),
        StatusCode::RANGE_NOT_SATISFIABLE => return other("the server's file is shorter".into()),
        status => return Err(SourceError::status(status, headers)),
    }
    if let Some(found) = text(headers, CONTENT_LENGTH.as_str())
        && found.trim().parse() != Ok(span.length())
    {
        return other(format!("{found} bytes announced instead of {}", span.length()));
    }
    match text(headers, CONTENT_ENCODING.as_str()) {
        None | Some("identity") => Ok(()),
        Some(encoding) => other(format!("encoded as {encoding:?}")),
    }
}

/// Where a redirect leads: over HTTPS, or nowhere.
pub fn redirect(from: &Url, headers: &HeaderMap) -> Result<Url, SourceError> {
    let location = text(headers, LOCATION.as_str()).ok_or(SourceError::Redirect("no location"))?;
    let to = from.join(location).map_err(|_| SourceError::Redirect("not a URL"))?;
    if to.scheme() != "https" {
        return Err(SourceError::Redirect("not over HTTPS"));
    }
    if !to.username().is_empty() || to.password().is_some() {
        return Err(SourceError::Redirect("with a name or password"));
    }
    Ok(to)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderName;

    const SPAN: Span = Span { first: 10, end: 20, size: 30 };
    const WHOLE: Span = Span { first: 0, end: 30, size: 30 };

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_what_was_asked_for_is_accepted() {
        let range = |value| (CONTENT_RANGE, value);
        let (partial, ok) = (StatusCode::PARTIAL_CONTENT, StatusCode::OK);
        for (status, pairs, span, good) in [
            (partial, vec![range("bytes 10-19/30"), (CONTENT_LENGTH, "10")], SPAN, true),
            (partial, vec![range("bytes 10-19/30")], SPAN, true),
            (partial, vec![range("bytes 10-19/30"), (CONTENT_LENGTH, "11")], SPAN, false),
            (partial, vec![range("bytes 10-19/30"), (CONTENT_LENGTH, "-1")], SPAN, false),
            (partial, vec![range("bytes 0-9/30")], SPAN, false),
            (partial, vec![range("bytes 10-19/40")], SPAN, false),
            (partial, vec![range("bytes 10-19/*")], SPAN, false),
            (partial, vec![], SPAN, false),
            (partial, vec![range("bytes 10-19/30"), (CONTENT_ENCODING, "gzip")], SPAN, false),
            (ok, vec![(CONTENT_LENGTH, "30")], WHOLE, true),
            (ok, vec![(CONTENT_LENGTH, "31")], WHOLE, false),
            (ok, vec![(CONTENT_LENGTH, "30")], SPAN, false),
            (StatusCode::RANGE_NOT_SATISFIABLE, vec![], SPAN, false),
        ] {
            let answer = check(status, &headers(&pairs), span);
            assert_eq!(answer.is_ok(), good, "{status} {pairs:?}");
            assert!(good || matches!(answer, Err(SourceError::OtherImage(_))));
        }
    }

    #[test]
    fn redirects_lead_over_https_or_nowhere() {
        let from: Url = "https://hub.example/api/v1/agent/images/x/file".parse().unwrap();
        let to = |location| redirect(&from, &headers(&[(LOCATION, location)]));
        assert_eq!(to("https://cdn.example/a").unwrap().as_str(), "https://cdn.example/a");
        assert_eq!(to("/other").unwrap().as_str(), "https://hub.example/other");
        for bad in
            ["http://cdn.example/a", "file:///etc/shadow", "https://u:p@cdn.example/", "https://"]
        {
            assert!(matches!(to(bad), Err(SourceError::Redirect(_))), "{bad}");
        }
        assert!(redirect(&from, &HeaderMap::new()).is_err());
    }
}
