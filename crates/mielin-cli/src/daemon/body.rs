//! Answers that are written piece by piece while the client reads.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::failure::Failure;

/// Pieces that may wait for a slow reader before the writer has to wait.
const PIECES_MAX: usize = 16;

/// The writing end of a body. When it is dropped the body ends.
pub(super) struct Writer {
    pieces: mpsc::Sender<Result<Bytes, Failure>>,
}

/// The reader has gone away.
pub(super) struct Gone;

impl Writer {
    pub(super) async fn write(&self, bytes: Bytes) -> Result<(), Gone> {
        self.pieces.send(Ok(bytes)).await.map_err(|_| Gone)
    }

    /// Writes a value as one line of JSON.
    pub(super) async fn write_line(&self, value: &impl Serialize) -> Result<(), Gone> {
        let mut line = serde_json::to_vec(value).expect("the API's types are JSON");
        line.push(b'\n');
        self.write(line.into()).await
    }

    /// Breaks the body off, so that the reader does not take it for complete.
    pub(super) async fn fail(&self, failure: Failure) {
        let _ = self.pieces.send(Err(failure)).await;
    }

    /// Returns when the reader has gone away.
    pub(super) async fn gone(&self) {
        self.pieces.closed().await;
    }
}

/// A body and its writing end.
pub(super) fn streamed() -> (Writer, Body) {
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    (Writer { pieces }, Body::new(Streamed { pieces: receiver }))
}

struct Streamed {
    pieces: mpsc::Receiver<Result<Bytes, Failure>>,
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.pieces
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
