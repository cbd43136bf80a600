//! A leaf and its host between whom somebody stands who changes, invents and repeats packets and frames.
#![allow(clippy::unwrap_used)]

use core::time::Duration;

use mielin_fuzz::{Seed, Steps, Target};
use mielin_mesh_core::Instant;
use mielin_mesh_core::leaf::{
    FRAME_BYTES_MAX, FrameDecoder, HostEventKind, Leaf, LeafHost, LeafNumber, PACKET_BYTES_MAX,
    SecretKey, frame,
};

pub(crate) const TARGET: Target = Target {
    name: "leaf",
    mutations: 1_500,
    fixed_bytes: 64 << 10,
    bytes_per_byte: 32,
    run,
    seeds,
};

/// A packet for the host.
const TO_HOST: u8 = 0;
/// A packet for the leaf.
const TO_LEAF: u8 = 1;
/// Bytes on a serial line; the packets in it go to both.
const LINE: u8 = 2;
/// Everybody says what he has to say: as many packets as there are bytes, each with the byte added to one of its bytes.
const TALK: u8 = 3;
/// Time passes: as many tenths of a second as the first byte says.
const TIME: u8 = 4;
const STEPS_MAX: usize = 32;

const NUMBER: LeafNumber = LeafNumber(1);
const UP: &[u8] = b"up";
const DOWN: &[u8] = b"down";

struct Link {
    host: LeafHost<()>,
    leaf: Leaf,
    decoder: FrameDecoder,
    now: Instant,
    understood: bool,
    up: usize,
    down: usize,
}

fn leaf_key() -> SecretKey {
    SecretKey::from_bytes([3; 32])
}

impl Link {
    fn new() -> Link {
        let mut host = LeafHost::new(SecretKey::from_bytes([1; 32]), [9; 32], [2; 32]);
        let admission = host.admit(NUMBER, [5; 32], None).unwrap();
        Link {
            host,
            leaf: Leaf::new(leaf_key(), admission, [4; 32]),
            decoder: FrameDecoder::new(),
            now: Instant::START,
            understood: false,
            up: 0,
            down: 0,
        }
    }

    fn host_hears(&mut self, packet: &[u8]) {
        self.understood |= self.host.handle_packet(self.now, (), packet).is_ok();
    }

    fn leaf_hears(&mut self, packet: &[u8]) {
        self.understood |= self.leaf.handle_packet(self.now, packet).is_ok();
    }

    /// The next packet of either, changed by `change` unless that is zero. Whether there was one.
    fn talk(&mut self, change: u8) -> bool {
        let mut buffer = [0; PACKET_BYTES_MAX];
        let spoil = |packet: &[u8]| {
            let mut packet = packet.to_vec();
            let at = usize::from(change) % packet.len();
            packet[at] ^= change;
            packet
        };
        if let Some((_, packet)) = self.host.poll_transmit(self.now, &mut buffer) {
            let packet = spoil(packet);
            self.leaf_hears(&packet);
        } else if let Some(packet) = self.leaf.poll_transmit(self.now, &mut buffer) {
            let packet = spoil(packet);
            self.host_hears(&packet);
        } else {
            return false;
        }
        true
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.leaf.handle_timeout(self.now);
        self.host.handle_timeout(self.now);
    }

    /// Only what was sent comes, as often as it was sent, and only the leaf is the leaf.
    fn look(&mut self) {
        while let Some(message) = self.host.take(NUMBER) {
            assert_eq!(message, UP);
            self.up -= 1;
        }
        while let Some(message) = self.leaf.take() {
            assert_eq!(message, DOWN);
            self.down -= 1;
        }
        while let Some(event) = self.host.poll_event() {
            assert_eq!(event.node, leaf_key().public().node_id());
            assert!(!matches!(event.kind, HostEventKind::Restarted { .. }));
        }
        while self.leaf.poll_event().is_some() {}
    }
}

fn run(input: &[u8]) -> bool {
    let mut link = Link::new();
    link.pass(Duration::ZERO);
    for (kind, bytes) in Steps::new(input).take(STEPS_MAX) {
        match kind {
            TO_HOST => link.host_hears(bytes),
            TO_LEAF => link.leaf_hears(bytes),
            LINE => {
                let mut bytes = bytes;
                while let Some(packet) = link.decoder.next_packet(&mut bytes) {
                    let packet = packet.to_vec();
                    let again = reframed(&packet);
                    assert_eq!(again.as_deref(), Some(&packet[..]));
                    link.host_hears(&packet);
                    link.leaf_hears(&packet);
                }
            }
            TALK => {
                link.up += usize::from(link.leaf.send(UP).is_ok());
                link.down += usize::from(link.host.send(NUMBER, DOWN).is_ok());
                for &change in bytes.iter().take(64) {
                    link.talk(change);
                }
            }
            TIME => {
                let tenths = bytes.first().copied().unwrap_or(0);
                link.pass(Duration::from_millis(100) * tenths.into());
            }
            _ => {}
        }
        link.look();
    }
    let understood = link.understood;
    // Whatever that was: when nobody stands between them any more, everything arrives.
    link.up += usize::from(link.leaf.send(UP).is_ok());
    link.down += usize::from(link.host.send(NUMBER, DOWN).is_ok());
    for _ in 0..600 {
        while link.talk(0) {}
        link.look();
        if link.up == 0 && link.down == 0 {
            return understood;
        }
        link.pass(Duration::from_millis(500));
    }
    panic!("{} and {} messages do not arrive", link.up, link.down);
}

fn reframed(packet: &[u8]) -> Option<Vec<u8>> {
    let mut line = [0; FRAME_BYTES_MAX];
    // The decoder knows the empty frame, which is no packet.
    if packet.is_empty() {
        return Some(Vec::new());
    }
    let mut frame = frame(packet, &mut line);
    FrameDecoder::new()
        .next_packet(&mut frame)
        .map(<[u8]>::to_vec)
}

fn steps(steps: &[(u8, &[u8])]) -> Vec<u8> {
    Steps::write(steps)
}

/// The hello of the leaf of [`Link::new`], and the answer.
fn handshake() -> (Vec<u8>, Vec<u8>) {
    let mut link = Link::new();
    link.pass(Duration::ZERO);
    let mut buffer = [0; PACKET_BYTES_MAX];
    let hello = link
        .leaf
        .poll_transmit(link.now, &mut buffer)
        .unwrap()
        .to_vec();
    link.host_hears(&hello);
    let (_, answer) = link.host.poll_transmit(link.now, &mut buffer).unwrap();
    (hello, answer.to_vec())
}

fn seeds() -> Vec<Seed> {
    let (hello, answer) = handshake();
    let mut line = [0; FRAME_BYTES_MAX];
    let framed = frame(&hello, &mut line).to_vec();
    let mut newer = hello.clone();
    newer[0] = 0x21;
    let mut damaged = answer.clone();
    damaged[30] ^= 1;
    let long = [7; 3000];
    vec![
        Seed::good("hello", steps(&[(TO_HOST, &hello)])),
        Seed::good(
            "hello-twice",
            steps(&[(TO_HOST, &hello), (TO_HOST, &hello), (TALK, &[0; 9])]),
        ),
        Seed::good("answer", steps(&[(TO_HOST, &hello), (TO_LEAF, &answer)])),
        Seed::good(
            "framed",
            steps(&[(LINE, &framed), (LINE, &long), (LINE, &framed)]),
        ),
        Seed::good(
            "talk",
            steps(&[(TALK, &[0; 30]), (TIME, &[3]), (TALK, &[0; 30])]),
        ),
        Seed::good(
            "spoilt-now-and-then",
            steps(&[
                (TALK, &[0, 0, 0, 0, 7, 0, 9, 0, 33, 0]),
                (TIME, &[30]),
                (TALK, &[0, 5, 0, 0, 80, 0]),
            ]),
        ),
        Seed::good(
            "unknown",
            steps(&[(TALK, &[0; 30]), (TO_HOST, &[0x14; 40]), (TALK, &[0; 9])]),
        ),
        Seed::good(
            "long-silence",
            steps(&[
                (TALK, &[0; 9]),
                (TIME, &[255]),
                (TIME, &[255]),
                (TALK, &[0; 9]),
            ]),
        ),
        Seed::bad("another-version", steps(&[(TO_HOST, &newer)])),
        Seed::bad("hello-cut-off", steps(&[(TO_HOST, &hello[..100])])),
        Seed::bad("damaged-answer", steps(&[(TO_LEAF, &damaged)])),
        Seed::bad(
            "noise",
            steps(&[
                (LINE, &long),
                (TO_HOST, &long[..500]),
                (TO_LEAF, &long[..500]),
            ]),
        ),
    ]
}
