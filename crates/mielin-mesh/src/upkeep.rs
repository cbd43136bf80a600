//! What a node does by itself: letting time pass in the cores, remembering
//! members.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mielin_mesh_core::{MemberState, NodeId};
use mielin_mesh_wire::{DirectoryError, remember_peers, remembered_peers};
use tokio::time::{Instant, sleep, sleep_until};

use crate::revoking;
use crate::state::Shared;

/// Between two looks at what has to be stored.
const SAVE_PERIOD: Duration = Duration::from_secs(5);

/// Wakes the cores when they asked for it.
pub(crate) async fn clock(shared: Arc<Shared>) {
    loop {
        let deadline = {
            let cores = shared.cores();
            let deadlines = [
                cores.membership.poll_timeout(),
                cores.registry.poll_timeout(),
                cores.table.poll_timeout(shared.now()),
                cores.revocations.poll_timeout(),
            ];
            deadlines.into_iter().flatten().min()
        };
        let wake = async {
            match deadline {
                Some(at) => sleep_until(Instant::from_std(shared.started + at.since_start())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wake => {
                shared.with_cores(|cores, now| {
                    cores.membership.handle_timeout(now);
                    cores.registry.handle_timeout(now);
                    cores.table.handle_timeout(now);
                    cores.revocations.handle_timeout(now);
                });
            }
            () = shared.changed.notified() => {}
        }
    }
}

/// Stores the members and the revocations from time to time, when they have changed.
pub(crate) async fn save(shared: Arc<Shared>) {
    loop {
        sleep(SAVE_PERIOD).await;
        save_members_now(&shared).await;
        if let Err(error) = revoking::save_now(&shared).await {
            tracing::warn!(%error, "cannot store the revocations; trying again");
        }
    }
}

/// Stores the members if they have changed.
pub(crate) async fn save_members_now(shared: &Arc<Shared>) {
    let peers: Vec<_> = {
        let mut cores = shared.cores();
        if !std::mem::take(&mut cores.unsaved) {
            return;
        }
        let issuer = cores.issuer;
        let mut members = cores.membership.members();
        members.retain(|member| {
            member.identity.id != shared.local.id && member.state != MemberState::Left
        });
        // The most useful first: the file is bounded.
        members.sort_by_key(|member| {
            (
                Some(member.identity.id) != issuer,
                !member.state.is_active(),
            )
        });
        members
            .iter()
            .map(|member| (member.identity.id, member.identity.address))
            .collect()
    };
    let directory = shared.credentials.lock().await.directory().clone();
    let stored = tokio::task::spawn_blocking(move || remember_peers(&directory, &peers)).await;
    if let Ok(Err(error)) = stored {
        tracing::warn!(%error, "cannot remember the members");
        shared.cores().unsaved = true;
    }
}

/// The members of earlier runs.
pub(crate) fn remembered(
    credentials: &mielin_mesh_wire::NodeCredentials,
) -> Result<Vec<(NodeId, SocketAddr)>, DirectoryError> {
    remembered_peers(credentials.directory())
}
