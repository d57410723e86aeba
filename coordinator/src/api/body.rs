//! A JSON object in a request, read field by field, so that every error names its field and all of
//! them are told at once.
//!
//! A field that nobody reads is refused: a misspelt condition is one less, and a batch of everybody.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::{Method, StatusCode, header},
};
use serde_json::{Map, Value};
use shared::ids::OrganizationSlug;
use uuid::Uuid;

use super::error::{ApiError, FieldErrors};

/// The largest JSON body, in bytes: the largest changelog, each character written as `\ud83d\ude00`.
pub const LIMIT: usize = 1 << 20;
/// That of strangers.
pub const SMALL: usize = 16 << 10;

/// What every answer has and nobody sets. Clients send back what they have read.
const ANSWERED: [&str; 3] = ["id", "created", "modified"];
/// Unknown fields that an answer names.
const NAMED: usize = 16;

/// The fields of a body. PATCH may leave any of them out.
#[derive(Debug)]
pub struct Fields {
    given: Map<String, Value>,
    partial: bool,
    errors: FieldErrors,
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let partial = request.method() == Method::PATCH;
        let json = is_json(&request);
        let bytes = Bytes::from_request(request, state).await.map_err(refused)?;
        if bytes.is_empty() {
            return Ok(Self::new(Map::new(), partial));
        }
        if !json {
            return Err(ApiError::unsupported_media_type("application/json"));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(given)) => Ok(Self::new(given, partial)),
            Ok(_) => Err(ApiError::field("non_field_errors", "Expected a JSON object.")),
            Err(error) => Err(ApiError::bad_request(format!("JSON parse error: {error}."))),
        }
    }
}

fn is_json(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    })
}

fn refused(rejection: BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::too_large(LIMIT as u64);
    }
    ApiError::bad_request("The request's body could not be read.")
}

impl Fields {
    pub fn new(given: Map<String, Value>, partial: bool) -> Self {
        Self { given, partial, errors: FieldErrors::new() }
    }

    /// Reads `field` if it is there.
    pub fn optional<T>(
        &mut self,
        field: &str,
        parse: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.given.remove(field)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.refuse(field, message);
                None
            }
        }
    }

    /// Reads `field`, which must be there unless this is a PATCH.
    pub fn required<T>(
        &mut self,
        field: &str,
        parse: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        if !self.partial && !self.given.contains_key(field) {
            self.refuse(field, "This field is required.");
        }
        self.optional(field, parse)
    }

    /// Leaves fields out that the answers have and nobody sets.
    pub fn ignore(&mut self, fields: &[&str]) {
        for field in fields {
            self.given.remove(*field);
        }
    }

    /// Reads `field` if it is there, which must be `value`: it never changes.
    pub fn fixed(&mut self, field: &str, value: impl Into<Value>) {
        if self.given.remove(field).is_some_and(|given| given != value.into()) {
            self.refuse(field, "This field cannot be changed.");
        }
    }

    pub fn refuse(&mut self, field: &str, message: impl Into<String>) {
        self.errors.entry(field.to_owned()).or_default().push(message.into());
    }

    /// Fails with every message so far, and with every field that nobody has read.
    pub fn finish(mut self) -> Result<(), ApiError> {
        self.ignore(&ANSWERED);
        let unknown: Vec<_> = self.given.keys().take(NAMED).map(|name| shown(name)).collect();
        for name in unknown {
            self.refuse(&name, "Unknown field.");
        }
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::fields(self.errors)) }
    }
}

/// A strange name, as far as it is repeated.
pub fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

/// A name or the like, of 1 to `limit` characters: what is around it is no part of it.
pub fn text(limit: usize) -> impl FnOnce(Value) -> Result<String, String> {
    move |value| match line(limit)(value)? {
        text if text.is_empty() => Err("This field may not be blank.".into()),
        text => Ok(text),
    }
}

/// As [`text`], or nothing.
pub fn line(limit: usize) -> impl FnOnce(Value) -> Result<String, String> {
    move |value| {
        let value = match value {
            Value::String(text) => Value::from(text.trim()),
            other => other,
        };
        let text = any_text(limit)(value)?;
        if text.chars().any(char::is_control) {
            return Err("Control characters are not allowed.".into());
        }
        Ok(text)
    }
}

/// A text of up to `limit` characters, as it is.
pub fn any_text(limit: usize) -> impl FnOnce(Value) -> Result<String, String> {
    move |value| match value {
        Value::String(text) if text.chars().count() > limit => {
            Err(format!("Ensure this field has no more than {limit} characters."))
        }
        Value::String(text) if text.contains('\0') => {
            Err("Null characters are not allowed.".into())
        }
        Value::String(text) => Ok(text),
        Value::Null => Err("This field may not be null.".into()),
        _ => Err("Not a valid string.".into()),
    }
}

/// A device's tag, of up to `limit` characters; a comma separates it from the next one in a query.
pub fn tag(limit: usize) -> impl Fn(Value) -> Result<String, String> + Copy {
    move |value| match text(limit)(value)? {
        tag if tag.contains(',') => {
            Err(format!("{tag:?} has a comma, which no tag has: give each by itself."))
        }
        tag => Ok(tag),
    }
}

/// An id.
pub fn id<T: From<Uuid>>(value: Value) -> Result<T, String> {
    let id = match &value {
        Value::Null => return Err("This field may not be null.".into()),
        Value::String(text) => Uuid::try_parse(text).ok(),
        _ => None,
    };
    id.map(T::from).ok_or_else(|| "Must be a valid UUID.".into())
}

/// `null`, or what `parse` takes.
pub fn nullable<T>(
    parse: impl FnOnce(Value) -> Result<T, String>,
) -> impl FnOnce(Value) -> Result<Option<T>, String> {
    |value| if value.is_null() { Ok(None) } else { parse(value).map(Some) }
}

/// A whole number from `0` to `limit`.
pub fn up_to(limit: u8) -> impl FnOnce(Value) -> Result<u8, String> {
    move |value| match value.as_u64().map(u8::try_from) {
        Some(Ok(number)) if number <= limit => Ok(number),
        Some(_) => Err(format!("Ensure this value is less than or equal to {limit}.")),
        None => Err("A valid integer is required.".into()),
    }
}

/// A time to come, as RFC 3339, in unix milliseconds.
pub fn later_than(now: u64) -> impl FnOnce(Value) -> Result<u64, String> {
    move |value| {
        let time = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let time = time.ok_or("Enter a valid date and time, as RFC 3339.")?;
        match u64::try_from(time.as_millisecond()) {
            Ok(time) if time > now => Ok(time),
            _ => Err("This time is over.".into()),
        }
    }
}

/// One of a few words.
pub fn word<T: std::str::FromStr>(value: Value) -> Result<T, String> {
    let text = value.as_str().ok_or("Not a valid string.")?;
    text.parse().map_err(|_| format!("{text:?} is not a valid choice."))
}

/// An organization's slug.
pub fn slug(value: Value) -> Result<OrganizationSlug, String> {
    let slug = value.as_str().and_then(|text| text.parse().ok());
    slug.ok_or_else(|| "Enter an organization's slug.".into())
}

/// A JSON object.
pub fn object(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err("Expected a JSON object.".into()),
    }
}

/// A list of up to `most` of what `parse` takes.
pub fn list<T>(
    most: usize,
    parse: impl Fn(Value) -> Result<T, String>,
) -> impl FnOnce(Value) -> Result<Vec<T>, String> {
    move |value| match value {
        Value::Array(values) if values.len() > most => {
            Err(format!("Ensure this field has no more than {most} elements."))
        }
        Value::Array(values) => values.into_iter().map(parse).collect(),
        _ => Err("Expected a list of items.".into()),
    }
}

/// A boolean.
pub fn boolean(value: Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "Must be a valid boolean.".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value, partial: bool) -> Fields {
        Fields::new(object(value).unwrap(), partial)
    }

    #[test]
    fn all_errors_are_told_with_their_fields() {
        let mut body = fields(json!({"name": 5, "category": "x", "percent": 101}), false);
        assert_eq!(body.required("name", text(10)), None);
        assert_eq!(body.required::<Uuid>("category", id), None);
        assert_eq!(body.optional("percent", up_to(100)), None);
        assert_eq!(body.required("version", text(10)), None);
        assert_eq!(body.optional("absent", text(10)), None);
        assert_eq!(
            body.finish().unwrap_err().body,
            json!({
                "name": ["Not a valid string."],
                "category": ["Must be a valid UUID."],
                "percent": ["Ensure this value is less than or equal to 100."],
                "version": ["This field is required."],
            })
        );
    }

    #[test]
    fn a_patch_may_leave_fields_out_but_not_blank_them() {
        let mut body = fields(json!({"version": " "}), true);
        assert_eq!(body.required("name", text(10)), None);
        assert_eq!(body.required("version", text(10)), None);
        assert_eq!(
            body.finish().unwrap_err().body,
            json!({"version": ["This field may not be blank."]})
        );
    }

    #[test]
    fn names_are_trimmed_and_have_no_control_characters() {
        let long = format!(" {}\n", "ü".repeat(10));
        let given =
            json!({"name": " a b\t", "long": long, "tab": "a\tb", "null": "a\0", "empty": " "});
        let mut body = fields(given, false);
        assert_eq!(body.required("name", text(10)).as_deref(), Some("a b"));
        assert_eq!(body.required("long", text(10)).as_deref(), Some("üüüüüüüüüü"));
        assert_eq!(body.required("empty", line(10)).as_deref(), Some(""));
        assert_eq!(body.required("tab", text(10)), None);
        assert_eq!(body.required("null", line(10)), None);
        let told = json!({
            "tab": ["Control characters are not allowed."],
            "null": ["Null characters are not allowed."],
        });
        assert_eq!(body.finish().unwrap_err().body, told);
    }

    #[test]
    fn what_nobody_reads_is_refused_by_name() {
        let body = json!({"tag": "a", "grup": "x", "id": 5, "created": "now", "modified": null});
        let mut body = fields(body, true);
        assert_eq!(body.optional("tag", text(10)).as_deref(), Some("a"));
        let refused = body.finish().unwrap_err().body;
        assert_eq!(refused, json!({"grup": ["Unknown field."]}));
        let many: Map<_, _> = (0..99).map(|n| (format!("{n:080}"), Value::Null)).collect();
        let refused = Fields::new(many, true).finish().unwrap_err().body;
        let named = refused.as_object().unwrap();
        assert!(named.len() <= NAMED && named.keys().all(|name| name.len() == 64));
    }

    #[test]
    fn what_was_read_may_come_back() {
        let read = || fields(json!({"slug": "north", "name": "North", "last_login": "now"}), false);
        let mut body = read();
        body.ignore(&["last_login"]);
        body.fixed("slug", "north");
        body.fixed("absent", 5);
        assert_eq!(body.required("name", text(10)).as_deref(), Some("North"));
        body.finish().unwrap();
        let mut body = read();
        body.ignore(&["last_login", "name"]);
        body.fixed("slug", "south");
        let refused = body.finish().unwrap_err().body;
        assert_eq!(refused, json!({"slug": ["This field cannot be changed."]}));
    }

    #[test]
    fn null_is_told_from_absent() {
        let mut body = fields(json!({"image": null}), true);
        assert_eq!(body.optional("image", nullable(id::<Uuid>)), Some(None));
        assert_eq!(body.optional("image", nullable(id::<Uuid>)), None);
        body.finish().unwrap();
    }
}
