//! Agents that go to the board and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use mielin_mesh_core::handover::{HostEndEvent, Reading, Status};
use mielin_mesh_core::{AgentId, Epoch};
use mielin_safepoint::{Resumable, Snapshot, SnapshotLimits, instrument};
use mielin_wasm::{
    Address, Capability, Checkpoint, HostState, Instance, Level, Limits, LogError, LogStream,
    MessageKind, Outcome, Receive, SendError, Sensed, Services, interpreter,
};

use super::{Leaf, PATIENCE};

/// What the sensor repeats.
const SERIES: [i64; 5] = [215, 217, -3, 220, 1000];
/// So many readings an agent takes.
const READINGS: u64 = 60;
/// So many of them before it comes back for the first time, at least, and so many at the host then.
const FIRST: u64 = 15;
const HERE: u64 = 10;

/// The series as a file.
pub(super) fn readings() -> String {
    let lines = SERIES.map(|value| format!("{}.{:03}\n", value / 1000, value % 1000));
    // A negative number below one has its sign at the zero.
    let lines = lines
        .concat()
        .replace("0.-03", "-0.003")
        .replace("0.-003", "-0.003");
    format!("# Made up, for a trial.\nvalue\n{lines}")
}

/// Reads a sensor until it has so many readings, and prints the number of the last one, the sum, the count and how many are lost.
fn reader() -> Result<Resumable> {
    module(&format!(
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
      (br_if $again (i64.lt_u (i64.load (i32.const 80)) (i64.const {READINGS}))))
    (drop (call $write (i32.const 1) (i32.const 128) (i32.const 1) (i32.const 136)))))"#
    ))
}

/// Counts without an end.
const ENDLESS: &str = r#"(module (memory (export "memory") 1)
  (func (export "_start") (loop $again
    (i64.store (i32.const 80) (i64.add (i64.load (i32.const 80)) (i64.const 1))) (br $again))))"#;

/// Waits for a message that nobody sends.
const WAITING: &str = r#"(module
  (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $receive (i32.const 0) (i32.const 16) (i64.const -1) (i32.const 64)))))"#;

fn module(text: &str) -> Result<Resumable> {
    Ok(instrument(&wat::parse_str(text)?)?)
}

/// What the reader prints.
fn figures() -> Vec<u8> {
    let sum: i64 = (0..READINGS as usize)
        .map(|n| SERIES[n % SERIES.len()])
        .sum();
    [READINGS, sum.cast_unsigned(), READINGS, 0]
        .map(u64::to_le_bytes)
        .concat()
}

/// What agents have of the host.
#[derive(Default)]
struct There {
    readings: Mutex<Vec<Reading>>,
    /// The agent is done with readings up to here.
    done: AtomicU64,
}

impl There {
    fn readings(&self) -> std::sync::MutexGuard<'_, Vec<Reading>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Services for There {
    fn write_log(&self, _: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        Ok(bytes.len())
    }

    fn log(&self, _: Level, _: &str) {}

    fn send(&self, _: Address, _: MessageKind, _: &[u8]) -> Result<u64, SendError> {
        Err(SendError::Unknown)
    }

    fn receive(&self, _: usize) -> Receive {
        Receive::Empty
    }

    fn sense(&self, _: u8, after: u64) -> Sensed {
        self.done.store(after, Ordering::Relaxed);
        let readings = self.readings();
        let reading = readings.iter().find(|reading| reading.number > after);
        reading.map_or(Sensed::NotYet, |reading| {
            Sensed::Reading(mielin_wasm::Reading {
                number: reading.number,
                time_ns: reading.time_ns,
                value: reading.value,
            })
        })
    }

    fn denied(&self, _: &Capability, _: &'static str) {}
}

/// An agent on its ways.
struct Traveller {
    id: AgentId,
    module: Resumable,
    there: Arc<There>,
    /// It, when it is here.
    here: Option<Box<dyn Instance>>,
    epoch: Epoch,
    /// What the leaf was told last of the readings that are done with.
    sensed: Option<u64>,
    arrived: Option<Vec<u8>>,
    /// What it has written on the leaf.
    written: Vec<u8>,
    hello: Option<(u8, Status)>,
    /// Whether the leaf takes agents, as it has said last.
    ready: Option<bool>,
}

/// Goes through all of it.
pub(super) fn run(leaf: &mut Leaf) -> Result<()> {
    let mut reader = Traveller::new(AgentId([1; 16]), reader()?)?;
    leaf.host.agents();
    reader.until(leaf, |it, _| it.hello.is_some())?;
    let (sensors, status) = reader.hello.context("it has said hello")?;
    ensure!(
        (sensors, status.ready) == (1, true) && status.room_bytes >= 32 << 10,
        "{sensors} sensors, {status:?}"
    );

    // There, and back in the middle of its work.
    reader.send(leaf)?;
    reader.until(leaf, |it, _| it.here.is_none())?;
    leaf.sees("runs here")?;
    let begin = Instant::now();
    reader.until(leaf, |_, _| {
        begin.elapsed().as_millis() > 100 * u128::from(FIRST) + 500
    })?;
    reader.come(leaf)?;
    let count = reader.count()?;
    ensure!(
        (FIRST / 2..READINGS).contains(&count),
        "{count} readings on the leaf"
    );

    // Here it has readings of the same sensor, and none twice.
    reader.until(leaf, |it, _| {
        it.count().is_ok_and(|now| now >= count + HERE)
    })?;
    ensure!(reader.count()? < READINGS, "it has ended too early");

    // There again, where it comes to its end.
    reader.send(leaf)?;
    reader.until(leaf, |it, _| it.written.len() >= figures().len())?;
    ensure!(
        reader.written == figures(),
        "it has printed {:?}",
        reader.written
    );
    reader.until(leaf, |it, _| it.here.is_some())?;
    ensure!(
        reader.here.as_mut().map(|it| it.run()) == Some(Outcome::Exited(0)),
        "it has not ended"
    );

    // One that computes without an end keeps nobody from his turn.
    let mut endless = Traveller::new(AgentId([2; 16]), module(ENDLESS)?)?;
    endless.send(leaf)?;
    endless.until(leaf, |it, _| it.here.is_none())?;
    leaf.sees("runs here")?;
    leaf.host.write_garbage(2 << 10)?;
    let begin = Instant::now();
    endless.until(leaf, |_, _| begin.elapsed().as_millis() > 1000)?;
    endless.come(leaf)?;
    let turns = endless.count()?;
    ensure!(turns > 1000, "{turns} turns in a second");

    // When the battery is low the board gives away what it has, and takes nothing before it is well.
    let mut waiting = Traveller::new(AgentId([3; 16]), module(WAITING)?)?;
    waiting.send(leaf)?;
    waiting.until(leaf, |it, _| it.here.is_none())?;
    waiting.until(leaf, |it, _| it.here.is_some())?;
    ensure!(
        waiting.ready == Some(false),
        "it is given away, and the board is ready for others"
    );
    waiting.until(leaf, |it, _| it.ready == Some(true))?;
    ensure!(leaf.host.connections() == 1, "it has connected anew");
    Ok(())
}

impl Traveller {
    /// One that has not begun, here.
    fn new(id: AgentId, module: Resumable) -> Result<Self> {
        let mut traveller = Self {
            id,
            module,
            there: Arc::default(),
            here: None,
            epoch: Epoch(0),
            sensed: None,
            arrived: None,
            written: Vec::new(),
            hello: None,
            ready: None,
        };
        traveller.here = Some(traveller.instance()?);
        Ok(traveller)
    }

    fn instance(&self) -> Result<Box<dyn Instance>> {
        let prepared = interpreter().prepare(&self.module, None)?;
        let mut state = HostState::new(Address(self.id.0));
        state.grants.grant("sensor:0".parse()?);
        Ok(prepared.instantiate(state, self.there.clone(), &Limits::default())?)
    }

    /// What it has counted, when it is here.
    fn count(&self) -> Result<u64> {
        let memory = self.here.as_ref().context("it is not here")?.memory();
        let bytes = memory.get(80..88).context("it has a memory")?;
        Ok(u64::from_le_bytes(bytes.try_into()?))
    }

    /// Offers it to the leaf.
    fn send(&mut self, leaf: &mut Leaf) -> Result<()> {
        let instance = self.here.as_ref().context("it is not here")?;
        let checkpoint = Checkpoint {
            snapshot: instance.snapshot(),
            module: self.module.bytes().to_vec(),
            others: Vec::new(),
        };
        self.epoch = self.epoch.next();
        let end = leaf.host.agents();
        end.offer(self.id, self.epoch, checkpoint.encode())?;
        Ok(())
    }

    /// Asks the leaf for it, and waits until it is here.
    fn come(&mut self, leaf: &mut Leaf) -> Result<()> {
        leaf.host.agents().come(self.id)?;
        self.until(leaf, |it, _| it.here.is_some())
    }

    /// Turns until something is so.
    fn until(&mut self, leaf: &mut Leaf, is_so: impl Fn(&Self, &Leaf) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self, leaf) {
            ensure!(Instant::now() < deadline, "not so in {PATIENCE:?}");
            leaf.host.turn()?;
            leaf.lines().for_each(drop);
            self.handle_events(leaf)?;
            self.go_on(leaf);
        }
        Ok(())
    }

    /// What it does when it is here.
    fn go_on(&mut self, leaf: &mut Leaf) {
        let is_here = self.arrived.is_none() && self.epoch.0 > 0;
        if let Some(instance) = self.here.as_mut().filter(|_| is_here) {
            instance.stop_handle().request();
            if matches!(instance.run(), Outcome::Blocked(wait) if wait.reading) {
                // Once for each: every word of it crosses the line.
                let done = self.there.done.load(Ordering::Relaxed);
                if self.sensed.replace(done) != Some(done) {
                    leaf.host.agents().sense(0, done);
                }
            }
        }
    }

    fn handle_events(&mut self, leaf: &mut Leaf) -> Result<()> {
        while let Some(event) = leaf.host.agents().poll_event() {
            match event {
                HostEndEvent::Hello { profile, .. } => {
                    self.hello = Some((profile.sensors, profile.status));
                    self.ready = Some(profile.status.ready);
                }
                HostEndEvent::Held { agent, .. } => {
                    self.here = None;
                    leaf.host.agents().let_go(agent)?;
                }
                HostEndEvent::Arrived { agent, bytes, .. } => {
                    self.arrived = Some(bytes);
                    leaf.host.agents().have(agent)?;
                }
                HostEndEvent::Released { epoch, .. } => {
                    let bytes = self.arrived.take().context("it has arrived")?;
                    let snapshot = Snapshot::decode(&bytes, &SnapshotLimits::default())?;
                    let mut instance = self.instance()?;
                    instance.load(&snapshot)?;
                    (self.here, self.epoch) = (Some(instance), epoch);
                }
                HostEndEvent::Log { bytes, .. } => self.written.extend(bytes),
                HostEndEvent::Reading { reading, .. } => self.there.readings().push(reading),
                HostEndEvent::Status(status) => self.ready = Some(status.ready),
                HostEndEvent::Want { .. } => {}
                other => bail!("{other:?}"),
            }
        }
        Ok(())
    }
}
