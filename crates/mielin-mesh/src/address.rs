//! The address that members are told, and what a node does when it is another one.
//!
//! A node that is bound to an unspecified address listens wherever its host can be reached, so its host may get another
//! address under it. Connections that it has dialled go on by themselves: the next packet shows the peer where it comes
//! from (RFC 9000, section 9). Those by which it was dialled cannot, so new ones take their place, and membership spreads
//! where it listens now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use mielin_mesh_wire::Peer;
use tokio::time::sleep;

use crate::state::Shared;

/// How often a node looks whether its host still has its address.
const PERIOD: Duration = Duration::from_secs(1);

/// Follows the address of the host until the service ends.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let bound = shared.endpoint.local_address();
    if !bound.ip().is_unspecified() || shared.config.advertise_address.is_some() {
        return;
    }
    loop {
        sleep(PERIOD).await;
        let told = shared.address();
        if is_here(told.ip()) {
            continue;
        }
        let known: Vec<SocketAddr> = {
            let members = shared.cores().membership.members().into_iter();
            let others = members.filter(|member| member.identity.id != shared.local.id);
            let active = others.filter(|member| member.state.is_active());
            active.map(|member| member.identity.address).collect()
        };
        let address = advertised(bound, &known);
        // Without any address there is nothing better to tell.
        if address.ip().is_loopback() || address == told {
            continue;
        }
        tracing::info!(%told, %address, "this node listens at another address now");
        shared.with_cores(|cores, now| {
            cores.membership.advertise_address(now, address);
            cores.table.advertise(shared.local.id, address);
        });
        shared.endpoint.has_moved();
        for peer in shared.endpoint.peers() {
            if peer.has_dialled() && !peer.is_relayed() {
                shared.spawn(dial_again(Arc::clone(&shared), peer));
            }
        }
    }
}

/// Makes the connection anew that a peer has dialled, before it is lost.
async fn dial_again(shared: Arc<Shared>, peer: Peer) {
    let node = peer.node();
    let Some(address) = shared.address_of(&node) else {
        return;
    };
    match shared.endpoint.replace(&peer, address).await {
        Ok(()) => tracing::debug!(?node, "connected from the new address"),
        Err(error) => tracing::debug!(?node, %error, "not connected from the new address"),
    }
}

/// Whether the host has this address. Loopback is no address for others: there may be a better one.
fn is_here(ip: IpAddr) -> bool {
    !ip.is_loopback() && UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// The address that members are told, when the bound one says only "any".
///
/// The address of the route to a known member is the best guess; a member on
/// the same machine says nothing about what others can reach, so then, and
/// without members, it is the route that leads out, and where none does any
/// address of an interface. A socket of IPv6 hears IPv4 too: a node with
/// such a socket tells an address of IPv4 if that leads to the member, or if the host has no other.
pub(crate) fn advertised(bound: SocketAddr, known: &[SocketAddr]) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let (families, loopback) = match bound.ip() {
        v4 @ IpAddr::V4(_) => (vec![v4], IpAddr::V4(Ipv4Addr::LOCALHOST)),
        v6 @ IpAddr::V6(_) => (vec![v6, ANY_V4], IpAddr::V6(Ipv6Addr::LOCALHOST)),
    };
    // Addresses for documentation (RFC 5737, RFC 3849): connecting a UDP
    // socket sends nothing, it only asks the system for a route.
    let outside: [SocketAddr; 2] = [
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
        (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
    ];
    let targets = known.iter().chain(&outside);
    let routes = targets.flat_map(|target| {
        let families = families.iter();
        families.filter_map(|any| route_from(*any, *target))
    });
    let interfaces = families.iter().filter_map(|any| of_an_interface(*any));
    let ip = routes.chain(interfaces).find(may_be_dialled);
    SocketAddr::new(ip.unwrap_or(loopback), bound.port())
}

/// Whether others can do something with the address. One of a link needs to be told which link that is.
fn may_be_dialled(ip: &IpAddr) -> bool {
    let of_a_link = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !ip.is_loopback() && !of_a_link
}

/// An address of the host that others on one of its links may dial.
fn of_an_interface(any: IpAddr) -> Option<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().ok()?.into_iter();
    let usable =
        interfaces.filter(|interface| !interface.is_loopback() && !interface.is_link_local());
    let mut ips = usable.map(|interface| interface.ip());
    ips.find(|ip| ip.is_ipv4() == any.is_ipv4())
}

/// The local address from which packets to `target` would leave.
fn route_from(any: IpAddr, target: SocketAddr) -> Option<IpAddr> {
    if any.is_ipv4() != target.is_ipv4() {
        return None;
    }
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
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

    #[test]
    fn the_host_has_its_own_addresses_only() {
        // An address for documentation (RFC 5737).
        assert!(!is_here([203, 0, 113, 9].into()));
        assert!(!is_here(Ipv4Addr::LOCALHOST.into()));
    }
}
