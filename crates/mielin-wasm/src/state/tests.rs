//! Host sections: round trips, and what hostile ones do.
#![allow(clippy::unwrap_used)]

use mielin_safepoint::HostSection;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::filesystem::{Opening, Path, ROOT};
use crate::{Capability, TrapKind};

/// A state with something in every field.
fn full() -> HostState {
    let one = format!("message:{}", Address([3; 16]));
    let grants =
        ["clock", "random", "data:1MiB", &one].map(|text| text.parse::<Capability>().unwrap());
    let mut state = HostState::new(Address([9; 16]))
        .with_args(["program", "", "--flag"])
        .with_env(["A=1", "LONG=ünicode"])
        .with_stdin(*b"some input")
        .with_grants(Grants::from_iter(grants));
    state.stdin_position = 4;
    state.descriptors[0] = None;
    state.descriptors[2] = state.descriptors[1];
    fill(&mut state);
    state.pending = Some(Pending::Receive {
        deadline_ns: Some(77),
    });
    state.note_received(Address([1; 16]), 5);
    state.note_received(Address([2; 16]), u64::MAX);
    state.end = Some(End::Trapped(Trap {
        kind: TrapKind::Unreachable,
        function: Some("main".into()),
    }));
    state
}

/// Files and descriptors of them: one without a name, one in place of standard input, and a stream
/// beyond the third.
fn fill(state: &mut HostState) {
    let files = state.data.as_mut().unwrap();
    let path = |text: &'static str| Path::new(text.as_bytes()).unwrap();
    let how = Opening {
        create: true,
        ..Opening::default()
    };
    files.make_directory(ROOT, path("d"), 1).unwrap();
    let (one, two) = (
        files.open(ROOT, path("d/one"), how, 2).unwrap(),
        files.open(ROOT, path("two"), how, 3).unwrap(),
    );
    files.write(one, 9000, b"behind a hole", 4).unwrap();
    files.write(two, 0, b"without a name", 5).unwrap();
    files.remove_file(ROOT, path("two"), 6).unwrap();
    for (ino, position) in [(one, 9003), (two, 0)] {
        let what = Object::File { ino, position };
        let descriptor = Descriptor {
            what,
            flags: FDFLAGS_APPEND,
            rights: rights::FD_READ,
            inheriting: 0,
        };
        state.enter(descriptor).unwrap();
    }
    let stream = Descriptor::of_stream(Stream::Stderr);
    assert_eq!(state.enter(stream), Some(5));
    assert_eq!(state.descriptors[0].unwrap().what.ino(), Some(one));
}

fn check_same(one: &HostState, other: &HostState) {
    assert_eq!(one.address, other.address);
    assert_eq!(one.args, other.args);
    assert_eq!(one.env, other.env);
    assert_eq!(one.grants, other.grants);
    assert_eq!(one.stdin, other.stdin);
    assert_eq!(one.stdin_position, other.stdin_position);
    assert_eq!(one.descriptors, other.descriptors);
    assert_eq!(one.pending, other.pending);
    assert_eq!(one.unanswered, other.unanswered);
    assert_eq!(one.end, other.end);
    let data = |state: &HostState| {
        let mut sections = state.to_sections();
        sections.drain(..3);
        sections
    };
    assert_eq!(format!("{:?}", data(one)), format!("{:?}", data(other)));
}

#[test]
fn every_field_survives() {
    let mut state = full();
    let pendings = [
        None,
        Some(Pending::Poll { since_ns: 12 }),
        Some(Pending::Receive { deadline_ns: None }),
        Some(Pending::Receive {
            deadline_ns: Some(u64::MAX),
        }),
        Some(Pending::Send),
        Some(Pending::Tensor { rows: 7 }),
        Some(Pending::Sense { deadline_ns: None }),
        Some(Pending::Sense {
            deadline_ns: Some(78),
        }),
        Some(Pending::Actuate),
    ];
    let others = [TrapKind::Other("a fault of the engine".into())];
    let traps = TrapKind::NUMBERED.into_iter().chain(others);
    let mut ends = vec![None, Some(End::Exited(-3)), state.end.clone()];
    ends.extend(traps.map(|kind| Some(End::Trapped(kind.into()))));
    for pending in pendings {
        for end in &ends {
            (state.pending, state.end) = (pending, end.clone());
            let read = HostState::from_sections(&state.to_sections()).unwrap();
            check_same(&state, &read);
        }
    }
}

#[test]
fn the_monotonic_clock_goes_on_and_never_back() {
    let mut state = full();
    let mut last = state.now_ns();
    for _ in 0..100 {
        let sections = state.to_sections();
        state = HostState::from_sections(&sections).unwrap();
        let now = state.now_ns();
        assert!(now >= last, "{now} is before {last}");
        last = now;
    }
    let ahead = Clock::starting_at(state.platform, u64::MAX - 1);
    state.clock = ahead;
    assert!(
        state.now_ns() >= u64::MAX - 1,
        "it stays at the end instead of wrapping"
    );
}

#[test]
fn fixed_sections_do_not_change_while_the_program_runs() {
    let mut state = full();
    let before = state.to_sections();
    state.stdin_position = 9;
    state.pending = None;
    let (files, Some(descriptor)) = (state.data.as_mut().unwrap(), state.descriptors[0]) else {
        panic!("standard input was put in place of a file")
    };
    let ino = descriptor.what.ino().unwrap();
    files.write(ino, 0, b"more", 7).unwrap();
    state.note_received(Address([8; 16]), 1);
    let after = state.to_sections();
    for (before, after) in before.iter().zip(&after) {
        let same = before.bytes == after.bytes;
        assert_eq!(same, HostState::is_fixed(&before.name), "{}", before.name);
    }
}

#[test]
fn sections_of_others_are_left_alone_and_unknown_ones_of_ours_refused() {
    let section = |name: &str| HostSection {
        name: name.into(),
        version: 3,
        bytes: vec![1],
    };
    let mut sections = full().to_sections();
    sections.push(section("cells.mailbox"));
    check_same(&full(), &HostState::from_sections(&sections).unwrap());
    sections.push(section("wasm.tomorrow"));
    let refused = HostState::from_sections(&sections).unwrap_err();
    assert_eq!(
        refused,
        StateError::Unknown {
            section: "wasm.tomorrow".into()
        }
    );
}

#[test]
fn missing_repeated_and_foreign_versions_are_named() {
    for index in 0..5 {
        let mut sections = full().to_sections();
        let section = sections.remove(index);
        let missing = HostState::from_sections(&sections).unwrap_err();
        assert!(matches!(missing, StateError::Missing { .. }), "{missing}");
        assert!(missing.to_string().contains(&section.name), "{missing}");
        sections.extend([section.clone(), section.clone()]);
        let twice = HostState::from_sections(&sections).unwrap_err();
        assert!(matches!(twice, StateError::Repeated { .. }), "{twice}");
        sections.pop();
        sections.last_mut().unwrap().version = 2;
        let version = HostState::from_sections(&sections).unwrap_err();
        assert!(
            matches!(
                version,
                StateError::Version {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{version}"
        );
    }
}

#[test]
fn every_truncation_and_every_extra_byte_is_an_error() {
    for index in [0, 2, 3] {
        let sections = full().to_sections();
        for len in 0..sections[index].bytes.len() {
            let mut cut = sections.clone();
            cut[index].bytes.truncate(len);
            assert!(
                HostState::from_sections(&cut).is_err(),
                "section {index} cut to {len}"
            );
        }
        let mut longer = sections.clone();
        longer[index].bytes.push(0);
        assert!(HostState::from_sections(&longer).is_err());
    }
}

#[test]
fn a_hostile_length_neither_panics_nor_allocates() {
    let mut bytes = vec![0; 16];
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    let mut sections = full().to_sections();
    sections[0].bytes = bytes.clone();
    assert_eq!(
        HostState::from_sections(&sections).unwrap_err(),
        StateError::Truncated {
            section: "wasm.program"
        }
    );
    bytes.truncate(16);
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    sections[0].bytes = bytes;
    assert!(HostState::from_sections(&sections).is_err());
}

#[test]
fn random_damage_never_panics_and_rights_never_widen() {
    let mut random = StdRng::seed_from_u64(0x5eed);
    for _ in 0..20_000 {
        let mut sections = full().to_sections();
        let bytes = &mut sections[[0, 2, 3][random.random_range(0..3)]].bytes;
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        if let Ok(state) = HostState::from_sections(&sections) {
            assert!(state.stdin_position <= state.stdin.len());
            for descriptor in state.descriptors.into_iter().flatten() {
                let widest = descriptor.what.rights();
                assert_eq!(descriptor.rights & !widest, 0);
                if let Some(ino) = descriptor.what.ino() {
                    assert!(state.data.as_ref().unwrap().stat(ino).is_ok());
                }
            }
        }
    }
}

#[test]
fn data_is_there_if_it_is_granted_and_only_then() {
    let with = |text: &str| {
        let grants = Grants::from_iter([text.parse::<Capability>().unwrap()]);
        HostState::new(Address::default()).with_grants(grants)
    };
    let granted = with("data:64KiB").to_sections();
    let denied = with("clock").to_sections();
    assert_eq!((granted.len(), denied.len()), (5, 3));
    let grants_of = |sections: &[HostSection]| sections[0].clone();
    let mut smuggled = granted.clone();
    smuggled[0] = grants_of(&denied);
    assert!(HostState::from_sections(&smuggled).is_err());
    let mut without = denied;
    without[0] = grants_of(&granted);
    assert_eq!(
        HostState::from_sections(&without).unwrap_err(),
        StateError::Missing {
            section: "wasm.blocks"
        }
    );
    // More than a smaller grant allows.
    let mut state = with("data:64KiB");
    let files = state.data.as_mut().unwrap();
    let how = Opening {
        create: true,
        ..Opening::default()
    };
    let ino = files.open(ROOT, Path::new(b"f").unwrap(), how, 0).unwrap();
    files.write(ino, 0, &[1; 65536], 0).unwrap();
    files.release(ino);
    let mut sections = state.to_sections();
    assert!(HostState::from_sections(&sections).is_ok());
    sections[0] = grants_of(&with("data:60KiB").to_sections());
    assert!(HostState::from_sections(&sections).is_err());
}
