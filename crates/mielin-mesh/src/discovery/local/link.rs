//! Multicast DNS on the links of the machine, by the crate `mdns-sd`.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use mdns_sd::{
    IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};
use tokio::sync::mpsc;

use super::{ADDRESSES_MAX, Heard, MESH, NODE, SERVICE, Service};

/// How long a node that stops waits until its farewell was sent.
const FAREWELL: Duration = Duration::from_secs(1);

/// This node's part in the discovery of its links. Its sockets and its thread
/// end with [`LocalDiscovery::close`].
pub(super) struct LocalDiscovery {
    daemon: ServiceDaemon,
    fullname: String,
}

impl LocalDiscovery {
    /// Says where this node is on the links that it is bound to, and listens there.
    pub(super) fn start(
        service: &Service,
    ) -> Result<(LocalDiscovery, Receiver<ServiceEvent>), mdns_sd::Error> {
        let bind = service.bound;
        let daemon = ServiceDaemon::new()?;
        // The selection is made before anything is sent.
        daemon.disable_interface(IfKind::LoopbackV4)?;
        daemon.disable_interface(IfKind::LoopbackV6)?;
        if !bind.ip().is_unspecified() {
            daemon.disable_interface(IfKind::All)?;
            daemon.enable_interface(IfKind::Addr(bind.ip()))?;
        } else if bind.is_ipv4() {
            daemon.disable_interface(IfKind::IPv6)?;
        }
        let name = service.name();
        let txt = [(MESH, &*service.mesh), (NODE, &*service.node)];
        let host = format!("{name}.mielin.local.");
        let port = bind.port();
        let info = if bind.ip().is_unspecified() {
            ServiceInfo::new(SERVICE, name, &host, "", port, &txt[..])?.enable_addr_auto()
        } else {
            ServiceInfo::new(SERVICE, name, &host, bind.ip(), port, &txt[..])?
        };
        let fullname = info.get_fullname().to_owned();
        daemon.register(info)?;
        let events = daemon.browse(SERVICE)?;
        Ok((LocalDiscovery { daemon, fullname }, events))
    }

    /// Says that the node goes, and ends. Blocks for at most a second.
    pub(super) fn close(self) {
        let farewell = self.daemon.unregister(&self.fullname);
        if let Ok(sent) = farewell {
            let _ = sent.recv_timeout(FAREWELL);
        }
        let _ = self.daemon.shutdown();
    }
}

/// Hands on what is heard until the daemon ends or nobody listens. Drops what there is no room for.
pub(super) fn listen(events: &Receiver<ServiceEvent>, tell: &mpsc::Sender<Heard>) {
    while let Ok(event) = events.recv() {
        let Some(heard) = heard(event) else {
            continue;
        };
        if tell.try_send(heard).is_err() && tell.is_closed() {
            return;
        }
    }
}

fn heard(event: ServiceEvent) -> Option<Heard> {
    match event {
        ServiceEvent::ServiceResolved(service) => {
            let property = |key| service.txt_properties.get_property_val_str(key);
            Some(Heard::Here {
                fullname: service.fullname.clone(),
                mesh: property(MESH)?.to_owned(),
                node: property(NODE)?.to_owned(),
                addresses: addresses(&service),
            })
        }
        ServiceEvent::ServiceRemoved(_, fullname) => Some(Heard::Gone { fullname }),
        _ => None,
    }
}

/// Where it can be dialled, IPv4 first: an address of the link alone last.
fn addresses(service: &ResolvedService) -> Vec<SocketAddr> {
    let dialled = |ip: &ScopedIp| match ip {
        ScopedIp::V4(v4) => SocketAddr::new(IpAddr::V4(*v4.addr()), service.port),
        ScopedIp::V6(v6) => {
            let scope = match v6.addr().is_unicast_link_local() {
                true => v6.scope_id().index,
                false => 0,
            };
            SocketAddrV6::new(*v6.addr(), service.port, 0, scope).into()
        }
        _ => SocketAddr::new(ip.to_ip_addr(), service.port),
    };
    let usable = |address: &SocketAddr| {
        let ip = address.ip();
        let elsewhere = !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback());
        elsewhere && address.port() != 0
    };
    let mut addresses: Vec<SocketAddr> = service.addresses.iter().map(dialled).collect();
    addresses.retain(usable);
    addresses.sort_by_key(|address| match address {
        SocketAddr::V4(_) => (0, *address),
        SocketAddr::V6(v6) => (1 + u8::from(v6.ip().is_unicast_link_local()), *address),
    });
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found(ips: &str, port: u16) -> Vec<String> {
        let txt = [(MESH, "mesh"), (NODE, "node")];
        let info = ServiceInfo::new(SERVICE, "name", "host.local.", ips, port, &txt[..]).unwrap();
        let resolved = Box::new(info.as_resolved_service());
        match heard(ServiceEvent::ServiceResolved(resolved)) {
            Some(Heard::Here { addresses, .. }) => {
                addresses.iter().map(ToString::to_string).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_addresses_that_can_be_dialled_from_elsewhere_count_and_not_many() {
        let none: [&str; 0] = [];
        for (ips, port) in [("127.0.0.1", 9000), ("224.0.0.251", 9000), ("10.0.0.1", 0)] {
            assert_eq!(found(ips, port), none, "{ips} {port}");
        }
        assert_eq!(
            found("fd00::1,10.0.0.1", 9000),
            ["10.0.0.1:9000", "[fd00::1]:9000"]
        );
        let many = "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5,10.0.0.6";
        assert_eq!(found(many, 9000).len(), ADDRESSES_MAX);
    }
}
