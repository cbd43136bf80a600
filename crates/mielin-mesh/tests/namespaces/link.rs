//! Hosts on a link: network namespaces joined by veth pairs and bridges.
//!
//! The bridges stand in a namespace of their own, so nothing of this machine's
//! network is touched, and what the nodes send reaches nobody else.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const SETUP: &str = "the namespace tests need Linux, the program `ip` and the right to make network \
     namespaces: install iproute2 (on Debian: apt-get install iproute2), and run the tests as root, \
     or in a container as root with the capabilities NET_ADMIN and SYS_ADMIN";

/// Names of this machine's namespaces that belong to a test begin so.
const PREFIX: &str = "mielin-test";

static LINKS: AtomicU32 = AtomicU32::new(0);

/// Some hosts on one link; they are removed when this is dropped.
pub(crate) struct Link {
    name: String,
    hosts: usize,
}

impl Link {
    /// Makes the hosts, each with an IPv4 and a unique local IPv6 address.
    pub(crate) fn new(hosts: usize) -> Link {
        remove_abandoned();
        let number = LINKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}", std::process::id());
        let mut link = Link { name, hosts: 0 };
        let hub = link.hub();
        ip(&["netns", "add", &hub]);
        for bridge in ["together", "apart"] {
            ip(&["-n", &hub, "link", "add", bridge, "type", "bridge"]);
            // What bridges learn of multicast listeners would have to be asked for again.
            let options = ["type", "bridge", "mcast_snooping", "0"];
            ip(&[&["-n", &hub, "link", "set", bridge][..], &options].concat());
            ip(&["-n", &hub, "link", "set", bridge, "up"]);
        }
        for host in 0..hosts {
            link.add(host);
        }
        link
    }

    fn add(&mut self, host: usize) {
        let (hub, name, port) = (self.hub(), self.host(host), port(host));
        ip(&["netns", "add", &name]);
        self.hosts += 1;
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", &name];
        ip(&[&["-n", &hub, "link", "add", &port][..], &peer].concat());
        ip(&["-n", &hub, "link", "set", &port, "master", "together"]);
        ip(&["-n", &hub, "link", "set", &port, "up"]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        let (v4, v6) = (format!("{}/24", v4(host)), format!("{}/64", v6(host)));
        ip(&["-n", &name, "addr", "add", &v4, "dev", "eth0"]);
        // Nobody else has the address: it need not be asked for first.
        ip(&["-n", &name, "addr", "add", &v6, "dev", "eth0", "nodad"]);
        ip(&["-n", &name, "link", "set", "eth0", "up"]);
    }

    /// Separates hosts from the others; among themselves they stay connected.
    pub(crate) fn part(&self, hosts: &[usize]) {
        self.attach(hosts, "apart");
    }

    /// Brings them back.
    pub(crate) fn heal(&self, hosts: &[usize]) {
        self.attach(hosts, "together");
    }

    fn attach(&self, hosts: &[usize], bridge: &str) {
        for host in hosts {
            let hub = self.hub();
            ip(&["-n", &hub, "link", "set", &port(*host), "master", bridge]);
        }
    }

    /// Gives a host another IPv4 address instead of the one that it has. It is never without one.
    pub(crate) fn readdress(&self, host: usize, from: &str, to: &str) {
        let (name, from, to) = (self.host(host), format!("{from}/24"), format!("{to}/24"));
        // Else the second address of a network goes with the first.
        let keep = "echo 1 > /proc/sys/net/ipv4/conf/eth0/promote_secondaries";
        run(self.command(host, Path::new("sh")), &["-c", keep]);
        ip(&["-n", &name, "addr", "add", &to, "dev", "eth0"]);
        ip(&["-n", &name, "addr", "del", &from, "dev", "eth0"]);
    }

    /// Lets nothing pass between two hosts, or everything again.
    pub(crate) fn wall(&self, hosts: [usize; 2], stands: bool) {
        let what = if stands { "add" } else { "del" };
        for (host, other) in [(hosts[0], hosts[1]), (hosts[1], hosts[0])] {
            let (name, other) = (self.host(host), v4(other));
            ip(&["-n", &name, "route", what, "blackhole", &other]);
        }
    }

    /// A command that runs on a host.
    pub(crate) fn command(&self, host: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(host)]);
        command.arg(program);
        command
    }

    /// Packets that a host has sent on the link.
    pub(crate) fn sent(&self, host: usize) -> u64 {
        let output = self.command(host, Path::new("cat"));
        let counts = run(output, &["/proc/net/dev"]);
        let line = counts
            .lines()
            .find(|line| line.trim_start().starts_with("eth0:"));
        let sent = line.and_then(|line| line.split_whitespace().nth(10));
        sent.and_then(|sent| sent.parse().ok())
            .unwrap_or_else(|| panic!("{counts}"))
    }

    /// Takes IPv6 from a host's link: the system itself sends there what nobody has asked for.
    pub(crate) fn without_v6(&self, host: usize) {
        let shell = self.command(host, Path::new("sh"));
        let off = "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6";
        run(shell, &["-c", off]);
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn host(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            remove(&self.host(host));
        }
        remove(&self.hub());
    }
}

/// A host's IPv4 address.
pub(crate) fn v4(host: usize) -> String {
    format!("10.77.0.{}", host + 1)
}

/// A host's IPv6 address, a unique local one (RFC 4193).
pub(crate) fn v6(host: usize) -> String {
    format!("fd77::{:x}", host + 1)
}

fn port(host: usize) -> String {
    format!("port{host}")
}

fn remove(namespace: &str) {
    // One that is gone already is what is wanted.
    let _ = Command::new("ip")
        .args(["netns", "del", namespace])
        .output();
}

/// Removes what a test program that was killed has left.
fn remove_abandoned() {
    let listed = ip(&["netns", "list"]);
    for name in listed.lines().filter_map(|line| line.split(' ').next()) {
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(name);
        }
    }
}

/// Runs `ip`, and says what to do if it cannot.
fn ip(arguments: &[&str]) -> String {
    run(Command::new("ip"), arguments)
}

fn run(mut command: Command, arguments: &[&str]) -> String {
    let output = command.args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run `ip`: {error}; {SETUP}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}; {SETUP}",
        String::from_utf8_lossy(&output.stderr).trim(),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
