//! Hosts of their own for nodes: network namespaces on a link, and nftables.
//!
//! Needs Linux, `ip`, `nft` where there is a firewall, and root. Nothing of this machine's own network is touched.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Node, mielin_by};

const SETUP: &str = "this test needs Linux, the programs `ip` and `nft`, and the right to make network namespaces: \
     install iproute2 and nftables (on Debian: apt-get install iproute2 nftables) and run it as root, or in a \
     container as root with the capabilities NET_ADMIN and SYS_ADMIN";

/// The address of every host behind a router, and of the router on that side: at home everybody has the same.
pub const INNER: &str = "192.168.78.2";
const GATEWAY: &str = "192.168.78.1";

static LINKS: AtomicU32 = AtomicU32::new(0);

/// Hosts on one link, removed when this is dropped.
pub struct Link {
    hosts: Vec<String>,
}

impl Link {
    pub fn new(count: usize) -> Link {
        // Not the prefix of other tests, which remove what has been left over.
        let number = LINKS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("mielin-hosts-{}-{number}", std::process::id());
        let hub = format!("{prefix}-hub");
        let mut link = Link {
            hosts: vec![hub.clone()],
        };
        ip(&["netns", "add", &hub]);
        for bridge in ["together", "apart"] {
            ip(&["-n", &hub, "link", "add", bridge, "type", "bridge"]);
            ip(&["-n", &hub, "link", "set", bridge, "up"]);
        }
        for number in 0..count {
            let (host, port) = (format!("{prefix}-{number}"), port(number));
            ip(&["netns", "add", &host]);
            link.hosts.push(host.clone());
            let peer = ["type", "veth", "peer", "name", "eth0", "netns", &host];
            ip(&[&["-n", &hub, "link", "add", &port][..], &peer].concat());
            ip(&["-n", &hub, "link", "set", &port, "master", "together", "up"]);
            ip(&["-n", &host, "link", "set", "lo", "up"]);
            let address = format!("{}/24", address(number));
            ip(&["-n", &host, "addr", "add", &address, "dev", "eth0"]);
            ip(&["-n", &host, "link", "set", "eth0", "up"]);
        }
        link
    }

    /// Adds a host behind another one, which translates its address: each connection of it comes from the router's
    /// address and a port of its own. Gives the host's number. Its address, [`INNER`], is no address on the link.
    pub fn host_behind(&mut self, router: usize) -> usize {
        let number = self.hosts.len() - 1;
        let (router, host) = (
            self.host(router).to_owned(),
            format!("{}-nat{number}", self.hosts[0]),
        );
        ip(&["netns", "add", &host]);
        self.hosts.push(host.clone());
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", &host];
        ip(&[&["-n", &router, "link", "add", "inside"][..], &peer].concat());
        for (name, device, address) in [(&router, "inside", GATEWAY), (&host, "eth0", INNER)] {
            let address = format!("{address}/24");
            ip(&["-n", name, "addr", "add", &address, "dev", device]);
            ip(&["-n", name, "link", "set", device, "up"]);
        }
        ip(&["-n", &host, "link", "set", "lo", "up"]);
        ip(&["-n", &host, "route", "add", "default", "via", GATEWAY]);
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        ip(&["netns", "exec", &router, "sh", "-c", forward]);
        rule(
            &router,
            "table ip translation {
                chain out {
                    type nat hook postrouting priority 100;
                    oifname eth0 masquerade fully-random
                }
            }",
        );
        number
    }

    pub fn host(&self, number: usize) -> &str {
        &self.hosts[number + 1]
    }

    /// Runs a node on a host.
    #[track_caller]
    pub fn node(&self, number: usize, dir: &Path, args: &[&str]) -> Node {
        let mielin = mielin_by("ip", &["netns", "exec", self.host(number)]);
        Node::run_by(mielin, dir, args)
    }

    /// Separates hosts from the others; among themselves they stay connected.
    pub fn part(&self, hosts: &[usize]) {
        self.attach(hosts, "apart");
    }

    /// Brings them back.
    pub fn heal(&self, hosts: &[usize]) {
        self.attach(hosts, "together");
    }

    fn attach(&self, hosts: &[usize], bridge: &str) {
        for host in hosts {
            let (hub, port) = (&self.hosts[0], port(*host));
            ip(&["-n", hub, "link", "set", &port, "master", bridge]);
        }
    }

    /// Lets a host send no faster than this, in the words of tc(8).
    pub fn slow_down(&self, number: usize, rate: &str) {
        let bucket = [
            "root", "tbf", "rate", rate, "burst", "128kb", "latency", "100ms",
        ];
        let line = [
            &["-n", self.host(number), "qdisc", "add", "dev", "eth0"][..],
            &bucket,
        ];
        let status = Command::new("tc").args(line.concat()).status();
        let status = status.unwrap_or_else(|error| panic!("{error}; {SETUP}"));
        assert!(status.success(), "tc; {SETUP}");
    }

    /// Gives a host these rules instead of those that it has.
    pub fn firewall(&self, number: usize, rules: &str) {
        rule(self.host(number), rules);
    }
}

/// Has a namespace these rules and no others.
fn rule(host: &str, rules: &str) {
    let mut nft = Command::new("ip")
        .args(["netns", "exec", host, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{error}; {SETUP}"));
    let rules = format!("flush ruleset\n{rules}\n");
    let mut input = nft.stdin.take().unwrap();
    input.write_all(rules.as_bytes()).unwrap();
    drop(input);
    assert!(nft.wait().unwrap().success(), "nft; {SETUP}");
}

impl Drop for Link {
    fn drop(&mut self) {
        for host in &self.hosts {
            let _ = Command::new("ip").args(["netns", "del", host]).status();
        }
    }
}

pub fn address(host: usize) -> String {
    format!("10.78.0.{}", host + 1)
}

fn port(host: usize) -> String {
    format!("port{host}")
}

/// Runs `ip`, and says what to do if it cannot.
fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run `ip`: {error}; {SETUP}"));
    assert!(
        output.status.success(),
        "`ip {}`: {}; {SETUP}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim(),
    );
}
