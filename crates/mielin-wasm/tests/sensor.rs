//! The sample agent for small nodes, `agents/prebuilt/sensor.wasm`, with a sensor that follows a script: it is frozen between
//! every two readings, or at every safepoint, and goes on under the other engine from the bytes of a snapshot, and its figures
//! are those of one that was never frozen.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mielin_safepoint::{PAGE_SIZE, Resumable, Snapshot, SnapshotLimits, instrument};
use mielin_wasm::{
    Actuated, Address, Capability, Discarded, EngineKind, HostState, Instance, Level, Limits,
    LogError, LogStream, MessageKind, Outcome, Prepared, Reading, Receive, Received, SendError,
    Sensed, Services, Wait, engine,
};

const READINGS: u64 = 100;
/// After so many readings somebody asks.
const ASKS_EVERY: u64 = 7;
/// So many numbers are left out before each fifth reading: the device had no room.
const GAP: u64 = 3;
const ASKER: Address = Address([9; 16]);
const BOTH: [EngineKind; 2] = [EngineKind::Wasmtime, EngineKind::Wasmi];

/// What the sensor measures: warm for a while, then cold, then warm again.
fn reading(index: u64) -> Reading {
    let value = match index {
        0..40 => 31_000,
        40..90 => 25_000,
        _ => 60_000,
    };
    Reading {
        number: index + 1 + index / 5 * GAP,
        time_ns: index * 1_000_000,
        value: value + (index as i64 * 7_919) % 500 - 250,
    }
}

/// A device with one sensor, which keeps each reading until the program is done with it, and one actuator, which answers only
/// when it is asked again.
#[derive(Default)]
struct Device {
    kept: VecDeque<Reading>,
    taken: u64,
    set: Vec<i64>,
    asked: bool,
    questions: VecDeque<u64>,
    answers: Vec<(u64, Vec<u8>)>,
    stdout: Vec<u8>,
}

#[derive(Default)]
struct Node(Mutex<Device>);

impl Services for Node {
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        assert_eq!(stream, LogStream::Stdout);
        // In pieces, so that what is left comes in another call.
        let taken = bytes.len().min(20);
        let stdout = &mut self.0.lock().unwrap().stdout;
        stdout.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn log(&self, _: Level, message: &str) {
        panic!("it logs {message}");
    }

    fn send(&self, to: Address, kind: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        assert_eq!(to, ASKER);
        let MessageKind::Reply { to } = kind else {
            panic!("it sends of its own accord");
        };
        let answers = &mut self.0.lock().unwrap().answers;
        answers.push((to, payload.to_vec()));
        Ok(answers.len() as u64)
    }

    fn receive(&self, _: usize) -> Receive {
        match self.0.lock().unwrap().questions.pop_front() {
            None => Receive::Empty,
            Some(sequence) => Receive::Message(Received {
                from: ASKER,
                sequence,
                kind: MessageKind::Message,
                payload: b"how is it?".to_vec(),
            }),
        }
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        panic!("{call} needs {capability}");
    }

    fn sense(&self, sensor: u8, after: u64) -> Sensed {
        assert_eq!(sensor, 0);
        let mut device = self.0.lock().unwrap();
        assert!(after >= device.taken, "it goes back");
        device.taken = after;
        device.kept.retain(|reading| reading.number > after);
        match device.kept.front() {
            Some(reading) => Sensed::Reading(*reading),
            None => Sensed::NotYet,
        }
    }

    fn actuate(&self, actuator: u8, value: i64) -> Actuated {
        assert_eq!(actuator, 0);
        let mut device = self.0.lock().unwrap();
        device.asked = !device.asked;
        if device.asked {
            return Actuated::NotYet;
        }
        device.set.push(value);
        Actuated::Done
    }
}

/// The figures that the program answers with, counted by the test.
fn figures(count: u64) -> Vec<u8> {
    let readings: Vec<Reading> = (0..count).map(reading).collect();
    let last = readings.last().map_or(0, |reading| reading.number);
    let values = || readings.iter().map(|reading| reading.value);
    let digest = readings.iter().fold(0xcbf2_9ce4_8422_2325, |digest, one| {
        let bytes = [one.number.to_le_bytes(), one.value.to_le_bytes()].concat();
        bytes.iter().fold(digest, |digest: u64, byte| {
            (digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        })
    });
    let numbers = [
        last,
        count,
        last - count,
        0,
        values().sum::<i64>().cast_unsigned(),
        values().min().unwrap().cast_unsigned(),
        values().max().unwrap().cast_unsigned(),
        digest,
    ];
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn plain() -> Vec<u8> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../agents/prebuilt/sensor.wasm"
    );
    std::fs::read(path).unwrap()
}

fn prepared(kind: EngineKind, module: &Resumable) -> Arc<dyn Prepared> {
    engine(kind).unwrap().prepare(module, None).unwrap()
}

fn instance(prepared: &dyn Prepared, node: &Arc<Node>) -> Box<dyn Instance> {
    let grants = ["sensor:0", "actuator:0"].map(|text| text.parse::<Capability>().unwrap());
    let host = HostState::new(Address([7; 16])).with_grants(grants.into_iter().collect());
    let services = Arc::clone(node) as Arc<dyn Services>;
    prepared
        .instantiate(host, services, &Limits::default())
        .unwrap()
}

/// How often it is frozen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freezes {
    Never,
    WhereItWaits,
    AtEverySafepoint,
}

/// Runs it over all readings, from one engine to the other at each freeze; gives what has come of it, and how many
/// freezes there were.
fn lived(first: usize, freezes: Freezes) -> (Device, usize) {
    let module = instrument(&plain()).unwrap();
    let engines = BOTH.map(|kind| prepared(kind, &module));
    let node = Arc::new(Node::default());
    let mut running = first;
    let mut hops = 0;
    let mut agent = instance(&*engines[running], &node);
    let mut hop = |agent: &mut Box<dyn Instance>| {
        let bytes = agent.snapshot().encode();
        let snapshot = Snapshot::decode(&bytes, &SnapshotLimits::default()).unwrap();
        running = 1 - running;
        *agent = instance(&*engines[running], &node);
        agent.load(&snapshot).unwrap();
        hops += 1;
    };
    for index in 0..=READINGS {
        loop {
            if freezes == Freezes::AtEverySafepoint {
                agent.stop_handle().request();
            }
            let outcome = agent.run();
            match outcome {
                Outcome::Stopped => hop(&mut agent),
                Outcome::Blocked(wait) => {
                    let expected = Wait {
                        deadline_ns: None,
                        message: false,
                        reading: true,
                    };
                    assert_eq!(wait, expected);
                    if freezes != Freezes::Never {
                        hop(&mut agent);
                    }
                    if !node.0.lock().unwrap().asked {
                        break;
                    }
                }
                ended => panic!("{ended:?} after {index} readings"),
            }
        }
        let mut device = node.0.lock().unwrap();
        assert!(device.kept.len() <= 1, "it is done with all but the last");
        if index % ASKS_EVERY == 0 {
            device.questions.push_back(index + 1);
        }
        if index < READINGS {
            device.kept.push_back(reading(index));
        }
    }
    drop((agent, hop));
    (Arc::into_inner(node).unwrap().0.into_inner().unwrap(), hops)
}

#[test]
fn its_figures_are_the_same_however_often_it_is_frozen() {
    let expected: Vec<(u64, Vec<u8>)> = (0..READINGS)
        .step_by(ASKS_EVERY as usize)
        .map(|index| (index + 1, figures(index + 1)))
        .collect();
    let (whole, _) = lived(0, Freezes::Never);
    assert!(whole.answers == expected);
    assert_eq!(whole.set, [1, 0, 1]);
    let lines = String::from_utf8(whole.stdout.clone()).unwrap();
    assert_eq!(lines.lines().count() as u64, READINGS / 16);
    assert_eq!(
        lines.lines().next().unwrap(),
        "reading 25: mean 30906, lost 9, doubled 0"
    );
    for (first, freezes) in [
        (1, Freezes::Never),
        (0, Freezes::WhereItWaits),
        (1, Freezes::WhereItWaits),
        (0, Freezes::AtEverySafepoint),
    ] {
        let (frozen, hops) = lived(first, freezes);
        assert!(frozen.answers == expected, "after {hops} freezes");
        assert_eq!(frozen.set, whole.set);
        assert_eq!(frozen.stdout, whole.stdout);
        let at_least = match freezes {
            Freezes::Never => 0,
            Freezes::WhereItWaits => READINGS as usize,
            Freezes::AtEverySafepoint => 2 * READINGS as usize,
        };
        assert!(hops >= at_least, "{hops} freezes");
    }
}

/// The number of a question that is longer than the program has room for.
const TOO_LONG: u64 = 100;
const LONG_BYTES: usize = 257;

/// A node without devices, on which somebody asks.
#[derive(Default)]
struct Bare(Node);

impl Services for Bare {
    fn write_log(&self, _: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        Ok(bytes.len())
    }

    fn log(&self, level: Level, message: &str) {
        self.0.log(level, message);
    }

    fn send(&self, to: Address, kind: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        self.0.send(to, kind, payload)
    }

    fn receive(&self, max_len: usize) -> Receive {
        let device = self.0.0.lock().unwrap();
        if device.questions.front() != Some(&TOO_LONG) {
            drop(device);
            return self.0.receive(max_len);
        }
        assert!(max_len < LONG_BYTES);
        Receive::TooLarge { len: LONG_BYTES }
    }

    fn discard(&self, longer_than: usize) -> Option<Discarded> {
        assert!(longer_than < LONG_BYTES);
        let mut device = self.0.0.lock().unwrap();
        let sequence = device.questions.pop_front_if(|one| *one == TOO_LONG)?;
        Some(Discarded {
            from: ASKER,
            sequence,
            kind: MessageKind::Message,
            len: LONG_BYTES,
        })
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        self.0.denied(capability, call);
    }
}

#[test]
fn where_there_is_no_sensor_it_answers_until_it_is_back_at_one() {
    let module = instrument(&plain()).unwrap();
    let engines = BOTH.map(|kind| prepared(kind, &module));
    let node = Arc::new(Node::default());
    let mut agent = instance(&*engines[0], &node);
    let count = 5;
    for index in 0..count {
        node.0.lock().unwrap().kept.push_back(reading(index));
        while matches!(agent.run(), Outcome::Blocked(_)) && node.0.lock().unwrap().asked {}
    }

    let bare = Arc::new(Bare::default());
    let services = Arc::clone(&bare) as Arc<dyn Services>;
    let host = HostState::new(Address::default());
    let mut astray = engines[1]
        .instantiate(host, services, &Limits::default())
        .unwrap();
    astray.load(&agent.snapshot()).unwrap();
    for turn in 0..3 {
        let Outcome::Blocked(wait) = astray.run() else {
            panic!("it does not wait");
        };
        assert!(wait.message && !wait.reading && wait.deadline_ns.is_some());
        let mut device = bare.0.0.lock().unwrap();
        assert_eq!(device.answers.len(), turn);
        device.questions.push_back(turn as u64);
    }
    assert!(matches!(astray.run(), Outcome::Blocked(_)));
    for (_, answer) in &bare.0.0.lock().unwrap().answers {
        assert_eq!(*answer, figures(count));
    }

    bare.0.0.lock().unwrap().questions.extend([TOO_LONG, 4]);
    assert!(matches!(astray.run(), Outcome::Blocked(_)));
    let too_long = b"a message has at most 256 bytes".to_vec();
    let answered = [(TOO_LONG, too_long), (4, figures(count))];
    assert!(bare.0.0.lock().unwrap().answers.ends_with(&answered));

    let mut back = instance(&*engines[0], &node);
    back.load(&astray.snapshot()).unwrap();
    back.host_mut().advance(Duration::from_secs(2));
    node.0.lock().unwrap().kept.push_back(reading(count));
    node.0.lock().unwrap().questions.push_back(1);
    while matches!(back.run(), Outcome::Blocked(wait) if !wait.reading)
        || node.0.lock().unwrap().asked
    {}
    let device = node.0.lock().unwrap();
    assert_eq!(device.taken, reading(count).number);
    let [(1, answer)] = &device.answers[..] else {
        panic!("{} answers", device.answers.len());
    };
    // The message was there when its time was over, and comes before the next reading.
    assert_eq!(*answer, figures(count));
}

#[test]
fn it_fits_where_little_fits() {
    let plain = plain();
    assert!(plain.len() <= 3_400, "{} bytes", plain.len());
    let module = instrument(&plain).unwrap();
    let rewritten = module.bytes().len();
    assert!(rewritten <= 7_600, "{rewritten} bytes");
    assert_eq!(module.manifest().memory.minimum_pages, 1);

    let node = Arc::new(Node::default());
    let mut agent = instance(&*prepared(EngineKind::Wasmi, &module), &node);
    for index in 0..32 {
        node.0.lock().unwrap().kept.push_back(reading(index));
        while matches!(agent.run(), Outcome::Blocked(_)) && node.0.lock().unwrap().asked {}
    }
    assert_eq!(agent.memory_bytes(), 65_536);
    let snapshot = agent.snapshot();
    let indices: Vec<u32> = snapshot.pages.iter().map(|page| page.index).collect();
    assert_eq!(indices, [0], "all that it has written is in the first page");
    let bytes = snapshot.encode().len();
    assert!(bytes <= PAGE_SIZE + 1024, "a snapshot of {bytes} bytes");
}
