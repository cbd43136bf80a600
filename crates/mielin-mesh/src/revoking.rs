//! Shutting nodes out, and spreading the news of it.

use std::sync::Arc;

use mielin_mesh_core::revocation::{Reason, RevocationTransmit};
use mielin_mesh_core::{Instant, NodeId, Revocation, Revocations, SignedRevocation};
use mielin_mesh_wire::{
    Ed25519, NodeCredentials, store_revocations, store_revoked_names, stored_revocations,
};

use crate::courier::Parcel;
use crate::error::MeshError;
use crate::event::MeshEvent;
use crate::state::{Cores, Shared};

/// Streams that carry one message about revocations.
pub(crate) const REVOCATION: u16 = 9;

/// The set as it was stored.
pub(crate) fn stored(
    credentials: &NodeCredentials,
    seed: u64,
) -> Result<Revocations<Ed25519>, MeshError> {
    let stored = stored_revocations(credentials.directory(), credentials.root())?;
    let key = credentials.root().ed25519_key();
    Ok(Revocations::new(key, stored, seed))
}

/// See [`MeshService::revoke`](crate::MeshService::revoke).
pub(crate) async fn revoke(
    shared: &Arc<Shared>,
    node: &NodeId,
    reason: Reason,
) -> Result<bool, MeshError> {
    if *node == shared.local.id {
        return Err(MeshError::IsLocal(*node));
    }
    let authority = shared.authority.as_ref().ok_or(MeshError::NotIssuer)?;
    let signed = authority.sign_revocation(*node, reason)?;
    let new = shared.with_cores(|cores, _| cores.revocations.insert(signed))?;
    save_now(shared).await?;
    Ok(new)
}

/// Stores the revocations if there are new ones.
pub(crate) async fn save_now(shared: &Arc<Shared>) -> Result<(), MeshError> {
    // Held all the while: two writers must not overtake each other.
    let credentials = shared.credentials.lock().await;
    let (revocations, names): (Vec<_>, _) = {
        let mut cores = shared.cores();
        if !std::mem::take(&mut cores.revocations_unsaved) {
            return Ok(());
        }
        let revocations = cores.revocations.iter().cloned().collect();
        (revocations, cores.revoked_names.clone())
    };
    let directory = credentials.directory().clone();
    let store = move || {
        store_revocations(&directory, &revocations)?;
        store_revoked_names(&directory, &names)
    };
    let stored = tokio::task::spawn_blocking(store).await;
    if let Ok(Err(error)) = stored {
        shared.cores().revocations_unsaved = true;
        return Err(error.into());
    }
    Ok(())
}

/// Takes in what a peer shows for having refused this node.
pub(crate) fn said_of_this_node(shared: &Arc<Shared>, signed: SignedRevocation) {
    if signed.revocation().node != shared.local.id {
        return;
    }
    if let Err(error) = shared.with_cores(|cores, _| cores.revocations.insert(signed)) {
        tracing::warn!(%error, "a peer says that this node was revoked, and cannot show it");
    }
}

/// Says that this node is no member any more.
pub(crate) fn log_own(revocation: &Revocation) {
    tracing::error!(
        reason = revocation.reason.as_str(),
        "this node was revoked: it is no member of the mesh any more, and dials nobody. Make a new one with another \
         --data-dir and join it with `mielin mesh join`"
    );
}

pub(crate) fn take_in(shared: &Arc<Shared>, from: NodeId, bytes: &[u8]) {
    let taken = shared.with_cores(|cores, _| cores.revocations.handle_message(from, bytes));
    if let Err(error) = taken {
        tracing::warn!(from = %from.short(), %error, "a message about revocations was refused");
    }
}

impl Shared {
    /// Carries out what is new, and hands it on.
    pub(crate) fn settle_revocations(self: &Arc<Self>, cores: &mut Cores, now: Instant) {
        while let Some(signed) = cores.revocations.poll_event() {
            let revocation = signed.revocation();
            self.note_revoked_name(cores, &revocation.node);
            self.shut_out(cores, now, &signed);
            cores.revocations_unsaved = true;
            if revocation.node == self.local.id {
                log_own(revocation);
            } else {
                tracing::warn!(
                    node = %revocation.node,
                    reason = revocation.reason.as_str(),
                    "a node was revoked"
                );
            }
            let revoked = MeshEvent::Revoked(revocation.clone());
            let _ = self.events.send(revoked);
        }
        while let Some(RevocationTransmit { to, bytes }) = cores.revocations.poll_transmit() {
            let known = cores.membership.member(&to);
            let known = known.map(|member| member.identity.address);
            let peer = || self.endpoint.peer(&to).map(|peer| peer.remote_address());
            if let Some(address) = known.or_else(peer) {
                let parcel = Parcel::Revocation(bytes.into());
                self.couriers.post(self, to, address, parcel);
            }
        }
    }

    /// Remembers the name of a node that is shut out, if it is known.
    pub(crate) fn note_revoked_name(&self, cores: &mut Cores, node: &NodeId) {
        let Some(member) = cores.membership.member(node) else {
            return;
        };
        let name = member.identity.name;
        let before = cores.revoked_names.insert(*node, name.clone());
        cores.revocations_unsaved |= before.is_none_or(|before| before != name);
    }

    /// Ends everything that this node has to do with another.
    pub(crate) fn shut_out(&self, cores: &mut Cores, now: Instant, signed: &SignedRevocation) {
        let node = &signed.revocation().node;
        self.endpoint.revoke(signed);
        if *node == self.local.id {
            return;
        }
        self.couriers.forget(node);
        cores.membership.bury(now, node);
        cores.table.shut_out(now, node);
        cores.registry.shut_out(node);
    }
}
