//! The body of a request, which has to keep moving: who stops sending in the middle of one holds
//! what the handler holds, an upload its thread.

use std::io;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use futures_util::{Stream, StreamExt, stream};
use tokio::time::timeout;

/// Between two pieces of a body.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The request, whose body fails after a pause of 30 s.
pub(super) async fn keep_moving(request: Request) -> Request {
    request.map(|body| match body.is_end_stream() {
        true => body,
        false => Body::from_stream(pieces(body.into_data_stream(), LONGEST_PAUSE)),
    })
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
}
