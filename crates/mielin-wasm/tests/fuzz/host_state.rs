//! The host's part of a snapshot: what is read is written to a form that stays the same from then
//! on, but for the clock, which runs.
#![allow(clippy::unwrap_used)]

use mielin_fuzz::{Seed, Steps, Target};
use mielin_safepoint::HostSection;
use mielin_wasm::{Address, Capability, Grants, HostState};

pub(crate) const TARGET: Target = Target {
    name: "host_state",
    mutations: 20_000,
    fixed_bytes: 8192,
    // A block of a file takes 19 bytes of input, and is held twice.
    bytes_per_byte: 640,
    run,
    seeds,
};

const NAMES: [&str; 8] = [
    "wasm.program",
    "wasm.stdin",
    "wasm.run",
    "other",
    "wasm.data",
    "wasm.blocks",
    "others",
    "nobody's",
];

/// Every step is a section: the lower bits of its number say which, the upper ones the version.
fn run(input: &[u8]) -> bool {
    let sections: Vec<HostSection> = Steps::new(input)
        .map(|(kind, bytes)| HostSection {
            name: NAMES[usize::from(kind) % NAMES.len()].into(),
            version: u16::from(kind / 8),
            bytes: bytes.to_vec(),
        })
        .collect();
    let Ok(state) = HostState::from_sections(&sections) else {
        return false;
    };
    let written = state.to_sections();
    let again = HostState::from_sections(&written).unwrap().to_sections();
    assert_eq!(written.len(), again.len());
    for (one, other) in written.iter().zip(&again) {
        // The clock is the first thing in the section that changes while a program runs.
        let clock = if one.name == NAMES[2] { 8 } else { 0 };
        assert_eq!((&one.name, one.version), (&other.name, other.version));
        assert_eq!(one.bytes[clock..], other.bytes[clock..], "{}", one.name);
    }
    let (position, len) = state.stdin_progress();
    assert!(position <= len);
    true
}

fn seeds() -> Vec<Seed> {
    let one = format!("message:{}", Address([3; 16]));
    let grants = ["clock", "random", &one].map(|text| text.parse::<Capability>().unwrap());
    let state = HostState::new(Address([9; 16]))
        .with_args(["program", "", "--flag"])
        .with_env(["A=1", "LONG=ünicode"])
        .with_stdin(*b"some input")
        .with_grants(Grants::from_iter(grants));
    let steps = |state: &HostState, kinds: &[u8]| {
        let sections = state.to_sections();
        let steps: Vec<_> = kinds
            .iter()
            .zip(&sections)
            .map(|(kind, section)| (*kind, section.bytes.as_slice()))
            .collect();
        Steps::write(&steps)
    };
    // Version 1 is 8 in a step's number.
    let bare = HostState::new(Address::default());
    let granted = Grants::from_iter(["data:1MiB".parse::<Capability>().unwrap()]);
    let with_data = HostState::new(Address::default()).with_grants(granted);
    let with_run = |run: &[u8]| {
        let sections = bare.to_sections();
        Steps::write(&[(8, &sections[0].bytes), (9, b"input"), (10, run)])
    };
    let run = bare.to_sections()[2].bytes.clone();
    // Behind the clock, the position, three descriptors of eleven bytes and what is pending.
    let (front, pending) = (&run[..49], 49);
    let waits = [front, &[3, 1, 2, 3, 4, 5, 6, 7, 8], &run[pending + 1..]].concat();
    let senses = [front, &[7, 1, 2, 3, 4, 5, 6, 7, 8], &run[pending + 1..]].concat();
    let actuates = [front, &[8], &run[pending + 1..]].concat();
    let cut = [front, &[7, 1, 2, 3]].concat();
    let unknown = [front, &[9], &run[pending + 1..]].concat();
    let trapped = [&run[..run.len() - 1], &[2, 3, 0, 0, 0], b"bad"].concat();
    let replies = [&run[..50], &[1, 0, 0, 0], &[7; 24], &[0]].concat();
    let claims_replies = [&run[..50], &[0xff; 4], &[7; 48]].concat();
    vec![
        Seed::good("bare", steps(&bare, &[8, 9, 10])),
        Seed::good("full", steps(&state, &[8, 9, 10])),
        Seed::good("data", steps(&with_data, &[8, 9, 10, 12, 13])),
        Seed::bad("data-without-contents", steps(&with_data, &[8, 9, 10, 12])),
        Seed::bad("data-that-is-not-granted", {
            let (bare, data) = (bare.to_sections(), with_data.to_sections());
            let steps = [&bare[0], &bare[1], &bare[2], &data[3], &data[4]];
            let numbered = [8, 9, 10, 12, 13].into_iter().zip(steps);
            let steps: Vec<_> = numbered
                .map(|(kind, section)| (kind, &section.bytes[..]))
                .collect();
            Steps::write(&steps)
        }),
        Seed::good("receives-with-a-deadline", with_run(&waits)),
        Seed::good("senses-with-a-deadline", with_run(&senses)),
        Seed::good("actuates", with_run(&actuates)),
        Seed::bad("half-a-deadline-of-sense", with_run(&cut)),
        Seed::bad("unknown-pending-call", with_run(&unknown)),
        Seed::good("trapped", with_run(&trapped)),
        Seed::good("one-to-reply-to", with_run(&replies)),
        Seed::bad("claims-4-billion-to-reply-to", with_run(&claims_replies)),
        Seed::bad("program-twice", steps(&bare, &[8, 8, 10])),
        Seed::bad("version-2", steps(&bare, &[16, 9, 10])),
    ]
}
