//! Bodies in and out.
//!
//! Owns: limits on length and on waiting. Does not own: what is in them.

use crate::failure::{Failure, Outcome};
use crate::store::BodyReader;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::{Code, MAX_HASHES, MAX_MESSAGE_BYTES};

/// Longest wait for the next bytes of a body.
const STALL: Duration = Duration::from_secs(60);
/// Frames of a body on their way to a blocking reader, or of a file to a connection.
const FRAMES: usize = 2;
/// Bytes of a refused body that are read so that the answer is seen.
const DRAINED: usize = 256 << 20;

/// A whole body of at most `limit` bytes.
///
/// # Errors
/// It is longer, stalls or breaks off.
pub async fn whole(body: Body, limit: usize) -> Outcome<Vec<u8>> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(frame) = next(&mut stream).await? {
        if bytes.len() + frame.len() > limit {
            return Err(Failure::usage(format!(
                "the message has more than {limit} bytes"
            )));
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes)
}

async fn next(stream: &mut axum::body::BodyDataStream) -> Outcome<Option<Bytes>> {
    match timeout(STALL, stream.next()).await {
        Err(_) => Err(Failure::new(
            Code::ConnectionLost,
            format!("no data for {} s", STALL.as_secs()),
        )),
        Ok(Some(Err(error))) => Err(Failure::new(
            Code::ConnectionLost,
            format!("the request broke off: {error}"),
        )),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(None) => Ok(None),
    }
}

/// A control message.
///
/// # Errors
/// As [`whole`], or it is not what it should be.
pub async fn message<T: DeserializeOwned>(body: Body) -> Outcome<T> {
    message_of(body, MAX_MESSAGE_BYTES).await
}

/// A control message of at most `limit` bytes.
///
/// # Errors
/// As [`message`].
pub async fn message_of<T: DeserializeOwned>(body: Body, limit: usize) -> Outcome<T> {
    let bytes = whole(body, limit).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::usage(format!("the message cannot be read: {e}")))
}

/// A list of hashes.
///
/// # Errors
/// As [`whole`], or it is no whole number of hashes, none, or too many.
pub async fn hashes(body: Body) -> Outcome<Vec<image::Hash>> {
    let bytes = whole(body, MAX_HASHES * 32).await?;
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || hashes.is_empty() {
        return Err(Failure::usage(format!(
            "{} bytes are no list of hashes",
            bytes.len()
        )));
    }
    Ok(hashes.iter().map(|hash| image::Hash(*hash)).collect())
}

/// Length of the body as the request tells it.
pub fn length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Feeds a body to blocking code. A body that breaks off is an error for the reader,
/// never an end. What is left when the reader has failed is read and thrown away, up to
/// a limit: a sender that is cut off in mid-body often does not see the answer.
pub async fn feed<T>(body: Body, work: impl AsyncFnOnce(BodyReader) -> T) -> T {
    feed_and_drain(body, DRAINED, work).await
}

/// As [`feed`], of a body that may be long and be answered without being read: manifests
/// that are sent again, because the first answer was lost.
pub async fn feed_whole<T>(body: Body, work: impl AsyncFnOnce(BodyReader) -> T) -> T {
    feed_and_drain(body, usize::MAX, work).await
}

async fn feed_and_drain<T>(
    body: Body,
    drained: usize,
    work: impl AsyncFnOnce(BodyReader) -> T,
) -> T {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(FRAMES);
    let feeding = async move {
        let mut stream = body.into_data_stream();
        loop {
            let frame = match next(&mut stream).await {
                Ok(Some(frame)) => Ok(frame),
                Ok(None) => return,
                Err(failure) => Err(io::Error::other(failure.report.found)),
            };
            let broken = frame.is_err();
            if sender.send(frame).await.is_err() {
                return drain_stream(&mut stream, drained).await;
            }
            if broken {
                return;
            }
        }
    };
    let (result, ()) = tokio::join!(work(BodyReader::new(receiver)), feeding);
    result
}

/// Reads a body that nobody wants and throws it away, up to `limit` bytes.
pub async fn drain(body: Body, limit: usize) {
    drain_stream(&mut body.into_data_stream(), limit).await;
}

async fn drain_stream(stream: &mut axum::body::BodyDataStream, limit: usize) {
    let mut left = limit;
    while let Ok(Some(frame)) = next(stream).await {
        left = left.saturating_sub(frame.len());
        if left == 0 {
            return;
        }
    }
}

/// A body from frames, which ends early if one of them is an error.
pub fn stream(frames: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    Body::from_stream(futures_util::stream::unfold(
        frames,
        |mut frames| async move {
            let frame = frames.recv().await?;
            Some((frame, frames))
        },
    ))
}

/// The same body, each of whose frames waits for `wait`, which is given its length.
pub fn each_frame<F>(body: Body, wait: impl Fn(usize) -> F + Send + 'static) -> Body
where
    F: Future<Output = ()> + Send,
{
    let state = (body.into_data_stream(), wait);
    Body::from_stream(futures_util::stream::unfold(
        state,
        |(mut frames, wait)| async move {
            let frame = frames.next().await?;
            if let Ok(bytes) = &frame {
                wait(bytes.len()).await;
            }
            Some((frame, (frames, wait)))
        },
    ))
}

/// A body from a file.
///
/// # Errors
/// The file cannot be opened.
pub async fn file(path: std::path::PathBuf) -> Outcome<(u64, Body)> {
    let failed = |e: io::Error| Failure::of_image_file(&path, &e);
    let file = tokio::fs::File::open(&path).await.map_err(failed)?;
    let length = file.metadata().await.map_err(failed)?.len();
    let (sender, receiver) = mpsc::channel(FRAMES);
    tokio::spawn(read_file(file, sender));
    Ok((length, stream(receiver)))
}

async fn read_file(mut file: tokio::fs::File, sender: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut buffer = vec![0; 128 << 10];
        let frame = match tokio::io::AsyncReadExt::read(&mut file, &mut buffer).await {
            Ok(0) => return,
            Ok(count) => {
                buffer.truncate(count);
                Ok(Bytes::from(buffer))
            }
            Err(error) => Err(error),
        };
        let broken = frame.is_err();
        if sender.send(frame).await.is_err() || broken {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DRAINED, feed, feed_whole};
    use axum::body::{Body, Bytes};
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const FRAME: usize = 1 << 20;
    const SENT: usize = DRAINED / FRAME + 100;

    /// A body that is longer than what is read of a refused one, and how much of it was.
    fn long() -> (Body, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let frame = Bytes::from(vec![0; FRAME]);
        let frames = (0..SENT).map(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(frame.clone())
        });
        (Body::from_stream(futures_util::stream::iter(frames)), taken)
    }

    #[tokio::test]
    async fn an_answer_waits_for_the_whole_of_a_manifest_that_came_before() {
        let (body, taken) = long();
        feed(body, async |reader| drop(reader)).await;
        assert!(taken.load(Ordering::SeqCst) < SENT, "a body without end");
        let (body, taken) = long();
        feed_whole(body, async |reader| drop(reader)).await;
        assert_eq!(taken.load(Ordering::SeqCst), SENT);
    }
}
