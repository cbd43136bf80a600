//! What a node offers its peers: request handlers and stream handlers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use mielin_mesh_core::NodeId;
use mielin_mesh_wire::MeshStream;
use oxicode::{Decode, Encode};

/// A boxed future, as the object-safe handler traits return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A handler's "no", carried to the peer that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Meaning is given by the protocol; 0 to 99 belong to the mesh itself.
    pub code: u16,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// The code of a handler that panicked.
    pub const INTERNAL: u16 = 1;
    /// The code of a request that this node's place in the mesh does not allow.
    pub const NOT_HERE: u16 = 2;

    /// A refusal with a code of the protocol's own.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Refusal {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

/// The header of a response frame.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Response {
    Done,
    Refused { code: u16, message: String },
}

/// What is served for each protocol.
#[derive(Clone)]
pub(crate) enum Served {
    Requests(Arc<dyn RequestHandler>),
    Streams(Arc<dyn StreamHandler>),
}

/// Answers requests of one protocol. Runs concurrently, a bounded number of
/// times per peer; a panic refuses the one request with [`Refusal::INTERNAL`].
pub trait RequestHandler: Send + Sync + 'static {
    /// Answers one request; the future is dropped when the peer gives up.
    fn handle(&self, from: NodeId, request: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>>;
}

/// Takes over the streams of one protocol that peers open.
pub trait StreamHandler: Send + Sync + 'static {
    /// Serves one stream until the future ends.
    fn handle(&self, from: NodeId, stream: MeshStream) -> BoxFuture<'_, ()>;
}

/// A [`RequestHandler`] from an async closure.
pub fn request_handler<F, R>(function: F) -> Arc<dyn RequestHandler>
where
    F: Fn(NodeId, Bytes) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Bytes, Refusal>> + Send + 'static,
{
    struct Function<F>(F);
    impl<F, R> RequestHandler for Function<F>
    where
        F: Fn(NodeId, Bytes) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Bytes, Refusal>> + Send + 'static,
    {
        fn handle(&self, from: NodeId, request: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>> {
            Box::pin((self.0)(from, request))
        }
    }
    Arc::new(Function(function))
}

/// A [`StreamHandler`] from an async closure.
pub fn stream_handler<F, R>(function: F) -> Arc<dyn StreamHandler>
where
    F: Fn(NodeId, MeshStream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    struct Function<F>(F);
    impl<F, R> StreamHandler for Function<F>
    where
        F: Fn(NodeId, MeshStream) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        fn handle(&self, from: NodeId, stream: MeshStream) -> BoxFuture<'_, ()> {
            Box::pin((self.0)(from, stream))
        }
    }
    Arc::new(Function(function))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mielin_fuzz::{Seed, Target};
    use mielin_mesh_core::codec;
    use mielin_mesh_core::limits::CODEC_BYTES_MAX;

    use super::*;

    /// What stands before the answer to a request.
    const RESPONSE: Target = Target {
        name: "response",
        mutations: 20_000,
        fixed_bytes: CODEC_BYTES_MAX + 4096,
        bytes_per_byte: 8,
        run: |bytes| {
            let Ok(response) = codec::decode::<Response>(bytes) else {
                return false;
            };
            let again = codec::encode(&response);
            assert!(again.len() <= bytes.len());
            let same = codec::decode::<Response>(&again).unwrap();
            match (response, same) {
                (Response::Done, Response::Done) => {}
                (
                    Response::Refused { code, message },
                    Response::Refused {
                        code: code_again,
                        message: message_again,
                    },
                ) => assert_eq!((code, message), (code_again, message_again)),
                other => panic!("{other:?}"),
            }
            true
        },
        seeds: || {
            let message = "not here, ask another".to_owned();
            let refused = codec::encode(&Response::Refused { code: 7, message });
            let mut no_text = refused.clone();
            *no_text.last_mut().unwrap() = 0xff;
            vec![
                Seed::good("done", codec::encode(&Response::Done)),
                Seed::bad("done-and-more", [0, 0]),
                Seed::bad("refused-cut-off", &refused[..refused.len() - 1]),
                Seed::bad("no-text", no_text),
                Seed::bad(
                    "claims-a-text-of-2-to-the-62",
                    [1, 7, 253, 0, 0, 0, 0, 0, 0, 0, 64],
                ),
                Seed::good("refused", refused),
            ]
        },
    };

    #[test]
    fn response() {
        RESPONSE.replay();
    }
}
