//! The running service.
#![allow(clippy::todo, unused_variables)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh_core::registry::RegistryError;
use mielin_mesh_core::{AgentId, Location, LocationRecord, Member, NodeId};
use mielin_mesh_wire::{Authority, MeshStream, NodeCredentials};
use tokio::sync::broadcast;

use crate::config::MeshConfig;
use crate::error::MeshError;
use crate::event::{LocalNode, MeshEvent};
use crate::serving::{RequestHandler, StreamHandler};

/// One node's place in the mesh; clones share it.
#[derive(Clone)]
pub struct MeshService {
    shared: Arc<Shared>,
}

struct Shared {
    local: LocalNode,
}

impl MeshService {
    /// Opens the endpoint and contacts the known members in the background.
    ///
    /// # Errors
    /// [`MeshError::Wire`] when the address cannot be bound.
    pub async fn start(config: MeshConfig, credentials: NodeCredentials) -> Result<Self, MeshError> {
        todo!()
    }

    /// This node.
    #[must_use]
    pub fn local(&self) -> &LocalNode {
        &self.shared.local
    }

    /// The holder of the mesh root: issues tokens, approves joiners. `None` on
    /// every other node.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        todo!()
    }

    /// Every known node including this one, ordered by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        todo!()
    }

    /// Events from now on. A subscriber that falls behind by more than 1,024
    /// events is told so and should look at [`members`](Self::members) again.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<MeshEvent> {
        todo!()
    }

    /// Publishes an agent that this node holds; the record reaches every member
    /// and is repeated until it is withdrawn or superseded.
    ///
    /// # Errors
    /// [`RegistryError`] when this node may not announce it; nothing changed.
    pub fn announce(&self, record: LocationRecord) -> Result<(), RegistryError> {
        todo!()
    }

    /// Stops announcing an agent: its record expires everywhere.
    pub fn withdraw(&self, agent: &AgentId) {
        todo!()
    }

    /// The newest known location of an agent.
    #[must_use]
    pub fn locate(&self, agent: &AgentId) -> Option<Location> {
        todo!()
    }

    /// The newest known location of every agent, ordered by id.
    #[must_use]
    pub fn agents(&self) -> Vec<Location> {
        todo!()
    }

    /// Answers requests of `protocol` (100 and above) from now on.
    pub fn serve(&self, protocol: u16, handler: Arc<dyn RequestHandler>) {
        todo!()
    }

    /// Takes over streams of `protocol` (100 and above) from now on.
    pub fn serve_streams(&self, protocol: u16, handler: Arc<dyn StreamHandler>) {
        todo!()
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// See [`MeshError`]; the request is not repeated.
    pub async fn request(
        &self,
        node: &NodeId,
        protocol: u16,
        request: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, MeshError> {
        todo!()
    }

    /// Opens a stream, connecting first where needed.
    ///
    /// # Errors
    /// See [`MeshError`]. A peer that does not serve the protocol shows only
    /// when the stream is used.
    pub async fn open_stream(&self, node: &NodeId, protocol: u16) -> Result<MeshStream, MeshError> {
        todo!()
    }

    /// Tells the members that this node goes for good, then shuts down.
    pub async fn leave(&self) {
        todo!()
    }

    /// Closes connections and stops every task, within a few seconds. The
    /// members keep the node and will suspect it, unless it comes back.
    pub async fn shutdown(&self) {
        todo!()
    }
}
