//! How often a host may do something: token buckets by host.
//!
//! They are kept as the generic cell rate algorithm does (ITU-T I.371, annex A):
//! of each host only the moment at which its bucket will be full again.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Hosts that are remembered. Those whose buckets are full again need not be.
const HOSTS_MAX: usize = 4096;

/// One rate for every host.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// What a host may do at once.
    burst: u32,
    /// After what time it may do once more.
    period: Duration,
    /// When the bucket is full again.
    full_at: HashMap<IpAddr, Instant>,
}

impl Buckets {
    pub(crate) fn new(burst: u32, period: Duration) -> Buckets {
        Buckets {
            burst,
            period,
            full_at: HashMap::new(),
        }
    }

    /// How long the host has to wait before it may do it; zero if it may now.
    pub(crate) fn wait(&self, now: Instant, host: IpAddr) -> Duration {
        let Some(full_at) = self.full_at.get(&network(host)) else {
            return Duration::ZERO;
        };
        // Full again within this time means that one is left.
        let room = self.period * (self.burst - 1);
        let full_in = full_at.saturating_duration_since(now);
        full_in.saturating_sub(room)
    }

    /// Notes that the host has done it.
    pub(crate) fn note(&mut self, now: Instant, host: IpAddr) {
        let host = network(host);
        if self.full_at.len() >= HOSTS_MAX && !self.full_at.contains_key(&host) {
            self.make_room(now);
        }
        let full_at = self.full_at.entry(host).or_insert(now);
        *full_at = (*full_at).max(now) + self.period;
    }

    /// Forgets hosts whose buckets are full, or else the one nearest to it.
    fn make_room(&mut self, now: Instant) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= HOSTS_MAX {
            let first = self.full_at.iter().min_by_key(|(_, full_at)| **full_at);
            if let Some(first) = first.map(|(host, _)| *host) {
                self.full_at.remove(&first);
            }
        }
    }
}

/// One customer has a whole /64 of IPv6 (RFC 6177, section 2).
pub(crate) fn network(host: IpAddr) -> IpAddr {
    match host.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn host(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn a_host_has_its_burst_and_then_its_rate() {
        let (mut buckets, start) = (Buckets::new(3, SECOND), Instant::now());
        for _ in 0..3 {
            assert_eq!(buckets.wait(start, host(1)), Duration::ZERO);
            buckets.note(start, host(1));
        }
        assert_eq!(buckets.wait(start, host(1)), SECOND);
        assert_eq!(buckets.wait(start, host(2)), Duration::ZERO);
        let later = start + SECOND;
        assert_eq!(buckets.wait(later, host(1)), Duration::ZERO);
        buckets.note(later, host(1));
        assert_eq!(buckets.wait(later, host(1)), SECOND);
        // Rest fills the bucket, and no further.
        let much_later = start + 100 * SECOND;
        for _ in 0..3 {
            assert_eq!(buckets.wait(much_later, host(1)), Duration::ZERO);
            buckets.note(much_later, host(1));
        }
        assert_eq!(buckets.wait(much_later, host(1)), SECOND);
    }

    #[test]
    fn a_network_of_ipv6_is_one_host_and_so_is_a_mapped_address() {
        let (mut buckets, now) = (Buckets::new(1, SECOND), Instant::now());
        let v6 = |text: &str| text.parse::<IpAddr>().expect("an address");
        buckets.note(now, v6("2001:db8::1"));
        assert_eq!(buckets.wait(now, v6("2001:db8::ffff:1")), SECOND);
        assert_eq!(buckets.wait(now, v6("2001:db8:0:1::1")), Duration::ZERO);
        buckets.note(now, v6("::ffff:10.0.0.1"));
        assert_eq!(buckets.wait(now, v6("10.0.0.1")), SECOND);
    }

    #[test]
    fn whoever_has_many_addresses_pushes_out_those_who_did_least() {
        let (mut buckets, now) = (Buckets::new(2, SECOND), Instant::now());
        for _ in 0..2 {
            buckets.note(now, host(0));
        }
        for number in 1..=2 * HOSTS_MAX as u32 {
            buckets.note(now, host(number));
        }
        assert_eq!(buckets.full_at.len(), HOSTS_MAX);
        assert_eq!(buckets.wait(now, host(0)), SECOND, "not forgotten");
    }
}
