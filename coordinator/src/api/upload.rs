//! A multipart request that carries firmware: the file goes to disk as it comes, the small parts
//! are kept.

use axum::{
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    http::{StatusCode, header},
};
use shared::limits;

use super::{
    App,
    body::shown,
    error::{Answer, ApiError},
};
use crate::artifacts::{Artifacts, Received};

/// What may come on top of the file: the other parts and the multipart envelope, in bytes.
pub const OVERHEAD: u64 = 1 << 20;
const TEXT: usize = 64 << 10;
const MOST_PARTS: usize = 256;

/// A multipart body that nobody has read yet.
pub struct Incoming {
    body: Multipart,
    /// Bytes, by its Content-Length.
    length: Option<u64>,
}

/// The parts, each of which may be absent.
#[derive(Debug, Default)]
pub struct Parts {
    pub file: Option<(String, Received)>,
    pub tool: Option<String>,
    pub boards: Option<Vec<String>>,
    pub manifest: Option<Vec<u8>>,
    pub signature: Option<String>,
}

impl FromRequest<App> for Incoming {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Multipart::from_request(request, app).await;
        let body = body.map_err(|_| ApiError::unsupported_media_type("multipart/form-data"))?;
        Ok(Self { body, length })
    }
}

impl Incoming {
    /// Reads everything. A file is only taken where there is a store for it.
    pub async fn read(mut self, artifacts: Option<&Artifacts>) -> Answer<Parts> {
        let mut parts = Parts::default();
        let mut count = 0;
        while let Some(field) = self.body.next_field().await.map_err(broken)? {
            count += 1;
            if count > MOST_PARTS {
                return Err(ApiError::bad_request(format!("More than {MOST_PARTS} parts.")));
            }
            let name = field.name().unwrap_or_default().to_owned();
            match (name.as_str(), artifacts) {
                ("file", Some(artifacts)) if parts.file.is_none() => {
                    parts.file = Some(to_disk(field, artifacts, self.length).await?);
                }
                ("type", _) => parts.tool = Some(text(field, &name, TEXT).await?),
                ("boards", _) => {
                    let more = text(field, &name, TEXT).await?;
                    parts.boards.get_or_insert_default().extend(boards(&more)?);
                }
                ("manifest", _) => {
                    parts.manifest = Some(small(field, &name, limits::MANIFEST).await?);
                }
                ("signature", _) => {
                    parts.signature = Some(text(field, &name, limits::SIGNATURE).await?);
                }
                // The URL says which.
                ("file" | "build", _) => drop(small(field, &name, TEXT).await?),
                _ => return Err(ApiError::field(&shown(&name), "Unknown field.")),
            }
        }
        Ok(parts)
    }
}

async fn to_disk(
    mut field: Field<'_>,
    artifacts: &Artifacts,
    length: Option<u64>,
) -> Answer<(String, Received)> {
    let name: String = field.file_name().unwrap_or("firmware.bin").chars().take(255).collect();
    let mut upload = artifacts.upload(length.map(|length| length.saturating_sub(OVERHEAD)))?;
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        upload.write(chunk).await?;
    }
    let received = upload.finish().await?;
    if received.size == 0 {
        return Err(ApiError::field("file", "The submitted file is empty."));
    }
    Ok((name, received))
}

async fn small(mut field: Field<'_>, name: &str, limit: usize) -> Answer<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        if bytes.len() + chunk.len() > limit {
            return Err(ApiError::field(name, format!("More than {limit} bytes.")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn text(field: Field<'_>, name: &str, limit: usize) -> Answer<String> {
    let bytes = small(field, name, limit).await?;
    String::from_utf8(bytes).map_err(|_| ApiError::field(name, "Not valid UTF-8."))
}

/// A JSON list of names, or one name as it is.
fn boards(text: &str) -> Answer<Vec<String>> {
    let refused = || ApiError::field("boards", "Expected a JSON list of board names.");
    let names: Vec<String> = match text.trim() {
        "" => Vec::new(),
        json if json.starts_with(['[', '{', '"']) => {
            serde_json::from_str(json).map_err(|_| refused())?
        }
        name => vec![name.to_owned()],
    };
    let fits = |name: &String| (1..=128).contains(&name.len()) && !name.contains(char::is_control);
    if names.iter().all(fits) { Ok(names) } else { Err(refused()) }
}

fn broken(error: MultipartError) -> ApiError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::too_large_body();
    }
    ApiError::bad_request(format!("The multipart body is broken: {}", error.body_text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_are_a_json_list_or_a_name() {
        assert_eq!(boards(r#"["a","b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(boards("glinet,x3000").unwrap(), ["glinet,x3000"]);
        assert!(boards("").unwrap().is_empty());
        for bad in ["[1]", r#"{"a":1}"#, r#"["a"#, r#"["\u0000"]"#, r#"[""]"#] {
            assert!(boards(bad).unwrap_err().body.get("boards").is_some(), "{bad}");
        }
    }
}
