use std::vec::Vec;

use mielin_fuzz::{Seed, Target};

use super::*;

const ARCHITECTURE: u16 = 243;

/// An executable with these segments: type, flags, address, content, bytes in memory.
fn executable(segments: &[(u32, u32, u64, &[u8], u64)]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend(TYPE_EXECUTABLE.to_le_bytes());
    bytes.extend(ARCHITECTURE.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    for long in [0x1_0000, HEADER_BYTES as u64, 0] {
        bytes.extend(u64::to_le_bytes(long));
    }
    bytes.extend(0u32.to_le_bytes());
    let size = PROGRAM_HEADER_BYTES as u16;
    for half in [HEADER_BYTES as u16, size, segments.len() as u16, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    let mut offset = (HEADER_BYTES + segments.len() * PROGRAM_HEADER_BYTES) as u64;
    for (kind, flags, address, content, memory_bytes) in segments {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        let file_bytes = content.len() as u64;
        for long in [offset, *address, *address, file_bytes, *memory_bytes, 1] {
            bytes.extend(u64::to_le_bytes(long));
        }
        offset += file_bytes;
    }
    segments.iter().for_each(|segment| bytes.extend(segment.3));
    bytes
}

fn check(segments: &[(u32, u32, u64, &[u8], u64)], expected: Result<usize, ExecutableError>) {
    let bytes = executable(segments);
    let parsed = Executable::parse(&bytes, ARCHITECTURE).and_then(|executable| {
        let segments: Result<Vec<_>, _> = executable.segments().collect();
        Ok(segments?.len())
    });
    assert_eq!(parsed, expected);
}

#[test]
fn segments_are_what_their_headers_say() {
    check(&[(SEGMENT_LOAD, 5, 0x1_0000, b"code", 4096)], Ok(1));
    check(
        &[
            (6, 4, 0x40, b"", 0),
            (SEGMENT_LOAD, 6, 0x2_0000, b"data", 8),
        ],
        Ok(1),
    );
    check(
        &[(SEGMENT_LOAD, 7, 0x1_0000, b"code", 4096)],
        Err(ExecutableError::Segment),
    );
    check(
        &[(SEGMENT_LOAD, 4, 0x1_0000, b"more", 3)],
        Err(ExecutableError::Segment),
    );
    check(
        &[(SEGMENT_LOAD, 4, u64::MAX, b"", 2)],
        Err(ExecutableError::Segment),
    );
    let many = [(SEGMENT_LOAD, 4, 0, b"".as_slice(), 0); 33];
    check(&many, Err(ExecutableError::TooMany));
}

#[test]
fn words_are_the_content_and_zeros_around_it() {
    let bytes = executable(&[(SEGMENT_LOAD, 4, 0x1004, b"\x01\x02\x03", 100)]);
    let executable = Executable::parse(&bytes, ARCHITECTURE).expect("it is one");
    let segment = executable
        .segments()
        .next()
        .expect("it has one")
        .expect("it is one");
    assert_eq!(segment.word(0x1000), 0x0003_0201_0000_0000);
    assert_eq!(segment.word(0x1008), 0);
    assert_eq!(segment.word(u64::MAX - 7), 0);
}

/// A note.
fn note(owner: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [owner.len() as u32, content.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [owner, content] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

#[test]
fn notes_are_found_by_owner_and_kind() {
    let notes = [
        note(b"GNU\0", 18, b"another owner's"),
        note(b"Xen\0", 6, b"13 characters"),
        note(b"Xen\0", 18, b"entry"),
        note(b"Xen\0", 18, b"later"),
    ]
    .concat();
    let of = |notes: &[u8], kind| {
        let bytes = executable(&[
            (SEGMENT_LOAD, 5, 0x1_0000, b"code", 4096),
            (SEGMENT_NOTE, 4, 0, notes, 0),
        ]);
        let executable = Executable::parse(&bytes, ARCHITECTURE).expect("it is one");
        executable.note(b"Xen\0", kind).map(<[u8]>::to_vec)
    };
    assert_eq!(of(&notes, 18).as_deref(), Some(b"entry".as_slice()));
    assert_eq!(of(&notes, 6).as_deref(), Some(b"13 characters".as_slice()));
    assert_eq!(of(&notes, 7), None);
    assert_eq!(of(&[], 18), None);
    // The last one may end with its content, and not before.
    let last = note(b"Xen\0", 1, b"entry");
    assert_eq!(of(&last[..21], 1).as_deref(), Some(b"entry".as_slice()));
    assert_eq!(of(&last[..20], 1), None);
    let mut endless = last;
    endless[4..8].fill(0xff);
    assert_eq!(of(&endless, 1), None);
}

/// Whatever the bytes are: no panic, nothing allocated, and no segment is writable and executable, or longer than the bytes.
const EXECUTABLE: Target = Target {
    name: "executable",
    mutations: 20_000,
    fixed_bytes: 0,
    bytes_per_byte: 0,
    run: |bytes| {
        let Ok(executable) = Executable::parse(bytes, ARCHITECTURE) else {
            return false;
        };
        let mut accepted = true;
        for segment in executable.segments() {
            let Ok(segment) = segment else {
                accepted = false;
                continue;
            };
            assert!(!(segment.access.is_writable() && segment.access.is_executable()));
            assert!(segment.content.len() <= bytes.len());
            let end = segment.address.checked_add(segment.memory_bytes);
            assert!(end.is_some() && segment.content.len() as u64 <= segment.memory_bytes);
            let _ = (segment.word(segment.address), segment.word(0));
        }
        let note = executable.note(b"Xen\0", 18);
        assert!(note.is_none_or(|note| note.len() <= bytes.len()));
        accepted
    },
    seeds: || {
        let good = executable(&[
            (SEGMENT_LOAD, 5, 0x1_0000, b"code", 4096),
            (SEGMENT_LOAD, 6, 0x2_0000, b"data", 0x3000),
            (7, 4, 0x2_0000, b"", 0),
        ]);
        let noted = executable(&[(SEGMENT_NOTE, 4, 0, &note(b"Xen\0", 18, &[1; 8]), 0)]);
        let mut foreign = good.clone();
        foreign[18] = 62;
        let mut cut = good.clone();
        cut.truncate(good.len() - 5);
        std::vec![
            Seed::good("two-segments", good.clone()),
            Seed::good("note", noted),
            Seed::good("empty", executable(&[])),
            Seed::bad("another-architecture", foreign),
            Seed::bad("cut", cut),
            Seed::bad("writable-code", executable(&[(SEGMENT_LOAD, 7, 0, b"", 1)])),
            Seed::bad("wraps", executable(&[(SEGMENT_LOAD, 4, u64::MAX, b"", 9)])),
        ]
    },
};

#[test]
fn hostile_executables() {
    EXECUTABLE.replay();
}
