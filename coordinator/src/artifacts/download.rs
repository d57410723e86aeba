//! A stored file as an HTTP answer: whole, a range, or only its headers.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    ops::Range,
    os::unix::fs::FileExt,
    sync::Arc,
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use rustix::io::ReadWriteFlags;
use shared::hex::Sha256;
use tokio::task;

use super::{ArtifactError, Artifacts, range};

/// Read from the page cache at a time: fits the CPU's cache, and bounds what a slow client holds.
const WARM_CHUNK: u64 = 128 << 10;
/// Read from the disk at a time, where each read costs a trip to another thread.
const COLD_CHUNK: u64 = 256 << 10;

/// An open stored file.
#[derive(Debug, Clone)]
pub struct Stored {
    file: Arc<File>,
    sha256: Sha256,
    /// Bytes.
    pub size: u64,
}

impl Artifacts {
    /// Opens a stored file; `None` when there is none of that hash.
    pub async fn stored(&self, sha256: Sha256) -> Result<Option<Stored>, ArtifactError> {
        let path = self.0.path(sha256);
        let opened = task::spawn_blocking(move || {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        });
        match opened.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok((file, size)) => Ok(Some(Stored { file: Arc::new(file), sha256, size })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Stored {
    /// Reads the file from its beginning, in blocks of `size` bytes, each handed to `check` with its
    /// number. Blocking.
    pub fn blocks<E: From<io::Error>>(
        &self,
        size: u64,
        mut check: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut block = buffer(&(0..self.size), size);
        for (number, start) in (0..self.size).step_by(block.len().max(1)).enumerate() {
            let length = buffer_length(&(start..self.size), size);
            self.file.read_exact_at(&mut block[..length], start)?;
            check(number, &block[..length])?;
        }
        Ok(())
    }

    /// Answers GET and HEAD with `Range`, `If-Range` and `If-None-Match` honoured.
    /// `name` is offered to browsers as the file's name.
    pub fn respond(self, method: &Method, request: &HeaderMap, name: &str) -> Response {
        let etag = format!("\"{}\"", self.sha256);
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        insert(headers, header::ETAG, &etag);
        if text(request, header::IF_NONE_MATCH).is_some_and(|known| names(known, &etag)) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        insert(headers, header::CONTENT_DISPOSITION, &attachment(name));
        let (status, part) = match self.asked(method, request, &etag) {
            range::Asked::Whole => (StatusCode::OK, 0..self.size),
            range::Asked::Part(part) => {
                let value = format!("bytes {}-{}/{}", part.start, part.end - 1, self.size);
                insert(headers, header::CONTENT_RANGE, &value);
                (StatusCode::PARTIAL_CONTENT, part)
            }
            range::Asked::Unsatisfiable => {
                insert(headers, header::CONTENT_RANGE, &format!("bytes */{}", self.size));
                (StatusCode::RANGE_NOT_SATISFIABLE, 0..0)
            }
        };
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
        *response.status_mut() = status;
        if method != Method::HEAD {
            *response.body_mut() = Body::from_stream(chunks(self.file, part));
        }
        response
    }

    /// `Range` is defined for GET alone, and counts only while `If-Range` names this very file.
    fn asked(&self, method: &Method, request: &HeaderMap, etag: &str) -> range::Asked {
        let unchanged = text(request, header::IF_RANGE).is_none_or(|known| known.trim() == etag);
        match text(request, header::RANGE) {
            Some(wanted) if unchanged && method == Method::GET => range::asked(wanted, self.size),
            _ => range::Asked::Whole,
        }
    }
}

/// The bytes of `part`, one chunk in memory at a time.
fn chunks(file: Arc<File>, part: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((file, part), |(file, part)| async move {
        if part.is_empty() {
            return Ok(None);
        }
        let chunk = match cached(&file, &part) {
            Some(chunk) => chunk,
            None => {
                let (file, part) = (file.clone(), part.clone());
                task::spawn_blocking(move || from_disk(&file, &part))
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)))?
            }
        };
        let rest = part.start + chunk.len() as u64..part.end;
        Ok(Some((chunk, (file, rest))))
    })
}

/// What the page cache holds of the beginning of `part`, without ever waiting for the disk.
/// `None` also where the file system does not know such reads.
fn cached(file: &File, part: &Range<u64>) -> Option<Bytes> {
    let mut buffer = buffer(part, WARM_CHUNK);
    let read = rustix::io::preadv2(
        file,
        &mut [IoSliceMut::new(&mut buffer)],
        part.start,
        ReadWriteFlags::NOWAIT,
    )
    .ok()?;
    buffer.truncate(read);
    (read > 0).then(|| buffer.into())
}

fn from_disk(file: &File, part: &Range<u64>) -> io::Result<Bytes> {
    let mut buffer = buffer(part, COLD_CHUNK);
    let read = file.read_at(&mut buffer, part.start)?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.truncate(read);
    Ok(buffer.into())
}

fn buffer(part: &Range<u64>, chunk: u64) -> Vec<u8> {
    vec![0; buffer_length(part, chunk)]
}

fn buffer_length(part: &Range<u64>, chunk: u64) -> usize {
    usize::try_from((part.end - part.start).min(chunk)).unwrap_or(usize::MAX)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether an `If-None-Match` list names the tag (RFC 9110: weak comparison).
fn names(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn attachment(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = name.chars().map(|c| if safe(c) { c } else { '_' }).collect();
    format!("attachment; filename=\"{name}\"")
}
