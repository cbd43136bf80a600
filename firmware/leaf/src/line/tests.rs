//! A line with a host at its other end.

use std::vec;
use std::vec::Vec;

use mielin_mesh_core::leaf::{HostEventKind, LeafHost, LeafNumber, LeafState, SecretKey};

use super::*;

const NUMBER: LeafNumber = LeafNumber(1);

struct Pair {
    now: Instant,
    line: Line,
    host: LeafHost<()>,
    decoder: FrameDecoder,
    host_events: Vec<HostEventKind>,
    events: Vec<LineEvent>,
    quiet: bool,
}

impl Pair {
    /// Two ends, of which the leaf has this secret.
    fn new(secret: [u8; 32]) -> Self {
        let mut host = LeafHost::new(SecretKey::from_bytes([1; 32]), [2; 32], [3; 32]);
        let mut admission = host.admit(NUMBER, [4; 32], None).expect("there is room");
        admission.secret = secret;
        Self {
            now: Instant::START,
            line: Line::new(Leaf::new(
                SecretKey::from_bytes([5; 32]),
                admission,
                [6; 32],
            )),
            host,
            decoder: FrameDecoder::new(),
            host_events: Vec::new(),
            events: Vec::new(),
            quiet: false,
        }
    }

    /// Both do what there is to do now.
    fn turn(&mut self) {
        self.line.handle_time(self.now, self.quiet);
        self.host.handle_timeout(self.now);
        loop {
            let mut moved = false;
            let mut buffer = [0; FRAME_BYTES_MAX];
            if let Some(bytes) = self.line.poll_frame(self.now, &mut buffer) {
                moved = true;
                for byte in bytes {
                    if let Some(packet) = self.decoder.push(*byte) {
                        let _ = self.host.handle_packet(self.now, (), packet);
                    }
                }
            }
            let mut packet = [0; PACKET_BYTES_MAX];
            if let Some(((), packet)) = self.host.poll_transmit(self.now, &mut packet) {
                moved = true;
                for byte in frame(packet, &mut buffer) {
                    self.line.receive(self.now, *byte);
                }
            }
            if !moved {
                break;
            }
        }
        while let Some(event) = self.host.poll_event() {
            self.host_events.push(event.kind);
        }
        while let Some(event) = self.line.poll_event() {
            self.events.push(event);
        }
    }

    /// Lets time pass, as both want to be called.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.turn();
            let next = [self.line.next_at(self.quiet), self.host.poll_timeout()];
            let next = next.into_iter().flatten().min().unwrap_or(until);
            let least = self.now + Duration::from_millis(1);
            self.now = next.max(least).min(until);
        }
        self.turn();
    }
}

#[test]
fn messages_go_both_ways() {
    let mut pair = Pair::new([4; 32]);
    pair.turn();
    assert_eq!(pair.events, [LineEvent::Connected]);
    pair.line.send(pair.now, b"up").expect("there is room");
    pair.host.send(NUMBER, b"down").expect("there is room");
    pair.turn();
    assert_eq!(pair.host.take(NUMBER), Some(b"up".to_vec()));
    assert_eq!(pair.line.take(), Some(b"down".to_vec()));
    assert_eq!(pair.line.dropped(), 0);
}

#[test]
fn garbage_does_no_harm() {
    let mut pair = Pair::new([4; 32]);
    pair.pass(Duration::from_secs(1));
    let mut noise = Vec::new();
    for n in 0..5000_u32 {
        noise.push((n.wrapping_mul(2_654_435_761) >> 13) as u8);
    }
    // Frames of it, and one without an end.
    noise.extend([0, 5, 1, 2, 3, 4, 0, 1, 1, 1, 0]);
    noise.extend(vec![7; 2000]);
    for byte in noise {
        pair.line.receive(pair.now, byte);
    }
    assert!(pair.line.dropped() > 2);
    pair.host
        .send(NUMBER, b"all the same")
        .expect("there is room");
    pair.pass(Duration::from_secs(3));
    assert_eq!(pair.line.take(), Some(b"all the same".to_vec()));
    assert_eq!(pair.events, [LineEvent::Connected]);
}

#[test]
fn a_wrong_key_is_refused_and_tried_again_a_minute_later() {
    let mut pair = Pair::new([0; 32]);
    pair.pass(Duration::from_secs(59));
    let refused = LineEvent::Refused(Refusal::OtherSecret);
    assert_eq!(pair.events, std::slice::from_ref(&refused));
    assert!(!pair.line.is_connected());
    pair.pass(Duration::from_secs(2));
    assert_eq!(pair.events, [refused.clone(), refused]);
}

#[test]
fn it_sleeps_when_nobody_needs_the_line() {
    let mut pair = Pair::new([4; 32]);
    pair.pass(Duration::from_secs(20));
    assert!(!pair.line.is_asleep(), "it is needed");
    pair.quiet = true;
    pair.pass(Duration::from_secs(1));
    assert!(pair.line.is_asleep());
    assert!(matches!(
        pair.host.state(NUMBER),
        Some(LeafState::Asleep { .. })
    ));
    // What is for it waits until it wakes by itself.
    pair.host.send(NUMBER, b"later").expect("there is room");
    pair.pass(Duration::from_secs(6));
    assert_eq!(pair.line.take(), None);
    pair.pass(Duration::from_secs(2));
    assert_eq!(pair.line.take(), Some(b"later".to_vec()));
    // It falls asleep again, and what it has to say wakes it at once.
    pair.pass(Duration::from_secs(4));
    assert!(pair.line.is_asleep());
    pair.line.send(pair.now, b"now").expect("there is room");
    pair.turn();
    assert_eq!(pair.host.take(NUMBER), Some(b"now".to_vec()));
    assert!(!pair.line.is_asleep());
    // Never gone, and never connected anew.
    assert!(!pair.host_events.contains(&HostEventKind::Gone));
    let connected = |kind: &&HostEventKind| matches!(kind, HostEventKind::Connected { .. });
    assert_eq!(pair.host_events.iter().filter(connected).count(), 1);
}
