//! A node and its host, without a line between them.

use std::boxed::Box;
use std::string::String;
use std::vec;

use core::sync::atomic::{AtomicU64, Ordering};
use mielin_mesh_core::handover::{HostEnd, HostEndEvent, Letter, PostResult};
use mielin_safepoint::{Resumable, Snapshot, SnapshotLimits, instrument};
use mielin_wasm::{
    Address, Capability, Checkpoint, HostState, Instance, Level, Limits, LogError, LogStream,
    NoRandomBytes, Receive, SendError, Sensed, Services, interpreter,
};

use super::*;
use crate::{AGENTS_MAX, MEMORY_BYTES_MAX, Recording};

const AGENT: AgentId = AgentId([7; 16]);
const SERIES: [i32; 5] = [215, 217, -3, 220, 1000];
const TRAITS: BatteryTraits = BatteryTraits {
    capacity: 1_000_000,
    awake_ms: 100,
    asleep_ms: 1,
    line_byte: 0,
    charger_ms: 300,
    charger_at_percent: 10,
    full_percent: 60,
};

/// Reads a sensor until it has so many readings, notes the number of the last one, the sum, the count and how many are lost, and prints these.
fn reader(count: u32) -> Resumable {
    let text = std::format!(
        r#"(module
  (import "mielin" "sense" (func $sense (param i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 128) "\40\00\00\00\20\00\00\00")
  (func $add (param $at i32) (param $much i64)
    (i64.store (local.get $at) (i64.add (i64.load (local.get $at)) (local.get $much))))
  (func (export "_start")
    (loop $again
      (if (call $sense (i32.const 0) (i64.load (i32.const 64)) (i64.const -1) (i32.const 0)) (then unreachable))
      (call $add (i32.const 88)
        (i64.sub (i64.sub (i64.load (i32.const 0)) (i64.load (i32.const 64))) (i64.const 1)))
      (i64.store (i32.const 64) (i64.load (i32.const 0)))
      (call $add (i32.const 72) (i64.load (i32.const 16)))
      (call $add (i32.const 80) (i64.const 1))
      (br_if $again (i64.lt_u (i64.load (i32.const 80)) (i64.const {count}))))
    (drop (call $write (i32.const 1) (i32.const 128) (i32.const 1) (i32.const 136)))))"#
    );
    module(&text)
}

/// What it prints.
fn figures(count: u64) -> Vec<u8> {
    let sum: i64 = (0..count as usize).map(|n| i64::from(SERIES[n % 5])).sum();
    [count, sum as u64, count, 0].map(u64::to_le_bytes).concat()
}

fn module(text: &str) -> Resumable {
    instrument(&wat::parse_str(text).expect("it is a module")).expect("it can be rewritten")
}

/// A clock that the test winds.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl Platform for Clock {
    fn monotonic_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn realtime_ns(&self) -> u64 {
        0
    }

    fn fill_random(&self, _: &mut [u8]) -> Result<(), NoRandomBytes> {
        Err(NoRandomBytes {
            reason: "there is none".into(),
        })
    }
}

/// What the host does for an agent that is there.
#[derive(Default)]
struct There {
    readings: Mutex<Vec<WireReading>>,
    /// The agent is done with readings up to here.
    done: AtomicU64,
    out: Mutex<Vec<u8>>,
}

impl Services for There {
    fn write_log(&self, _: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        self.out.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn log(&self, _: Level, _: &str) {}

    fn send(&self, _: Address, _: mielin_wasm::MessageKind, _: &[u8]) -> Result<u64, SendError> {
        Err(SendError::Unknown)
    }

    fn receive(&self, _: usize) -> Receive {
        Receive::Empty
    }

    fn sense(&self, _: u8, after: u64) -> Sensed {
        self.done.store(after, Ordering::Relaxed);
        let readings = self.readings.lock();
        let reading = readings.iter().find(|reading| reading.number > after);
        reading.map_or(Sensed::NotYet, |reading| {
            Sensed::Reading(mielin_wasm::Reading {
                number: reading.number,
                time_ns: reading.time_ns,
                value: reading.value,
            })
        })
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        panic!("{call} needs {capability}");
    }
}

struct World {
    node: Node,
    end: HostEnd,
    clock: &'static Clock,
    now: Instant,
    module: Resumable,
    here: Option<Box<dyn Instance>>,
    there: Arc<There>,
    /// Of an agent that has arrived at the host and is not released.
    stored: Option<Vec<u8>>,
    stay: Option<Epoch>,
    epoch: Epoch,
    offered: bool,
    moves: u32,
    ready: bool,
    written: Vec<u8>,
    posts: Vec<Vec<u8>>,
    /// The next mail that is wanted, and what there is.
    wants: Option<u64>,
    mail: Vec<(Letter, Vec<u8>)>,
    reports: Vec<String>,
}

impl World {
    fn new(module: Resumable, room: Room) -> Self {
        let clock: &'static Clock = Box::leak(Box::default());
        let recording = Recording::new(&SERIES, Duration::from_millis(10), Instant::START, 0);
        let node = Node::new(Parts {
            name: Name::new("shed").expect("it is a name"),
            boot: 1,
            platform: clock,
            devices: Devices::new(vec![recording], 1),
            battery: TRAITS,
            room,
        });
        Self {
            node: node.expect("the name is short"),
            end: HostEnd::new(),
            clock,
            now: Instant::START,
            module,
            here: None,
            there: Arc::default(),
            stored: None,
            stay: None,
            epoch: Epoch(0),
            offered: false,
            moves: 0,
            ready: true,
            written: Vec::new(),
            posts: Vec::new(),
            wants: None,
            mail: Vec::new(),
            reports: Vec::new(),
        }
    }

    /// A program that has not begun, at the host.
    fn instance(&self) -> Box<dyn Instance> {
        let prepared = interpreter().prepare(&self.module, None).expect("it runs");
        let mut state = HostState::on(self.clock, Address(AGENT.0));
        for grant in ["sensor", "message", "actuator", "clock"] {
            state.grants.grant(grant.parse().expect("it is one"));
        }
        prepared
            .instantiate(state, self.there.clone(), &Limits::default())
            .expect("there is room")
    }

    fn checkpoint(&self, instance: &dyn Instance) -> Vec<u8> {
        Checkpoint {
            snapshot: instance.snapshot(),
            module: self.module.bytes().to_vec(),
            others: Vec::new(),
        }
        .encode()
    }

    /// Sends the agent that is at the host to the leaf.
    fn send(&mut self) {
        let instance = self.here.take().expect("it is here");
        let checkpoint = self.checkpoint(&*instance);
        self.epoch = self.epoch.next();
        self.end
            .offer(AGENT, self.epoch, checkpoint)
            .expect("it has no role");
        self.here = Some(instance);
        self.offered = true;
    }

    /// Ten milliseconds pass, of which the leaf works this share.
    fn step(&mut self, awake_ms: u64) {
        self.now = self.now + Duration::from_millis(10);
        self.clock.0.fetch_add(10_000_000, Ordering::Relaxed);
        self.node
            .handle_battery(self.now, awake_ms, 10 - awake_ms, 0);
        self.node.handle_time(self.now);
        // One turn, which ends at the next safepoint, so that each step may freeze the agent at another one.
        self.node.turn(|stop| assert!(stop.try_request()));
        loop {
            if let Some(message) = self.node.poll_message() {
                self.end.handle_message(&message).expect("it is one");
                self.handle_events();
            } else if let Some(message) = self.end.poll_message(0) {
                assert!(self.node.handle_message(&message));
            } else {
                break;
            }
        }
        self.handle_events();
        self.run_here();
        while let Some(report) = self.node.poll_report() {
            self.reports.push(std::format!("{report}"));
        }
    }

    fn run_here(&mut self) {
        let frozen = self.offered || !self.end.is_greeted();
        let Some(instance) = self.here.as_mut().filter(|_| !frozen) else {
            return;
        };
        instance.stop_handle().request();
        match instance.run() {
            Outcome::Blocked(_) => {
                let done = self.there.done.load(Ordering::Relaxed);
                self.end.sense(0, done);
            }
            Outcome::Stopped | Outcome::Exited(0) => {}
            other => panic!("{other:?}"),
        }
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.end.poll_event() {
            match event {
                HostEndEvent::Status(status) => self.ready = status.ready,
                HostEndEvent::Held { agent, .. } => {
                    self.here = None;
                    self.offered = false;
                    self.end.let_go(agent).expect("it is held");
                    self.moves += 1;
                }
                HostEndEvent::Arrived { agent, bytes, .. } => {
                    self.stored = Some(bytes);
                    self.end.have(agent).expect("it has arrived");
                }
                HostEndEvent::Released { epoch, .. } => {
                    let bytes = self.stored.take().expect("it was stored");
                    let snapshot = Snapshot::decode(&bytes, &SnapshotLimits::default());
                    let mut instance = self.instance();
                    let loaded = instance.load(&snapshot.expect("it is one"));
                    loaded.expect("it fits");
                    self.here = Some(instance);
                    self.epoch = epoch;
                    self.moves += 1;
                }
                HostEndEvent::Cancelled { .. } => self.stored = None,
                HostEndEvent::Want { next, epoch, .. } => {
                    self.wants = Some(next);
                    self.stay = Some(epoch);
                }
                HostEndEvent::Post {
                    agent,
                    number,
                    payload,
                    ..
                } => {
                    self.posts.push(payload);
                    let result = match self.posts.len() {
                        1 => PostResult::Full,
                        count => PostResult::Sent {
                            sequence: count as u64,
                        },
                    };
                    let stay = self.stay.expect("it has wanted mail");
                    self.end
                        .posted(agent, stay, number, result)
                        .expect("it is not answered");
                }
                HostEndEvent::Log { bytes, .. } => self.written.extend(bytes),
                HostEndEvent::Reading { reading, .. } => self.there.readings.lock().push(reading),
                HostEndEvent::Hello { .. } | HostEndEvent::Actuated { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if let Some(next) = self.wants
            && let Some((letter, payload)) = self.mail.get(next as usize)
        {
            self.wants = None;
            let stay = self.stay.expect("it has wanted mail");
            self.end
                .mail(AGENT, stay, next, *letter, payload)
                .expect("it was wanted");
        }
    }
}

#[test]
fn an_agent_goes_comes_back_and_goes_again_without_losing_a_reading() {
    let count = 4000;
    let mut world = World::new(reader(count), |_| true);
    world.here = Some(world.instance());
    let mut steps = 0;
    while world.written.is_empty() && world.there.out.lock().is_empty() {
        // It is sent there whenever the leaf takes agents.
        let idle = world.here.is_some() && world.end.is_greeted() && steps % 20 == 5;
        if idle && world.ready && !world.offered {
            world.send();
        }
        world.step(10);
        steps += 1;
        assert!(steps < 20_000, "{:?} {:?}", world.node, world.reports);
    }
    let written = [world.written.clone(), world.there.out.lock().clone()].concat();
    assert_eq!(written, figures(count.into()));
    assert!(
        world.moves >= 4,
        "{} moves, {:?}",
        world.moves,
        world.reports
    );
}

/// What mail says of itself.
fn letter(sequence: u64) -> Letter {
    Letter {
        from: AgentId([9; 16]),
        sequence,
        kind: mielin_mesh_core::delivery::MessageKind::Send,
    }
}

/// Answers three messages with what they say, and ends.
const ECHO: &str = r#"(module
  (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
  (import "mielin" "reply" (func $reply (param i32 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $again
      (if (call $receive (i32.const 256) (i32.const 64) (i64.const -1) (i32.const 512)) (then unreachable))
      (if (call $reply (i32.const 512) (i64.load (i32.const 528)) (i32.const 256) (i32.load (i32.const 548)))
        (then unreachable))
      (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))
      (br_if $again (i32.lt_u (i32.load (i32.const 64)) (i32.const 3))))))"#;

#[test]
fn an_agent_answers_its_mail_once_each_also_when_it_is_asked_twice() {
    let mut world = World::new(module(ECHO), |_| true);
    world.here = Some(world.instance());
    world.mail = (1..=3)
        .map(|n| (letter(n), vec![n as u8; n as usize]))
        .collect();
    world.step(1);
    world.send();
    for _ in 0..200 {
        world.step(1);
    }
    // The first answer finds no room, and comes again; none of the others does.
    assert_eq!(world.posts, [vec![1], vec![1], vec![2; 2], vec![3; 3]]);
    // It has ended, and is back.
    let ended = world.here.as_mut().expect("it is here").run();
    assert_eq!(ended, Outcome::Exited(0));
}

/// Answers two messages; those that it gets no payload of, with nothing.
const PASSING: &str = r#"(module
  (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
  (import "mielin" "discard" (func $discard (param i32 i32) (result i32)))
  (import "mielin" "reply" (func $reply (param i32 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $again
      (if (call $receive (i32.const 1024) (i32.const 4096) (i64.const -1) (i32.const 512))
        (then
          (br_if $again (call $discard (i32.const 4096) (i32.const 512)))
          (if (i32.ne (i32.load (i32.const 548)) (i32.const 408)) (then unreachable))
          (i32.store (i32.const 548) (i32.const 0))))
      (if (call $reply (i32.const 512) (i64.load (i32.const 528)) (i32.const 1024) (i32.load (i32.const 548)))
        (then unreachable))
      (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))
      (br_if $again (i32.lt_u (i32.load (i32.const 64)) (i32.const 2))))))"#;

/// What is answered to a message that the link does not carry and to one that it does, if the streams begin again after so
/// many steps.
fn passed_over(restart: usize) -> Vec<Vec<u8>> {
    let mut world = World::new(module(PASSING), |_| true);
    world.here = Some(world.instance());
    world.mail = [408, 407]
        .into_iter()
        .zip(1..)
        .map(|(len, sequence)| (letter(sequence), vec![7; len]))
        .collect();
    world.step(1);
    world.send();
    for step in 0..200 {
        world.step(1);
        if step == restart {
            world.node.restarted();
            world.end.restarted();
            world.wants = None;
        }
    }
    let ended = world.here.as_mut().expect("it is here").run();
    assert_eq!(ended, Outcome::Exited(0), "after {restart} steps");
    world.posts
}

#[test]
fn mail_that_is_too_long_for_the_link_can_be_passed_over() {
    // The first answer finds no room, and comes again.
    let expected = [vec![], vec![], vec![7; 407]];
    for restart in 0..40 {
        assert_eq!(passed_over(restart), expected, "after {restart} steps");
    }
}

#[test]
fn what_does_not_fit_or_is_damaged_is_refused() {
    let platform: &'static Clock = Box::leak(Box::default());
    let devices = || Arc::new(Mutex::new(Devices::new(vec![], 0)));
    let world = World::new(reader(9), |_| true);
    let good = world.checkpoint(&*world.instance());
    let mut agents = Agents::new(platform, devices(), |_| true);
    for at in [0, 20, 60, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert_eq!(agents.admit(AGENT, bytes), Err(Unfit::Damaged), "{at}");
        assert_eq!(
            agents.admit(AGENT, good[..at].to_vec()),
            Err(Unfit::Damaged)
        );
    }
    // Of another module than it says, and one that imports what nobody gives.
    let with = |module: Vec<u8>, of: &Resumable| {
        let mut snapshot = world.instance().snapshot();
        snapshot.module = of.hash();
        let others = Vec::new();
        Checkpoint {
            snapshot,
            module,
            others,
        }
        .encode()
    };
    let other = reader(10);
    let mixed = with(world.module.bytes().to_vec(), &other);
    assert_eq!(agents.admit(AGENT, mixed), Err(Unfit::Damaged));
    let stranger = module(
        r#"(module (import "env" "f" (func $f)) (memory (export "memory") 1) (func (export "_start") (call $f)))"#,
    );
    let unsuitable = with(stranger.bytes().to_vec(), &stranger);
    let refused = agents.admit(AGENT, unsuitable);
    assert!(matches!(refused, Err(Unfit::Unsuitable(_))), "{refused:?}");
    // One that has come whole, with more memory than an agent may have here.
    let mut large = world.instance().snapshot();
    large.memory_bytes = MEMORY_BYTES_MAX + (64 << 10);
    let large = Checkpoint {
        snapshot: large,
        module: world.module.bytes().to_vec(),
        others: Vec::new(),
    };
    let refused = agents.admit(AGENT, large.encode());
    assert!(matches!(refused, Err(Unfit::Unsuitable(_))), "{refused:?}");
    assert!(agents.is_empty());

    let mut full = Agents::new(platform, devices(), |sizes| {
        sizes.iter().sum::<usize>() < 99 << 10
    });
    assert_eq!(full.admit(AGENT, good.clone()), Err(Unfit::NoRoom));
    assert_eq!(full.room_bytes(), 0);
    for n in 0..AGENTS_MAX {
        agents
            .admit(AgentId([n as u8; 16]), good.clone())
            .expect("there is room");
    }
    assert_eq!(agents.room_bytes(), 0);
    let one_more = agents.admit(AGENT, good);
    assert_eq!(one_more, Err(Unfit::NoRoom));
}

#[test]
fn a_turn_ends_though_the_agent_computes() {
    let endless = module(
        r#"(module (memory (export "memory") 1)
          (func (export "_start") (loop $again
            (i64.store (i32.const 80) (i64.add (i64.load (i32.const 80)) (i64.const 1))) (br $again))))"#,
    );
    let world = World::new(endless, |_| true);
    let checkpoint = world.checkpoint(&*world.instance());
    let devices = Arc::new(Mutex::new(Devices::new(vec![], 0)));
    let mut agents = Agents::new(world.clock, devices, |_| true);
    agents.admit(AGENT, checkpoint).expect("there is room");
    assert!(agents.turn(drop).is_none(), "it may not run");
    agents.run(AGENT);
    for _ in 0..100 {
        let mut asking = None;
        let turn = agents.turn(|stop| {
            // As an interrupt does: it asks again until it could.
            asking = Some(std::thread::spawn(move || {
                while !stop.try_request() {
                    std::thread::yield_now();
                }
            }));
        });
        let outcome = turn.map(|turn| turn.outcome);
        assert_eq!(outcome, Some(Outcome::Stopped));
        asking.expect("it was armed").join().expect("it has asked");
        // Frozen and going on, so that each turn begins with the frames of the one before.
        assert!(agents.freeze(AGENT).is_some());
        agents.run(AGENT);
    }
}
