//! A leaf and its host with agents on the way, between whom somebody changes, invents and repeats messages.
#![allow(clippy::unwrap_used)]

use mielin_fuzz::{Seed, Steps, Target};
use mielin_mesh_core::delivery::MessageKind;
use mielin_mesh_core::handover::{
    Guest, HostEnd, HostEndEvent, HostMessage, LeafEnd, LeafEndEvent, LeafMessage, Letter, Offer,
    Phase, PostResult, Profile, Reading, Reason, Role, Status, Transfer,
};
use mielin_mesh_core::leaf::MESSAGE_BYTES_MAX;
use mielin_mesh_core::{AgentId, Epoch, Name};

pub(crate) const TARGET: Target = Target {
    name: "handover",
    mutations: 1_500,
    fixed_bytes: 128 << 10,
    bytes_per_byte: 32,
    run,
    seeds,
};

/// A message for the host.
const TO_HOST: u8 = 0;
/// A message for the leaf.
const TO_LEAF: u8 = 1;
/// Both say what they have to say: as many messages as there are bytes, each with the byte added to one of its bytes.
const TALK: u8 = 2;
/// The drivers do something: what, each byte says.
const ACT: u8 = 3;
/// The streams begin again.
const CUT: u8 = 4;
const STEPS_MAX: usize = 32;

/// One that runs at the leaf, in epoch 5, and one that is given to it.
const A: AgentId = AgentId([0xa; 16]);
const B: AgentId = AgentId([0xb; 16]);
const STAY: Epoch = Epoch(5);

struct Pair {
    leaf: LeafEnd,
    host: HostEnd,
    arrived_at_leaf: Vec<AgentId>,
    arrived_at_host: Vec<AgentId>,
    held: Vec<AgentId>,
    understood: bool,
}

fn new_leaf(boot: u64) -> LeafEnd {
    let status = Status {
        ready: true,
        room_bytes: 5_000,
        ..Status::default()
    };
    let profile = Profile {
        name: Name::new("shed").unwrap(),
        sensors: 2,
        actuators: 1,
        status,
    };
    LeafEnd::new(boot, profile).unwrap()
}

impl Pair {
    fn new(leaf: LeafEnd, host: HostEnd) -> Pair {
        Pair {
            leaf,
            host,
            arrived_at_leaf: Vec::new(),
            arrived_at_host: Vec::new(),
            held: Vec::new(),
            understood: false,
        }
    }

    fn with_agents() -> Pair {
        let mut pair = Pair::new(new_leaf(1), HostEnd::new());
        pair.host.offer(A, STAY, vec![1; 600]).unwrap();
        pair.settle();
        assert_eq!(pair.leaf.guests().count(), 1);
        pair.host.offer(B, STAY, vec![2; 900]).unwrap();
        pair
    }

    fn host_hears(&mut self, message: &[u8]) {
        if let Ok((known, tail)) = LeafMessage::decode(message) {
            let again = known.encode(tail);
            assert_eq!(LeafMessage::decode(&again), Ok((known, tail)));
        }
        self.understood |= self.host.handle_message(message).is_ok();
        self.look();
    }

    fn leaf_hears(&mut self, message: &[u8]) {
        if let Ok((known, tail)) = HostMessage::decode(message) {
            let again = known.encode(tail);
            assert_eq!(HostMessage::decode(&again), Ok((known, tail)));
        }
        self.understood |= self.leaf.handle_message(message).is_ok();
        self.look();
    }

    /// The next message of either. Whether there was one.
    fn talk(&mut self, spoil: impl Fn(Vec<u8>) -> Vec<u8>) -> bool {
        if let Some(message) = self.host.poll_message(1) {
            assert!(message.len() <= MESSAGE_BYTES_MAX);
            self.leaf_hears(&spoil(message));
        } else if let Some(message) = self.leaf.poll_message() {
            assert!(message.len() <= MESSAGE_BYTES_MAX);
            self.host_hears(&spoil(message));
        } else {
            return false;
        }
        true
    }

    fn look(&mut self) {
        while let Some(event) = self.leaf.poll_event() {
            match event {
                LeafEndEvent::Arrived { agent, .. } => self.arrived_at_leaf.push(agent),
                LeafEndEvent::Cancelled { agent, .. } => {
                    self.arrived_at_leaf.retain(|arrived| *arrived != agent);
                }
                LeafEndEvent::Run { agent, .. } => {
                    assert!(!self.arrived_at_leaf.contains(&agent), "not accepted");
                }
                _ => {}
            }
        }
        while let Some(event) = self.host.poll_event() {
            match event {
                HostEndEvent::Arrived { agent, .. } => self.arrived_at_host.push(agent),
                HostEndEvent::Held { agent, .. } => self.held.push(agent),
                HostEndEvent::Found { agent, epoch, .. } => {
                    self.host.restore(agent, epoch, Role::Away).unwrap();
                }
                _ => {}
            }
        }
    }

    /// What drivers must do.
    fn answer(&mut self) {
        for agent in self.arrived_at_leaf.drain(..) {
            self.leaf.accept(agent).unwrap();
        }
        // Of these the other end, which may say anything, may have thought otherwise in the meantime.
        for agent in self.held.drain(..) {
            let _ = self.host.let_go(agent);
        }
        for agent in self.arrived_at_host.drain(..) {
            let _ = self.host.have(agent);
        }
        self.look();
    }

    fn act(&mut self, what: u8) {
        let next = self.leaf.guests().find(|guest| guest.agent == A);
        let next = next.map_or(0, |guest| guest.taken);
        let letter = Letter {
            from: B,
            sequence: 1,
            kind: MessageKind::Send,
        };
        match what % 16 {
            0 => self.answer(),
            1 => drop(self.leaf.want(A, next)),
            2 => drop(self.leaf.post(A, B, MessageKind::Request, b"post")),
            3 => drop(self.leaf.offer(A, vec![3; 500], next)),
            4 => drop(self.leaf.cancel(A)),
            5 => drop(self.leaf.log(A, 1, b"line")),
            6 => {
                if let Some(after) = self.leaf.wanted_readings(0) {
                    let reading = Reading {
                        number: after.saturating_add(1),
                        time_ns: 0,
                        value: 0,
                    };
                    let _ = self.leaf.reading(0, reading);
                }
            }
            7 => drop(self.leaf.actuated(0, 0)),
            8 => drop(self.host.mail(A, STAY, next, letter, b"mail")),
            9 => drop(self.host.posted(A, STAY, 0, PostResult::Full)),
            10 => self.host.sense(0, next),
            11 => drop(self.host.actuate(0, 1)),
            12 => drop(self.host.come(A)),
            13 => drop(self.host.cancel(B)),
            14 => drop(self.host.offer(B, Epoch(9), vec![4; 700])),
            _ => self.leaf.set_status(Status::default()),
        }
        self.look();
    }

    fn cut(&mut self) {
        self.leaf.restarted();
        self.host.restarted();
        self.look();
    }

    /// Nobody stands between them: all that both say is understood, and what has begun ends.
    fn settle(&mut self) {
        self.look();
        let mut messages = 0;
        loop {
            self.answer();
            if let Some(message) = self.host.poll_message(1) {
                self.leaf.handle_message(&message).unwrap();
            } else if let Some(message) = self.leaf.poll_message() {
                self.host.handle_message(&message).unwrap();
            } else {
                break;
            }
            self.look();
            messages += 1;
            assert!(messages < 1_000, "they do not come to an end");
        }
        assert!(self.leaf.is_welcomed() && self.host.is_greeted());
        let rests = |guest: Guest| guest.phase == Phase::Running;
        assert!(self.leaf.guests().all(rests), "an agent stays on its way");
    }
}

fn run(input: &[u8]) -> bool {
    let mut pair = Pair::with_agents();
    for (kind, bytes) in Steps::new(input).take(STEPS_MAX) {
        match kind {
            TO_HOST => pair.host_hears(bytes),
            TO_LEAF => pair.leaf_hears(bytes),
            TALK => {
                for &change in bytes.iter().take(64) {
                    pair.talk(|mut message| {
                        let at = usize::from(change) % message.len();
                        message[at] = message[at].wrapping_add(change);
                        message
                    });
                }
            }
            ACT => bytes.iter().take(64).for_each(|what| pair.act(*what)),
            CUT => pair.cut(),
            _ => {}
        }
    }
    let understood = pair.understood;
    // Whatever that was, a host that has started anew understands this leaf, and a leaf that has, this host.
    let mut host = HostEnd::new();
    host.restore(A, STAY, Role::Away).unwrap();
    let Pair {
        mut leaf,
        host: old_host,
        ..
    } = pair;
    leaf.restarted();
    while leaf.poll_event().is_some() {}
    Pair::new(leaf, host).settle();
    let mut pair = Pair::new(new_leaf(2), old_host);
    pair.host.restarted();
    pair.look();
    // What had arrived from the old one was stored or not.
    for agent in [A, B] {
        let _ = pair.host.have(agent);
    }
    pair.settle();
    understood
}

fn steps(steps: &[(u8, &[u8])]) -> Vec<u8> {
    Steps::write(steps)
}

/// What the leaf of [`Pair::with_agents`] says after a cut.
fn hello() -> Vec<u8> {
    let mut pair = Pair::with_agents();
    pair.cut();
    pair.leaf.poll_message().unwrap()
}

fn to_host(transfer: Transfer, tail: &[u8]) -> Vec<u8> {
    LeafMessage::Transfer(transfer).encode(tail)
}

fn to_leaf(transfer: Transfer, tail: &[u8]) -> Vec<u8> {
    HostMessage::Transfer(transfer).encode(tail)
}

fn offer(agent: AgentId, epoch: Epoch, bytes: u32) -> Transfer {
    Transfer::Offer(Offer {
        agent,
        epoch,
        bytes,
        taken: 0,
        posted: 0,
    })
}

fn post(number: u64, again: bool) -> Vec<u8> {
    let message = LeafMessage::Post {
        agent: A,
        epoch: STAY,
        number,
        again,
        to: B,
        kind: MessageKind::Reply { to_sequence: 3 },
    };
    message.encode(b"payload")
}

fn seeds() -> Vec<Seed> {
    let mut seeds = hand_overs();
    seeds.extend(lives());
    let mut newer = hello();
    newer[1] = 2;
    let long = [1; 600];
    seeds.extend([
        Seed::good("hello", steps(&[(TO_HOST, &hello())])),
        Seed::bad("another-version", steps(&[(TO_HOST, &newer)])),
        Seed::bad("hello-cut-off", steps(&[(TO_HOST, &hello()[..30])])),
        Seed::bad("too-long", steps(&[(TO_LEAF, &long), (TO_HOST, &long)])),
        Seed::bad("never-posted", steps(&[(TO_HOST, &post(7, false))])),
    ]);
    seeds
}

/// What is said of agents by somebody else than the ends.
fn hand_overs() -> Vec<Seed> {
    let chunk = |offset| Transfer::Chunk { offset };
    let (agent, epoch) = (A, Epoch(6));
    let up = [
        to_host(offer(A, epoch, 5), &[]),
        to_host(chunk(0), b"abc"),
        to_host(chunk(3), b"de"),
        to_host(Transfer::Run { agent, epoch }, &[]),
    ];
    let (agent, epoch) = (B, STAY);
    let down = [
        to_leaf(offer(B, STAY, 5), &[]),
        to_leaf(chunk(0), b"abcde"),
        to_leaf(Transfer::Run { agent, epoch }, &[]),
        to_leaf(Transfer::Cancel { agent, epoch }, &[]),
    ];
    let refuse = Transfer::Refuse {
        agent,
        epoch,
        reason: Reason::NoRoom { room_bytes: 9 },
    };
    let large = to_host(offer(A, Epoch(6), u32::MAX), &[]);
    vec![
        Seed::good(
            "from-the-leaf",
            steps(&[
                (TO_HOST, &up[0]),
                (TO_HOST, &up[1]),
                (TO_HOST, &up[2]),
                (ACT, &[0]),
                (TO_HOST, &up[3]),
            ]),
        ),
        Seed::good(
            "to-the-leaf",
            steps(&[
                (TO_LEAF, &down[0]),
                (TO_LEAF, &down[1]),
                (ACT, &[0]),
                (TO_LEAF, &down[2]),
                (TO_LEAF, &down[3]),
            ]),
        ),
        Seed::good("refused", steps(&[(TO_HOST, &to_host(refuse, &[]))])),
        Seed::good("too-large", steps(&[(TO_HOST, &large), (TALK, &[0; 2])])),
        Seed::good(
            "told-to-run-what-is-not-here",
            steps(&[(TO_LEAF, &down[2]), (TALK, &[0; 9])]),
        ),
        Seed::bad("not-let-go", steps(&[(TO_LEAF, &down[2])])),
    ]
}

/// What the ends themselves do.
fn lives() -> Vec<Seed> {
    vec![
        Seed::good(
            "talk",
            steps(&[(TALK, &[0; 40]), (ACT, &[0]), (TALK, &[0; 9])]),
        ),
        Seed::good(
            "posts",
            steps(&[
                (TO_HOST, &post(0, false)),
                (TO_HOST, &post(0, true)),
                (ACT, &[9]),
                (TO_HOST, &post(1, true)),
            ]),
        ),
        Seed::good(
            "leaves-and-stays",
            steps(&[
                (ACT, &[1, 2, 3, 5]),
                (TALK, &[0; 9]),
                (ACT, &[8, 9, 3]),
                (TALK, &[0; 9]),
                (ACT, &[4, 0]),
                (TALK, &[0; 9]),
            ]),
        ),
        Seed::good(
            "sensed-and-moved",
            steps(&[
                (ACT, &[10, 11]),
                (TALK, &[0; 9]),
                (ACT, &[6, 6, 7]),
                (TALK, &[0; 9]),
                (CUT, &[]),
                (TALK, &[0; 9]),
            ]),
        ),
        Seed::good(
            "spoilt-now-and-then",
            steps(&[
                (TALK, &[0, 0, 3, 0, 0, 1, 0]),
                (ACT, &[0, 3, 12]),
                (TALK, &[0, 1, 0, 0, 17, 0]),
                (CUT, &[]),
                (TALK, &[0, 2, 0, 0]),
            ]),
        ),
    ]
}
