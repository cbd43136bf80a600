//! Snapshots of a known program with any memory, stack, globals and host state: both engines refuse
//! them, or go on from them in the same way, and stop when they are asked to.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, LazyLock};

use mielin_fuzz::{Seed, Target};
use mielin_safepoint::{ModuleHash, Snapshot, SnapshotLimits, instrument};
use mielin_wasm::{
    Address, Capability, EngineKind, HostState, Instance, Level, Limits, LogError, LogStream,
    MessageKind, Outcome, Prepared, Receive, SendError, Services, Trap, TrapKind, engine,
};

pub(crate) const TARGET: Target = Target {
    name: "resume",
    mutations: 400,
    // Two instances with their memories, one after the other, and snapshots of them.
    fixed_bytes: 32 << 20,
    bytes_per_byte: 256,
    run,
    seeds,
};

/// Safepoints at which each engine is stopped and compared with the other.
const STOPS: usize = 12;

const PROGRAM: &str = r#"(module
    (import "mielin" "self_id" (func $self_id (param i32) (result i32)))
    (memory (export "memory") 1 3)
    (global $total (mut i64) (i64.const 0))
    (table $steps funcref (elem $deeper $leaf))
    (table $recent 3 9 funcref)
    (type $step (func (param i32 f64) (result i32)))
    (func $leaf (type $step)
      (i32.store (local.get 0) (i32.trunc_sat_f64_s (local.get 1)))
      (i32.add (local.get 0) (i32.const 4)))
    (func $deeper (type $step) (local i64)
      (local.set 2 (i64.extend_i32_u (local.get 0)))
      (drop (call $self_id (i32.const 65500)))
      (if (i32.gt_u (local.get 0) (i32.const 64))
        (then (local.set 0 (call $deeper
          (i32.shr_u (local.get 0) (i32.const 1)) (f64.sqrt (local.get 1))))))
      (global.set $total (i64.add (global.get $total) (local.get 2)))
      (table.set $recent (i32.const 1)
        (table.get $steps (i32.wrap_i64 (i64.and (local.get 2) (i64.const 1)))))
      (return_call_indirect $recent (type $step)
        (local.get 0) (local.get 1) (i32.const 1)))
    (func (export "_start") (local i32 f64)
      (local.set 1 (f64.const 1000))
      (loop $more
        (local.set 0 (i32.add (i32.const 1001)
          (i32.and (call $deeper (i32.add (local.get 0) (i32.const 1000)) (local.get 1))
            (i32.const 1023))))
        (local.set 1 (f64.mul (local.get 1) (f64.const 1.5)))
        (br_if $more (i64.lt_u (global.get $total) (i64.const 1000000))))))"#;

static PREPARED: LazyLock<[Arc<dyn Prepared>; 2]> = LazyLock::new(|| {
    let module = instrument(&wat::parse_str(PROGRAM).unwrap()).unwrap();
    [EngineKind::Wasmtime, EngineKind::Wasmi]
        .map(|kind| engine(kind).unwrap().prepare(&module, None).unwrap())
});

/// A node that provides nothing.
struct Bare;

impl Services for Bare {
    fn write_log(&self, _: LogStream, _: &[u8]) -> Result<usize, LogError> {
        Err(LogError::Full)
    }
    fn log(&self, _: Level, _: &str) {}
    fn send(&self, _: Address, _: MessageKind, _: &[u8]) -> Result<u64, SendError> {
        Err(SendError::Unknown)
    }
    fn receive(&self, _: usize) -> Receive {
        Receive::Empty
    }
    fn denied(&self, _: &Capability, _: &'static str) {}
}

fn instance(prepared: &dyn Prepared) -> Box<dyn Instance> {
    let limits = Limits {
        memory_bytes: 2 * 65536,
        ..Limits::default()
    };
    let host = HostState::new(Address([7; 16]));
    prepared.instantiate(host, Arc::new(Bare), &limits).unwrap()
}

/// The input is a snapshot without its hash, of whatever module it says.
fn run(content: &[u8]) -> bool {
    let sealed = [content, &ModuleHash::of(content).0].concat();
    let Ok(mut snapshot) = Snapshot::decode(&sealed, &SnapshotLimits::default()) else {
        return false;
    };
    snapshot.module = PREPARED[0].module().hash();
    let [one, other] = [0, 1].map(|index| {
        let mut instance = instance(&*PREPARED[index]);
        match instance.load(&snapshot) {
            Ok(()) => Some(step(&mut *instance)),
            Err(_) => None,
        }
    });
    if let (Some(one), Some(other)) = (&one, &other)
        && (one.is_empty() || other.is_empty())
    {
        return true;
    }
    assert_eq!(one, other);
    one.is_some()
}

/// What can be seen at each stop, up to the end of the program; nothing if it called too deep.
fn step(instance: &mut dyn Instance) -> Vec<(Outcome, Vec<u8>)> {
    let mut seen = Vec::new();
    for _ in 0..STOPS {
        instance.stop_handle().request();
        match instance.run() {
            // The engines' stacks are of different depth.
            Outcome::Trapped(Trap {
                kind: TrapKind::StackExhausted,
                ..
            }) => return Vec::new(),
            Outcome::Trapped(trap) => {
                seen.push((Outcome::Trapped(trap.kind.into()), Vec::new()));
                break;
            }
            outcome => {
                let Snapshot { host: _, pages, .. } = instance.snapshot();
                let mut state = instance.execution().encode();
                state.extend(pages.iter().flat_map(|page| page.bytes.iter()));
                seen.push((outcome, state));
            }
        }
    }
    seen
}

fn seeds() -> Vec<Seed> {
    let mut instance = instance(&*PREPARED[1]);
    let content = |instance: &dyn Instance| {
        let mut bytes = instance.snapshot().encode();
        bytes.truncate(bytes.len() - 32);
        bytes
    };
    let mut seeds = vec![Seed::good("not-begun", content(&*instance))];
    for name in ["at-the-loop", "two-deep", "three-deep"] {
        instance.stop_handle().request();
        assert_eq!(instance.run(), Outcome::Stopped);
        seeds.push(Seed::good(name, content(&*instance)));
    }
    let mut grown = instance.snapshot();
    grown.memory_bytes = 4 * 65536;
    let grown = grown.encode();
    seeds.push(Seed::bad(
        "memory-over-the-limit",
        &grown[..grown.len() - 32],
    ));
    let mut frames = instance.snapshot();
    frames.frames.extend([0xff; 64]);
    let frames = frames.encode();
    seeds.push(Seed::good("frames-of-nobody", &frames[..frames.len() - 32]));
    seeds
}
