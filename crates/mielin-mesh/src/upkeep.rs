//! What a node does by itself: letting time pass in the cores, remembering
//! members.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
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

/// The address that members are told, when the bound one says only "any".
///
/// The address of the route to a known member is the best guess; a member on
/// the same machine says nothing about what others can reach, so then, and
/// without members, it is the route that leads out.
pub(crate) fn advertised(bound: SocketAddr, known: &[SocketAddr]) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    // Addresses for documentation (RFC 5737, RFC 3849): connecting a UDP
    // socket sends nothing, it only asks the system for a route.
    let outside: [SocketAddr; 2] = [
        (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
    ];
    let routes = known
        .iter()
        .chain(&outside)
        .filter_map(|target| route_from(bound, *target));
    let ip = routes.into_iter().find(|ip| !ip.is_loopback());
    let loopback = match bound {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip.unwrap_or(loopback), bound.port())
}

/// The local address from which packets to `target` would leave.
fn route_from(bound: SocketAddr, target: SocketAddr) -> Option<IpAddr> {
    if bound.is_ipv4() != target.is_ipv4() {
        return None;
    }
    let socket = UdpSocket::bind(SocketAddr::new(bound.ip(), 0)).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_never_advertised() {
        let fixed = SocketAddr::from(([10, 1, 2, 3], 9000));
        assert_eq!(advertised(fixed, &[]), fixed);
        let local = SocketAddr::from(([127, 0, 0, 1], 9001));
        for any in [IpAddr::from([0, 0, 0, 0]), IpAddr::from([0_u16; 8])] {
            let told = advertised(SocketAddr::new(any, 9000), &[local]);
            assert!(!told.ip().is_unspecified());
            assert_eq!(told.port(), 9000);
        }
    }
}
