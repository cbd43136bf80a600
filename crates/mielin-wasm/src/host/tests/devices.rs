//! Sensors and actuators.

use super::super::device;
use super::*;
use crate::{Port, TrapKind};

const HOUR_NS: u64 = 3_600_000_000_000;
const SENSOR: u32 = 2;
const ACTUATOR: u32 = 3;

fn reading(number: u64, value: i64) -> Reading {
    Reading {
        number,
        time_ns: number * 1000,
        value,
    }
}

fn measure(bench: &Bench, number: u64, value: i64) {
    let mut readings = bench.desk.readings.lock().unwrap();
    readings.push_back(reading(number, value));
}

/// What stands at 64.
fn read(bench: &Bench) -> Reading {
    Reading {
        number: bench.u64(64),
        time_ns: bench.u64(72),
        value: bench.u64(80).cast_signed(),
    }
}

#[test]
fn a_reading_is_had_until_the_program_asks_for_one_above_it() {
    let mut bench = Bench::new(&["sensor"]);
    let after =
        |number: u64| move |call: &mut Call<'_>| device::sense(call, SENSOR, number, u64::MAX, 64);
    measure(&bench, 4, -7);
    measure(&bench, 5, i64::MIN);
    for _ in 0..2 {
        assert_eq!(bench.call(after(0)), 0);
        assert_eq!(read(&bench), reading(4, -7));
    }
    assert_eq!(bench.call(after(4)), 0);
    assert_eq!(read(&bench), reading(5, i64::MIN));
    assert_eq!(*bench.desk.done_with.lock().unwrap(), 4);
    assert_eq!(
        bench.blocks(after(5)),
        Wait {
            deadline_ns: None,
            message: false,
            reading: true,
        }
    );
    assert_eq!(*bench.desk.done_with.lock().unwrap(), 5);
    // A message is nothing that it waits for: the call is issued again and finds that it has to wait.
    assert!(bench.blocks(after(5)).reading);
    measure(&bench, 9, 0);
    assert_eq!(bench.call(after(5)), 0);
    assert_eq!(read(&bench), reading(9, 0), "behind a gap");
    // The memory is as it was when there is none.
    let look = |call: &mut Call<'_>| device::sense(call, SENSOR, u64::MAX, 0, 64);
    assert_eq!(bench.call(look), errno(Errno::Again));
    assert_eq!(read(&bench), reading(9, 0));
}

#[test]
fn waiting_for_a_reading_ends_at_its_time_wherever_the_program_is_by_then() {
    let mut bench = Bench::new(&["sensor:2"]);
    let timed = |call: &mut Call<'_>| device::sense(call, SENSOR, 0, HOUR_NS, 64);
    let wait = bench.blocks(timed);
    assert!(wait.reading && wait.deadline_ns.is_some_and(|deadline| deadline >= HOUR_NS));
    assert_eq!(
        bench.blocks(timed),
        wait,
        "asking again does not start anew"
    );
    bench.context.host = HostState::from_sections(&bench.context.host.to_sections()).unwrap();
    assert_eq!(bench.blocks(timed), wait, "nor does being carried");
    bench.context.host.pending = Some(Pending::Sense {
        deadline_ns: Some(1),
    });
    assert_eq!(bench.call(timed), errno(Errno::Timedout));
    // At the deadline a reading counts more than that it has come late.
    bench.blocks(timed);
    measure(&bench, 1, 5);
    bench.context.host.pending = Some(Pending::Sense {
        deadline_ns: Some(1),
    });
    assert_eq!(bench.call(timed), 0);
    assert_eq!(read(&bench), reading(1, 5));
}

#[test]
fn a_pending_call_of_another_kind_says_nothing_about_a_reading() {
    let mut bench = Bench::new(&["sensor", "actuator"]);
    let timed = |call: &mut Call<'_>| device::sense(call, SENSOR, 0, HOUR_NS, 64);
    for pending in [
        Pending::Receive {
            deadline_ns: Some(0),
        },
        Pending::Poll { since_ns: 0 },
        Pending::Tensor { rows: u64::MAX },
        Pending::Actuate,
    ] {
        bench.context.host.pending = Some(pending);
        let wait = bench.blocks(timed);
        assert!(wait.deadline_ns.is_some_and(|deadline| deadline >= HOUR_NS));
    }
    bench.context.host.pending = Some(Pending::Sense { deadline_ns: None });
    assert_eq!(
        bench.call(|call| device::actuate(call, ACTUATOR, 5)),
        0,
        "nor about an actuator"
    );
}

#[test]
fn an_actuator_answers_in_its_own_time() {
    let mut bench = Bench::new(&["actuator:3"]);
    let value = (-5i64).cast_unsigned();
    let set = |call: &mut Call<'_>| device::actuate(call, ACTUATOR, value);
    let answer = |bench: &Bench, answer| *bench.desk.answer.lock().unwrap() = Some(answer);
    answer(&bench, Actuated::NotYet);
    let expected = Wait {
        deadline_ns: None,
        message: false,
        reading: true,
    };
    assert_eq!(bench.blocks(set), expected);
    assert_eq!(bench.blocks(set), expected);
    bench.context.host = HostState::from_sections(&bench.context.host.to_sections()).unwrap();
    assert_eq!(bench.blocks(set), expected);
    assert_eq!(*bench.desk.calls.lock().unwrap(), 1, "it is one call");
    for (is, errno) in [
        (Actuated::Done, 0),
        (Actuated::Refused, 28),
        (Actuated::Unreachable, 23),
        (Actuated::Absent, 43),
    ] {
        answer(&bench, is);
        assert_eq!(bench.call(set), errno, "{is:?}");
    }
    assert_eq!(*bench.desk.set.lock().unwrap(), [-5]);
}

#[test]
fn devices_need_a_grant_for_that_one_and_must_be_there() {
    let sense =
        |number: u32| move |call: &mut Call<'_>| device::sense(call, number, 0, u64::MAX, 64);
    let actuate = |number: u32| move |call: &mut Call<'_>| device::actuate(call, number, 1);
    let [denied, absent] = [Errno::Notcapable, Errno::Nodev].map(errno);

    let mut bench = Bench::new(&["sensor:2", "sensor:7", "actuator:3"]);
    measure(&bench, 1, 1);
    assert_eq!(bench.call(sense(SENSOR)), 0);
    assert_eq!(bench.call(actuate(ACTUATOR)), 0);
    assert_eq!(bench.call(sense(7)), absent);
    for number in [3, 255, 256, 258, u32::MAX] {
        assert_eq!(bench.call(sense(number)), denied, "{number}");
    }
    for number in [2, 256, 259] {
        assert_eq!(bench.call(actuate(number)), denied, "{number}");
    }
    let noted = bench.desk.denied.lock().unwrap().clone();
    assert_eq!(
        noted[..3],
        [
            (Capability::Sensor(Port::One(3)), "mielin.sense"),
            (Capability::Sensor(Port::One(255)), "mielin.sense"),
            (Capability::Sensor(Port::Any), "mielin.sense"),
        ]
    );
    assert_eq!(
        noted[5..7],
        [
            (Capability::Actuator(Port::One(2)), "mielin.actuate"),
            (Capability::Actuator(Port::Any), "mielin.actuate"),
        ]
    );

    let mut all = Bench::new(&["sensor", "actuator"]);
    for number in [0, 255, 256, 258, u32::MAX] {
        assert_eq!(all.call(sense(number)), absent, "{number}");
        assert_eq!(all.call(actuate(number)), absent, "{number}");
    }
    assert_eq!(*all.desk.denied.lock().unwrap(), []);
}

#[test]
fn nowhere_to_put_a_reading_and_a_service_that_goes_back_are_errors() {
    let mut bench = Bench::new(&["sensor"]);
    measure(&bench, 1, 1);
    let before = bench.memory.clone();
    for out in [END - 23, END, u32::MAX] {
        let call = |call: &mut Call<'_>| device::sense(call, SENSOR, 0, u64::MAX, out);
        assert_eq!(bench.call(call), errno(Errno::Fault));
    }
    assert_eq!(bench.memory, before);

    /// Gives the same reading whatever it is asked for.
    struct Stuck;
    impl Services for Stuck {
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
        fn sense(&self, _: u8, _: u64) -> Sensed {
            Sensed::Reading(reading(3, 3))
        }
    }
    bench.context.services = Arc::new(Stuck);
    let after =
        |number: u64| move |call: &mut Call<'_>| device::sense(call, SENSOR, number, u64::MAX, 64);
    assert_eq!(bench.call(after(2)), 0);
    bench.memory = before.clone();
    assert_eq!(bench.call(after(3)), errno(Errno::Io));
    assert_eq!(bench.memory, before);
    assert_eq!(
        bench.call(|call| device::actuate(call, 0, 0)),
        errno(Errno::Notcapable)
    );
    let actuator = "actuator".parse().unwrap();
    assert!(bench.context.host.grants.grant(actuator));
    assert_eq!(
        bench.call(|call| device::actuate(call, 0, 0)),
        errno(Errno::Nodev),
        "a node without devices need not say so"
    );
}

/// Reads sensor 2 until there have been four readings, keeps a digest over them at 100, and after each sets actuator 3
/// to it.
const PROGRAM: &str = r#"(module
    (import "mielin" "sense" (func $sense (param i32 i64 i64 i32) (result i32)))
    (import "mielin" "actuate" (func $actuate (param i32 i64) (result i32)))
    (memory (export "memory") 1)
    (func $check (param i32) (if (local.get 0) (then unreachable)))
    (func (export "_start") (local $turn i32)
        (loop $again
            (call $check (call $sense (i32.const 2) (i64.load (i32.const 0)) (i64.const -1) (i32.const 0)))
            (i64.store (i32.const 100)
                (i64.add (i64.mul (i64.load (i32.const 100)) (i64.const 1000003)) (i64.load (i32.const 16))))
            (call $check (call $actuate (i32.const 3) (i64.load (i32.const 100))))
            (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $turn) (i32.const 4))))))"#;

fn host(grants: &[&str]) -> HostState {
    let grants: Grants = grants.iter().map(|text| text.parse().unwrap()).collect();
    HostState::new(Address([7; 16])).with_grants(grants)
}

#[test]
fn a_program_that_waits_for_a_device_goes_on_under_the_other_engine() {
    use crate::{EngineKind, Outcome};
    use mielin_safepoint::{Snapshot, SnapshotLimits};
    let module = mielin_safepoint::instrument(&wat::parse_str(PROGRAM).unwrap()).unwrap();
    let mut kinds = [EngineKind::Wasmtime, EngineKind::Wasmi]
        .into_iter()
        .cycle();
    let desk = Arc::new(Desk::default());
    let mut make = |host: HostState| {
        let engine = crate::engine(kinds.next().unwrap()).unwrap();
        let services = Arc::clone(&desk) as Arc<dyn Services>;
        let prepared = engine.prepare(&module, None).unwrap();
        let limits = Limits::default();
        prepared.instantiate(host, services, &limits).unwrap()
    };
    let waits = Outcome::Blocked(Wait {
        deadline_ns: None,
        message: false,
        reading: true,
    });
    let values = [5i64, -6, i64::MAX, 0];
    let mut expected = Vec::new();
    let mut digest = 0i64;
    for value in values {
        digest = digest.wrapping_mul(1_000_003).wrapping_add(value);
        expected.push(digest);
    }
    let mut instance = make(host(&["sensor:2", "actuator:3"]));
    let mut hop = |instance: &mut Box<dyn crate::Instance>| {
        let bytes = instance.snapshot().encode();
        let snapshot = Snapshot::decode(&bytes, &SnapshotLimits::default()).unwrap();
        *instance = make(HostState::new(Address::default()));
        instance.load(&snapshot).unwrap();
    };
    for (number, value) in (1..).zip(values) {
        assert_eq!(instance.run(), waits, "for the reading {number}");
        hop(&mut instance);
        assert_eq!(instance.run(), waits);
        let readings = || desk.readings.lock().unwrap();
        readings().push_back(reading(2 * number, value));
        *desk.answer.lock().unwrap() = Some(Actuated::NotYet);
        assert_eq!(instance.run(), waits, "for the answer {number}");
        assert_eq!(readings().len(), 1, "the program is not done with it");
        hop(&mut instance);
        assert_eq!(instance.run(), waits);
        *desk.answer.lock().unwrap() = None;
    }
    assert_eq!(instance.run(), Outcome::Exited(0));
    assert_eq!(*desk.set.lock().unwrap(), expected);
}

#[test]
fn a_plain_program_waits_for_a_reading_only_with_a_time() {
    use crate::{EngineKind, Outcome};
    let once = |timeout: &str| {
        let text = format!(
            r#"(module
            (import "mielin" "sense" (func $sense (param i32 i64 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (call $exit (call $sense (i32.const 2) (i64.const 0) (i64.const {timeout}) (i32.const 0)))))"#
        );
        wat::parse_str(text).unwrap()
    };
    for kind in [EngineKind::Wasmtime, EngineKind::Wasmi] {
        let run = |wasm: &[u8]| {
            let plain = crate::engine(kind).unwrap().prepare_plain(wasm).unwrap();
            let desk = Arc::new(Desk::default());
            let outcome = plain.run(host(&["sensor"]), desk, &Limits::default());
            outcome.unwrap()
        };
        assert_eq!(run(&once("1000000")), Outcome::Exited(73), "{kind}");
        let endless = Outcome::Trapped(TrapKind::EndlessWait.into());
        assert_eq!(run(&once("-1")), endless, "{kind}");
    }
}
