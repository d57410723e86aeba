//! The body of a request. It has to keep moving: who stops sending in the middle of one holds what the
//! handler holds, an upload its thread. And it is read to its end before the answer goes out: a connection that is
//! closed with something unread takes the answer with it, and its client hears of a broken line instead of a 401.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::stream::{self, Fuse};
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;

/// Between two pieces of a body.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Bytes that are read for nothing, and how long: of an upload that is refused there may be a gigabyte to come.
const UNWANTED: usize = 16 << 20;
const UNWANTED_FOR: Duration = Duration::from_secs(5);

/// The request, whose body fails after a pause of 30 s.
pub(super) async fn keep_moving(request: Request) -> Request {
    request.map(|body| match body.is_end_stream() {
        true => body,
        false => Body::from_stream(pieces(body.into_data_stream(), LONGEST_PAUSE)),
    })
}

/// Answers when what the handler has left of the body is read.
pub(super) async fn read_to_its_end(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|text| text.parse().ok()).unwrap_or(0);
    // Who asks first sends nothing before somebody reads.
    let begun = !request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let rest = Rest(Arc::new(Mutex::new(Left { body: body.into_data_stream().fuse(), begun })));
    let response = next.run(Request::from_parts(head, Body::from_stream(rest.clone()))).await;
    if length <= UNWANTED {
        // What has not come by then is nobody's.
        let _ = timeout(UNWANTED_FOR, rest.drain(UNWANTED)).await;
    }
    response
}

/// A body that is there still when its reader is gone.
#[derive(Clone)]
struct Rest(Arc<Mutex<Left>>);

struct Left {
    /// Nobody may ask it again after its end.
    body: Fuse<BodyDataStream>,
    /// Its client sends, or may do so.
    begun: bool,
}

impl Rest {
    fn lock(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drain(mut self, most: usize) {
        let mut read = 0;
        while self.lock().begun && read <= most {
            match self.next().await {
                Some(Ok(piece)) => read += piece.len(),
                Some(Err(_)) | None => return,
            }
        }
    }
}

impl Stream for Rest {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut left = self.lock();
        left.begun = true;
        Pin::new(&mut left.body).poll_next(context)
    }
}

fn pieces(body: BodyDataStream, pause: Duration) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match timeout(pause, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(body))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use axum::routing::any;
    use axum::{Router, middleware};
    use tower::ServiceExt;

    fn body(pieces: Vec<&'static str>) -> BodyDataStream {
        let pieces = stream::iter(pieces.into_iter().map(Ok::<_, io::Error>));
        Body::from_stream(pieces.chain(stream::pending())).into_data_stream()
    }

    #[tokio::test]
    async fn a_body_that_stops_in_the_middle_fails() {
        let pieces: Vec<_> =
            pieces(body(vec!["a", "b"]), Duration::from_millis(20)).collect().await;
        let read: Vec<_> = pieces[..2].iter().map(|piece| piece.as_ref().unwrap()).collect();
        assert_eq!(read, ["a", "b"]);
        assert_eq!(pieces[2].as_ref().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(pieces.len(), 3);
    }

    #[tokio::test]
    async fn a_whole_body_comes_through() {
        let request = keep_moving(Request::new(Body::from("whole"))).await;
        assert_eq!(axum::body::to_bytes(request.into_body(), 9).await.unwrap(), "whole");
    }

    async fn answered(router: Router, request: Request) -> Response {
        let router = router.layer(middleware::from_fn(read_to_its_end));
        let router = router.layer(middleware::map_request(keep_moving));
        router.oneshot(request).await.unwrap()
    }

    /// By a router that answers without a look at the body.
    async fn refused(request: Request) -> (Arc<Mutex<usize>>, Response) {
        let read = Arc::new(Mutex::new(0));
        let counted = read.clone();
        let request = request.map(|body| {
            Body::from_stream(body.into_data_stream().inspect(move |piece| {
                *counted.lock().unwrap() += piece.as_ref().map_or(0, Bytes::len);
            }))
        });
        let router = Router::new().fallback(any(async || StatusCode::UNAUTHORIZED));
        (read, answered(router, request).await)
    }

    #[tokio::test]
    async fn what_the_handler_has_read_is_not_asked_for_again() {
        let router = Router::new().fallback(any(async |body: String| body));
        let response = answered(router, Request::new(Body::from("whole"))).await;
        assert_eq!(axum::body::to_bytes(response.into_body(), 9).await.unwrap(), "whole");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_wants_is_read_before_the_answer_and_not_without_end() {
        let sent = |header: (&'static str, &'static str), size: usize| {
            let request = Request::builder().header(header.0, header.1);
            refused(request.body(Body::from(vec![0; size])).unwrap())
        };
        for (header, size, expected) in [
            (("content-length", "100000"), 100_000, 100_000),
            (("transfer-encoding", "chunked"), 100_000, 100_000),
            // It waits for a word.
            (("expect", "100-continue"), 100_000, 0),
            (("content-length", "1000000000"), 100_000, 0),
        ] {
            let (read, response) = sent(header, size).await;
            assert_eq!((response.status().as_u16(), *read.lock().unwrap()), (401, expected));
        }
        let endless = stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from(vec![0; 1 << 20])));
        let request = Request::new(Body::from_stream(endless));
        let (read, response) = refused(request).await;
        assert_eq!(
            (response.status().as_u16(), *read.lock().unwrap()),
            (401, UNWANTED + (1 << 20))
        );
        let silent = stream::pending::<io::Result<Bytes>>();
        let (_, response) = refused(Request::new(Body::from_stream(silent))).await;
        assert_eq!(response.status().as_u16(), 401, "it is not waited for for ever");
    }
}
