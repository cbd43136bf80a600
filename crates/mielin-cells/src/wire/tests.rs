#![allow(clippy::unwrap_used)]

use mielin_fuzz::{Seed, Target};
use mielin_mesh_core::limits::CODEC_BYTES_MAX;

use super::*;

/// Calls and answers, by the first byte; answers become reports and errors.
const OPERATIONS: Target = Target {
    name: "operations",
    mutations: 20_000,
    // What the codec's limit lets a length claim.
    fixed_bytes: CODEC_BYTES_MAX + (64 << 10),
    bytes_per_byte: 64,
    run: |bytes| match bytes.split_first() {
        Some((0, bytes)) => match Call::decode(bytes) {
            Ok(call) => {
                assert_eq!(Call::decode(&call.encode()).unwrap(), call);
                true
            }
            Err(_) => false,
        },
        Some((1, bytes)) => match Answer::decode(bytes) {
            Ok(answer) => {
                assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
                becomes_a_report(answer)
            }
            Err(_) => false,
        },
        _ => false,
    },
    seeds,
};

/// Whether an answer can be used.
fn becomes_a_report(answer: Answer) -> bool {
    let agent = AgentId([1; 16]);
    match answer {
        Answer::Inspected(inspected) => {
            let report = inspected.into_report(agent);
            if let Ok(report) = &report {
                let again = Inspected::new(report).into_report(agent).unwrap();
                assert_eq!(Inspected::new(&again), Inspected::new(report));
            }
            report.is_ok()
        }
        Answer::Moved(moved) => {
            let report = moved.clone().into_report(agent);
            if let Ok(report) = &report {
                assert_eq!(Moved::new(report), moved);
            }
            report.is_ok()
        }
        Answer::Failed(failure) => {
            let error = failure.into_error(agent);
            // An error that has gone one way goes on unchanged.
            let again = Failure::new(&error).into_error(agent);
            assert_eq!(Failure::new(&again), Failure::new(&error));
            true
        }
        _ => true,
    }
}

fn seeds() -> Vec<Seed> {
    let of = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    let call = |operation| {
        let agent = [1; 16];
        of(0, Call { agent, operation }.encode())
    };
    let answer = |answer: Answer| of(1, answer.encode());
    let inspected = |grant: &str, budget: &str| {
        Answer::Inspected(Inspected {
            node: [2; 32],
            name: "agent".into(),
            state: AgentState::Running,
            epoch: 1,
            module: [3; 32],
            wasmi: true,
            grants: vec![grant.into()],
            started_ms: 4,
            memory_bytes: 65536,
            memory_bytes_max: 1 << 20,
            stdout_bytes: 1,
            stderr_bytes: 2,
            log_bytes_max: 9,
            mailbox_count: 3,
            waits_for: Some([6; 32]),
            tallied: Tallied::sample(),
            budget: budget.into(),
            throttled: true,
        })
    };
    let moved = |strategy| {
        Answer::Moved(Moved {
            from: [1; 32],
            to: [2; 32],
            strategy,
            downtime_us: 1,
            total_us: 2,
            bytes: 3,
            rounds: 1,
            pages: vec![300],
            phases: vec![("Planning".into(), 5)],
            tracker: "page-hash".into(),
            target_resume_us: 6,
            followed: 5,
            faults: 2,
            unchanged: 7,
            throttled_percent: 75,
            page_bytes: [9, 8],
        })
    };
    let line = Line {
        time_ms: 1,
        level: "info".into(),
        text: "text".into(),
    };
    let busy = Failure::Busy("moving".into());
    let other = Failure::Other {
        class: 200,
        message: "why".into(),
    };
    let read = Operation::ReadLog {
        stderr: true,
        offset: u64::MAX,
        wait_ms: u64::MAX,
    };
    let migrate = Operation::Migrate {
        node: [2; 32],
        strategy: Some(9),
        downtime_ms: Some(7),
    };
    vec![
        Seed::good("read-log", call(read)),
        Seed::good("migrate", call(migrate)),
        Seed::good(
            "inspected",
            answer(inspected("clock", "cpu=10s,log=1KiB/s")),
        ),
        Seed::bad(
            "inspected-with-an-unknown-grant",
            answer(inspected("root", "")),
        ),
        Seed::bad(
            "inspected-with-an-odd-budget",
            answer(inspected("clock", "cpu")),
        ),
        Seed::good("moved", answer(moved(1))),
        Seed::bad("moved-by-strategy-9", answer(moved(9))),
        Seed::good(
            "clone",
            call(Operation::Clone {
                node: [2; 32],
                name: Some("copy".into()),
            }),
        ),
        Seed::good("made", answer(Answer::Made([5; 16]))),
        Seed::good("host-log", answer(Answer::HostLog(vec![line]))),
        Seed::good("busy", answer(Answer::Failed(busy))),
        Seed::good("error-of-class-200", answer(Answer::Failed(other))),
    ]
}

#[test]
fn operations() {
    OPERATIONS.replay();
}
