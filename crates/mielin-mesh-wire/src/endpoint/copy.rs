//! Another process that bears this node's own key: its data directory was copied, and both run.
//!
//! Who completes a handshake under this node's id holds its key, and lives. If it also names another instance than this
//! endpoint's, it is another process. Nobody can make that up: a member does not have the key, who sends this node's own
//! packets back to it names its own instance, and the process that this one has replaced makes no handshakes any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::timeout;

use super::hello::Instance;
use super::{
    CLOSE_ITSELF, CLOSE_SUPERSEDED, CONNECT_LIMIT, Endpoint, Shared, WireError, peer_certificate,
};
use crate::certificate::NodeCertificate;
use crate::peer::WireEvent;

impl Endpoint {
    /// Whether another process with this node's own key listens at an address. If so, [`WireEvent::Copy`] comes too,
    /// there as well.
    pub async fn finds_copy(&self, address: SocketAddr) -> bool {
        let name = self.shared.local.server_name();
        let dialled = self.shared.dial(address, &name).await;
        matches!(dialled, Err(WireError::Copy { .. }))
    }

    /// Leaves this node's place to another process with its key, or takes it again: all connections end, and none is
    /// made or let in but those that look for that process.
    pub fn give_way(&self, gives_way: bool) {
        self.shared.gives_way.store(gives_way, Ordering::Relaxed);
        if !gives_way {
            return;
        }
        for peer in self.peers() {
            for one in self.shared.pool().of(&peer.node()) {
                close(one.connection());
            }
        }
    }
}

impl Shared {
    pub(super) fn gives_way(&self) -> bool {
        self.gives_way.load(Ordering::Relaxed)
    }

    pub(super) fn shows_own_key(&self, connection: &quinn::Connection) -> bool {
        let seen = peer_certificate(connection);
        let seen = seen.and_then(|certificate| NodeCertificate::check(&certificate).ok());
        seen.is_some_and(|seen| seen.id == self.local)
    }

    /// Who it is that holds this node's key: itself, or another process.
    pub(super) async fn met_own_key(&self, address: SocketAddr, heard: Instance) -> WireError {
        let own = self.hello.instance;
        if own.becomes(heard, self.moves.load(Ordering::Relaxed)) {
            return WireError::Itself { address };
        }
        let elder = heard < own;
        let _ = self.events.send(WireEvent::Copy { address, elder }).await;
        WireError::Copy { address }
    }

    /// Serves somebody who dials under this node's own key: says hello, and hears one.
    pub(super) async fn receive_own(self: Arc<Self>, connection: quinn::Connection) {
        let from = connection.remote_address();
        if let Ok(Some(hello)) = timeout(CONNECT_LIMIT, self.greet(&connection, 0)).await {
            let error = self.met_own_key(from, hello.instance).await;
            tracing::debug!(%from, %error, "dialled under this node's own key");
        }
        // Who has dialled closes when it has heard the hello.
        let _ = timeout(CONNECT_LIMIT, connection.closed()).await;
        connection.close(CLOSE_ITSELF, b"itself");
    }
}

/// Ends a connection because another process of this node is in its place, which is no loss to the peer.
pub(super) fn close(connection: &quinn::Connection) {
    connection.close(CLOSE_SUPERSEDED, b"another process of this node runs");
}
