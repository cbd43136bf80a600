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
