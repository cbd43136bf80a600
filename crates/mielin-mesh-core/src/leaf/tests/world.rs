//! A host and two leaves on bad lines, against a model that knows who has sent what.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use std::println;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{MESH, key};
use crate::Instant;
use crate::leaf::{
    Admission, FRAME_BYTES_MAX, FrameDecoder, HostEventKind, Leaf, LeafEvent, LeafHost, LeafNumber,
    LeafState, LinkError, MESSAGE_BYTES_MAX, PACKET_BYTES_MAX, PublicKey, frame,
};

const LEAVES: usize = 2;
/// A packet that carries no body: header, segment's header, tag.
const STANDING_BYTES: usize = 9 + 3 + 16;
/// Addresses of each leaf, in the world of datagrams.
const ADDRESSES: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Leaf(usize),
    Host,
}

/// What a line does to packets, in percent.
#[derive(Clone, Copy)]
struct Faults {
    lost: u32,
    doubled: u32,
    damaged: u32,
    replayed: u32,
    delay_ms: u64,
}

const GOOD: Faults = Faults {
    lost: 0,
    doubled: 0,
    damaged: 0,
    replayed: 0,
    delay_ms: 2,
};

/// Messages in one direction that were sent and have not come. Those of an end that has died since may never come.
#[derive(Default)]
struct Expected {
    messages: VecDeque<(u64, bool)>,
}

impl Expected {
    fn sent(&mut self, id: u64) {
        self.messages.push_back((id, true));
    }

    /// The sender has died: its messages may come or not, but in order.
    fn sender_died(&mut self) {
        for (_, required) in &mut self.messages {
            *required = false;
        }
    }

    fn came(&mut self, id: u64) {
        loop {
            let next = self.messages.pop_front();
            let (next, required) = next.unwrap_or_else(|| panic!("{id} came twice, or late"));
            if next == id {
                return;
            }
            assert!(!required, "{next} is lost, {id} came instead");
        }
    }

    /// The sender was told that the streams begin again, and given back these.
    fn given_back(&mut self, ids: &[u64]) {
        for (id, required) in self.messages.drain(..) {
            assert!(!required || ids.contains(&id), "{id} is lost at a restart");
        }
    }

    fn is_empty(&self) -> bool {
        self.messages.iter().all(|(_, required)| !required)
    }
}

struct Device {
    leaf: Leaf,
    number: LeafNumber,
    admission: Admission,
    /// Its key, once the host knows it.
    key: Option<PublicKey>,
    address: u8,
    /// When it wakes, if it sleeps.
    wakes: Option<Instant>,
    dozes_for: Duration,
    decoder: FrameDecoder,
    cut: bool,
    to_host: Expected,
    from_host: Expected,
}

pub(super) struct World {
    rng: StdRng,
    now: Instant,
    serial: bool,
    faults: Faults,
    host: LeafHost<u8>,
    devices: Vec<Device>,
    /// The host's decoders, one for each line.
    decoders: Vec<FrameDecoder>,
    /// Bytes on their way, by when they arrive.
    flying: BTreeMap<(Instant, u64), (End, u8, Vec<u8>)>,
    flown: u64,
    recorded: Vec<(End, u8, Vec<u8>)>,
    sent: u64,
    delivered: u64,
    /// What has been seen at all, for [`World::check_coverage`].
    seen: BTreeMap<&'static str, u64>,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut host = LeafHost::new(key(1), MESH, rng.random());
        let devices = (0..LEAVES).map(|index| {
            let number = LeafNumber(index as u32 + 7);
            let admission = host.admit(number, [index as u8 + 50; 32], None).unwrap();
            Device {
                leaf: Leaf::new(key(index as u8 + 10), admission.clone(), rng.random()),
                number,
                admission,
                key: None,
                address: index as u8 * ADDRESSES,
                wakes: None,
                dozes_for: Duration::ZERO,
                decoder: FrameDecoder::new(),
                cut: false,
                to_host: Expected::default(),
                from_host: Expected::default(),
            }
        });
        let devices = devices.collect();
        World {
            serial: rng.random(),
            rng,
            now: Instant::START,
            faults: GOOD,
            host,
            devices,
            decoders: vec![FrameDecoder::new(); LEAVES * usize::from(ADDRESSES)],
            flying: BTreeMap::new(),
            flown: 0,
            recorded: Vec::new(),
            sent: 0,
            delivered: 0,
            seen: BTreeMap::new(),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// A life: bad times of several kinds, and then a good one in which everything must arrive.
    pub(super) fn live(&mut self) {
        for _ in 0..self.rng.random_range(2..7) {
            self.faults = self.some_faults();
            for _ in 0..self.rng.random_range(10..120) {
                self.act();
                let pause = Duration::from_micros(self.rng.random_range(0..400_000));
                self.run_until(self.now + pause);
            }
            if self.chance(30) {
                let pause = Duration::from_secs(self.rng.random_range(0..200));
                self.run_until(self.now + pause);
            }
        }
        self.get_well();
    }

    fn some_faults(&mut self) -> Faults {
        let mut percent = |max| {
            let max = if self.rng.random() { max } else { 1 };
            self.rng.random_range(0..max)
        };
        Faults {
            lost: percent(60),
            doubled: percent(40),
            damaged: percent(40),
            replayed: percent(40),
            delay_ms: [3, 30, 300, 2000][self.rng.random_range(0..4)],
        }
    }

    fn act(&mut self) {
        let index = self.rng.random_range(0..LEAVES);
        match self.rng.random_range(0..100) {
            0..30 => self.leaf_sends(index),
            30..60 => self.host_sends(index),
            60..70 => self.leaf_takes(index, 3),
            70..80 => self.host_takes(index, 3),
            80..84 => self.devices[index].cut = self.chance(50),
            84..86 => {
                let address = self.rng.random_range(0..ADDRESSES);
                self.devices[index].address = index as u8 * ADDRESSES + address;
            }
            86..91 => self.doze(index),
            91..93 if self.chance(50) => self.leaf_dies(index),
            93 if self.chance(50) => self.host_dies(),
            94..97 => self.forge(index),
            _ => {
                let device = &mut self.devices[index];
                device.wakes = None;
                device.leaf.wake(self.now);
            }
        }
        self.pump();
    }

    fn message(&mut self) -> (u64, Vec<u8>) {
        self.sent += 1;
        let mut message = self.sent.to_le_bytes().to_vec();
        let max = if self.rng.random() {
            MESSAGE_BYTES_MAX
        } else {
            30
        };
        message.resize(self.rng.random_range(8..=max), 0);
        (self.sent, message)
    }

    fn leaf_sends(&mut self, index: usize) {
        let (id, message) = self.message();
        let device = &mut self.devices[index];
        match device.leaf.send(&message) {
            Ok(()) => device.to_host.sent(id),
            Err(error) => assert_eq!(error, LinkError::Full { count: 4 }),
        }
    }

    fn host_sends(&mut self, index: usize) {
        let (id, message) = self.message();
        let device = &mut self.devices[index];
        match self.host.send(device.number, &message) {
            Ok(()) => device.from_host.sent(id),
            Err(error) => assert_eq!(error, LinkError::Full { count: 32 }),
        }
    }

    fn leaf_takes(&mut self, index: usize, max: usize) {
        let device = &mut self.devices[index];
        for _ in 0..max {
            let Some(message) = device.leaf.take() else {
                break;
            };
            device.from_host.came(id_of(&message));
            self.delivered += 1;
        }
    }

    fn host_takes(&mut self, index: usize, max: usize) {
        let device = &mut self.devices[index];
        for _ in 0..max {
            let Some(message) = self.host.take(device.number) else {
                break;
            };
            device.to_host.came(id_of(&message));
            self.delivered += 1;
        }
    }

    fn doze(&mut self, index: usize) {
        let duration = Duration::from_secs(self.rng.random_range(1..400));
        let device = &mut self.devices[index];
        if device.wakes.is_none() && device.leaf.doze(self.now, duration).is_ok() {
            device.dozes_for = duration;
        }
    }

    fn leaf_dies(&mut self, index: usize) {
        self.leaf_takes(index, usize::MAX);
        let entropy = self.rng.random();
        let device = &mut self.devices[index];
        device.leaf = Leaf::new(key(index as u8 + 10), device.admission.clone(), entropy);
        device.wakes = None;
        device.to_host.sender_died();
        self.note("a leaf died");
    }

    fn host_dies(&mut self) {
        let mut host = LeafHost::new(key(1), MESH, self.rng.random());
        for index in 0..LEAVES {
            self.host_takes(index, usize::MAX);
            let device = &mut self.devices[index];
            let secret = device.admission.secret;
            host.admit(device.number, secret, device.key).unwrap();
            device.from_host.sender_died();
        }
        self.host = host;
        self.note("the host died");
    }

    /// Somebody sends what he has overheard, or noise, to whom he likes.
    fn forge(&mut self, index: usize) {
        let to = if self.rng.random() {
            End::Leaf(index)
        } else {
            End::Host
        };
        let address = self.rng.random_range(0..LEAVES as u8 * ADDRESSES);
        let bytes = if self.recorded.is_empty() || self.chance(20) {
            let mut bytes = vec![0; self.rng.random_range(1..200)];
            self.rng.fill_bytes(&mut bytes);
            bytes[0] = 0x11 + self.rng.random_range(0..5);
            bytes
        } else {
            let recorded = self.rng.random_range(0..self.recorded.len());
            self.recorded[recorded].2.clone()
        };
        self.fly(to, address, bytes);
    }

    /// All faults end, and all that was not given up arrives.
    fn get_well(&mut self) {
        self.faults = GOOD;
        for index in 0..LEAVES {
            let device = &mut self.devices[index];
            device.cut = false;
            device.wakes = None;
            device.leaf.wake(self.now);
        }
        let deadline = self.now + Duration::from_secs(240);
        while self.now < deadline {
            self.pump();
            for index in 0..LEAVES {
                // One that was about to sleep has done so in the meantime.
                self.devices[index].wakes = None;
                self.devices[index].leaf.wake(self.now);
                self.leaf_takes(index, usize::MAX);
                self.host_takes(index, usize::MAX);
            }
            self.pump();
            let done = |device: &Device| {
                device.to_host.is_empty()
                    && device.from_host.is_empty()
                    && device.leaf.is_connected()
                    && device.leaf.unacknowledged() == 0
                    && self.host.unacknowledged(device.number) == 0
                    && self.host.state(device.number) == Some(LeafState::Connected)
            };
            if self.devices.iter().all(done) {
                return;
            }
            self.run_until(self.now + Duration::from_millis(500));
        }
        panic!("the line is good, and nothing goes on");
    }

    /// Lets time pass, with all that is due in it.
    fn run_until(&mut self, until: Instant) {
        loop {
            self.pump();
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let wakes = self.devices.iter().filter_map(|device| device.wakes);
            let timeouts = self
                .devices
                .iter()
                .filter_map(|device| device.leaf.poll_timeout());
            let due = arrival
                .into_iter()
                .chain(wakes)
                .chain(timeouts)
                .chain(self.host.poll_timeout());
            let due = due.min().unwrap_or(until);
            if due > until {
                break;
            }
            assert!(due + Duration::from_secs(9999) > self.now);
            self.now = self.now.max(due);
            self.arrive();
            self.host.handle_timeout(self.now);
            for index in 0..LEAVES {
                let device = &mut self.devices[index];
                if device.wakes.is_some_and(|wakes| wakes <= self.now) {
                    device.wakes = None;
                    device.leaf.wake(self.now);
                }
                device.leaf.handle_timeout(self.now);
            }
            self.pump();
            self.check_timeouts();
        }
        self.now = self.now.max(until);
    }

    /// Nobody wants to be asked again for what was done just now: that would be an endless loop.
    fn check_timeouts(&self) {
        let late = |timeout: Option<Instant>| timeout.is_some_and(|timeout| timeout <= self.now);
        assert!(
            !late(self.host.poll_timeout()),
            "the host does nothing about a timeout"
        );
        for device in &self.devices {
            assert!(
                !late(device.leaf.poll_timeout()),
                "a leaf does nothing about a timeout"
            );
        }
    }

    fn arrive(&mut self) {
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (to, address, bytes) = entry.remove();
            if !self.serial {
                self.handle(to, address, &bytes);
                continue;
            }
            let mut bytes = &bytes[..];
            loop {
                let decoder = match to {
                    End::Host => &mut self.decoders[usize::from(address)],
                    End::Leaf(index) => &mut self.devices[index].decoder,
                };
                let Some(packet) = decoder.next_packet(&mut bytes) else {
                    break;
                };
                let packet = packet.to_vec();
                self.handle(to, address, &packet);
            }
        }
    }

    fn handle(&mut self, to: End, address: u8, packet: &[u8]) {
        let handled = match to {
            End::Host => self.host.handle_packet(self.now, address, packet),
            End::Leaf(index) => self.devices[index].leaf.handle_packet(self.now, packet),
        };
        if handled.is_err() {
            self.note("a packet was dropped");
        }
        self.pump();
    }

    /// Everybody says all that he has to say.
    fn pump(&mut self) {
        let mut buffer = [0; PACKET_BYTES_MAX];
        for index in 0..LEAVES {
            let device = &mut self.devices[index];
            while let Some(event) = device.leaf.poll_event() {
                self.seen
                    .entry(name_of_leaf_event(&event))
                    .and_modify(|n| *n += 1)
                    .or_insert(1);
                match event {
                    LeafEvent::Restarted { unacknowledged } => {
                        let ids: Vec<u64> = unacknowledged.iter().map(|m| id_of(m)).collect();
                        device.to_host.given_back(&ids);
                    }
                    LeafEvent::MaySleep { .. } => device.wakes = Some(self.now + device.dozes_for),
                    _ => {}
                }
            }
            while let Some(packet) = self.devices[index]
                .leaf
                .poll_transmit(self.now, &mut buffer)
            {
                assert!(self.devices[index].wakes.is_none(), "it talks in its sleep");
                let (packet, address) = (packet.to_vec(), self.devices[index].address);
                self.send(End::Host, index, address, packet);
            }
        }
        while let Some(event) = self.host.poll_event() {
            let mut devices = self.devices.iter_mut();
            let device = devices.find(|device| device.number == event.leaf).unwrap();
            self.seen
                .entry(name_of_host_event(&event.kind))
                .and_modify(|n| *n += 1)
                .or_insert(1);
            match event.kind {
                HostEventKind::Restarted { unacknowledged } => {
                    let ids: Vec<u64> = unacknowledged.iter().map(|m| id_of(m)).collect();
                    device.from_host.given_back(&ids);
                }
                HostEventKind::Connected { key } => device.key = Some(key),
                _ => {}
            }
        }
        while let Some((address, packet)) = self.host.poll_transmit(self.now, &mut buffer) {
            let packet = packet.to_vec();
            let index = usize::from(address / ADDRESSES);
            // Whoever brings a packet on before its sender has it brought is where the leaf is, as in WireGuard; so
            // the address does not say which leaf it is.
            let asleep = self.devices.iter().all(|device| {
                let state = self.host.state(device.number);
                matches!(state, Some(LeafState::Asleep { .. }))
            });
            if asleep && packet[0] == 0x14 {
                assert_eq!(
                    packet.len(),
                    STANDING_BYTES,
                    "a message for one that sleeps"
                );
            }
            self.send(End::Leaf(index), index, address, packet);
        }
    }

    fn send(&mut self, to: End, index: usize, address: u8, packet: Vec<u8>) {
        if self.recorded.len() < 300 || self.chance(2) {
            let place = self.rng.random_range(0..=self.recorded.len().min(300));
            self.recorded.insert(place, (to, address, packet.clone()));
            self.recorded.truncate(300);
        }
        let device = &self.devices[index];
        // Its old addresses reach it no more.
        if device.cut
            || (to != End::Host && address != device.address)
            || self.chance(self.faults.lost)
        {
            return;
        }
        if self.chance(self.faults.doubled) {
            self.fly(to, address, packet.clone());
        }
        if self.chance(self.faults.replayed) {
            let old = self.rng.random_range(0..self.recorded.len());
            let (to, address, packet) = self.recorded[old].clone();
            self.fly(to, address, packet);
        }
        self.fly(to, address, packet);
    }

    fn fly(&mut self, to: End, address: u8, packet: Vec<u8>) {
        let mut bytes = if self.serial {
            frame(&packet, &mut [0; FRAME_BYTES_MAX]).to_vec()
        } else {
            packet
        };
        if self.chance(self.faults.damaged) {
            let at = self.rng.random_range(0..bytes.len());
            match self.rng.random_range(0..3) {
                0 => bytes[at] ^= 1 << self.rng.random_range(0..8),
                1 => bytes.truncate(at),
                _ => bytes.insert(at, self.rng.random()),
            }
        }
        self.flown += 1;
        let delay = Duration::from_micros(self.rng.random_range(100..=self.faults.delay_ms * 1000));
        // A serial line does not reorder.
        let mut at = self.now + delay;
        if self.serial {
            let ahead = self
                .flying
                .iter()
                .rev()
                .find(|(_, (other, of, _))| *other == to && *of == address);
            at = at.max(ahead.map_or(at, |((at, _), _)| *at));
        }
        self.flying.insert((at, self.flown), (to, address, bytes));
    }
}

fn id_of(message: &[u8]) -> u64 {
    u64::from_le_bytes(
        *message
            .first_chunk()
            .expect("a message of a world has an id"),
    )
}

fn name_of_leaf_event(event: &LeafEvent) -> &'static str {
    match event {
        LeafEvent::Connected => "leaf: connected",
        LeafEvent::Restarted { .. } => "leaf: restarted",
        LeafEvent::Unanswered => "leaf: unanswered",
        LeafEvent::Refused(_) => "leaf: refused",
        LeafEvent::Writable => "leaf: writable",
        LeafEvent::MaySleep { known: true } => "leaf: may sleep, known",
        LeafEvent::MaySleep { known: false } => "leaf: may sleep, unknown",
    }
}

fn name_of_host_event(event: &HostEventKind) -> &'static str {
    match event {
        HostEventKind::Connected { .. } => "host: connected",
        HostEventKind::Restarted { .. } => "host: restarted",
        HostEventKind::Readable => "host: readable",
        HostEventKind::Writable => "host: writable",
        HostEventKind::Asleep { .. } => "host: asleep",
        HostEventKind::Awake => "host: awake",
        HostEventKind::Gone => "host: gone",
    }
}

/// Lives with these seeds, of which `LEAF_SEEDS` in the environment may ask for more.
#[test]
fn messages_come_once_and_in_order_whatever_happens() {
    let seeds = std::env::var("LEAF_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok());
    let (mut seen, mut delivered) = (BTreeMap::new(), 0);
    for seed in 0..seeds.unwrap_or(400) {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.live();
        delivered += world.delivered;
        for (what, count) in world.seen {
            *seen.entry(what).or_insert(0) += count;
        }
    }
    println!("{delivered} delivered; {seen:#?}");
    for what in [
        "a leaf died",
        "the host died",
        "a packet was dropped",
        "leaf: connected",
        "leaf: restarted",
        "leaf: unanswered",
        "leaf: writable",
        "leaf: may sleep, known",
        "leaf: may sleep, unknown",
        "host: connected",
        "host: restarted",
        "host: readable",
        "host: writable",
        "host: asleep",
        "host: awake",
        "host: gone",
    ] {
        assert!(seen.contains_key(what), "never: {what}");
    }
    assert!(
        !seen.contains_key("leaf: refused"),
        "nobody here is to be refused"
    );
}
