//! Structures and contents from anybody, and operations with any paths on what was accepted.

use mielin_fuzz::{Seed, Steps, Target};

use super::*;

/// 16 blocks, and 64 files and directories.
const QUOTA: Quota = Quota {
    blocks: 16,
    nodes: 64,
};

/// The first step is a structure, the second the contents of blocks; the others are operations. What
/// is accepted keeps its invariants.
const DATA: Target = Target {
    name: "data",
    mutations: 20_000,
    // The blocks of a full file system, and those of a copy.
    fixed_bytes: 256 << 10,
    // A block of one byte takes 19 bytes of input.
    bytes_per_byte: 512,
    run,
    seeds,
};

fn run(input: &[u8]) -> bool {
    let mut steps = Steps::new(input);
    let (_, structure) = steps.next().unwrap_or_default();
    let (_, blocks) = steps.next().unwrap_or_default();
    let Ok(mut files) = decode(structure, blocks, QUOTA) else {
        return false;
    };
    if !files.is_settled() {
        return false;
    }
    files.hold(ROOT);
    check(&files);
    let mut open = vec![ROOT];
    for (kind, bytes) in steps.take(64) {
        let top = open.len() - 1;
        let start = open[usize::from(kind / 16).min(top)];
        let _refused = operate(&mut files, &mut open, start, kind % 16, bytes);
        check(&files);
    }
    for ino in open {
        files.release(ino);
    }
    true
}

/// Bytes are one path, or two with a zero byte between them.
fn operate(
    files: &mut FileSystem,
    open: &mut Vec<Ino>,
    start: Ino,
    kind: u8,
    bytes: &[u8],
) -> Result<(), FsError> {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let first = Path::new(parts.next().unwrap_or_default());
    let second = Path::new(parts.next().unwrap_or_default());
    let number = bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    match kind {
        0 => files.make_directory(start, first?, 1),
        1 => files.remove_directory(start, first?, 2),
        2 => files.remove_file(start, first?, 3),
        3 => files.rename((start, first?), (ROOT, second?), 4),
        4 => files.rename((ROOT, first?), (start, second?), 5),
        5 => files.link((start, first?), (ROOT, second?), 6),
        6 | 7 => {
            let how = Opening {
                create: kind == 6,
                write: kind == 6,
                ..Opening::default()
            };
            open.push(files.open(start, first?, how, 7)?);
            Ok(())
        }
        8 if open.len() > 1 => {
            open.pop().into_iter().for_each(|ino| files.release(ino));
            Ok(())
        }
        9 => files.write(start, number, bytes, 8).map(drop),
        10 => files.write(start, number % 65_536, bytes, 9).map(drop),
        11 => files.set_len(start, number % 65_536, 10),
        12 => files.set_len(start, number, 11),
        13 => files.allocate(start, number % 65_536, number >> 48, 12),
        14 => files.read(start, number % 65_536, &mut [0; 100]).map(drop),
        _ => {
            let entries = files.list(start, number % 16)?;
            assert!(entries.count() <= QUOTA.nodes + 2);
            Ok(())
        }
    }
}

/// Something of everything.
fn full() -> FileSystem {
    let mut files = FileSystem::new(QUOTA);
    files.make_directory(ROOT, path("d"), 1).unwrap();
    files.make_directory(ROOT, path("d/e"), 2).unwrap();
    let ino = make(&mut files, "d/f");
    files
        .write(ino, 5000, b"some bytes behind a hole", 3)
        .unwrap();
    files.allocate(ino, 0, 100, 4).unwrap();
    files
        .link((ROOT, path("d/f")), (ROOT, path("g")), 5)
        .unwrap();
    make(&mut files, "empty");
    files
}

fn seeds() -> Vec<Seed> {
    let (structure, blocks) = encode(&full());
    let with = |structure: &[u8], blocks: &[u8], steps: &[(u8, &[u8])]| {
        let front = [(0, structure), (0, blocks)];
        Steps::write(&[&front, steps].concat())
    };
    let bare = encode(&FileSystem::new(QUOTA)).0;
    let operations: [(u8, &[u8]); 12] = [
        (0, b"dir"),
        (6, b"dir/new"),
        (9 + 16, b"\x10\0\0\0\0\0\0\0bytes"),
        (13 + 16, b"\0\x20\0\0\0\0\xff\x0f"),
        (3, b"d\0dir/d"),
        (3, b"dir\0dir/d/e"),
        (5, b"empty\0dir/other"),
        (2, b"dir/new"),
        (11 + 16, b"\x03\0\0\0\0\0\0\0"),
        (1, b"dir/../dir"),
        (15, b"\x04\0\0\0\0\0\0\0"),
        (8, b""),
    ];
    let mut two_names = full();
    let directory = two_names.find(ROOT, path("d/e")).unwrap();
    if let Kind::Directory(top) = &mut two_names.nodes.get_mut(&ROOT).unwrap().kind {
        top.insert("again", directory);
    }
    let mut knot = full();
    let (outer, inner) = (
        knot.find(ROOT, path("d")).unwrap(),
        knot.find(ROOT, path("d/e")).unwrap(),
    );
    for (ino, name, inside) in [(inner, Some("knot"), outer), (ROOT, None, outer)] {
        if let Kind::Directory(directory) = &mut knot.nodes.get_mut(&ino).unwrap().kind {
            match name {
                Some(name) => directory.insert(name, inside),
                None => drop(directory.remove("d")),
            }
        }
    }
    let mut dots = full();
    if let Kind::Directory(top) = &mut dots.nodes.get_mut(&ROOT).unwrap().kind {
        top.insert("..", directory);
    }
    let wrong = |files: &FileSystem| with(&encode(files).0, &blocks, &[]);
    let mut many = bare.clone();
    let count = 8..12;
    many[count].copy_from_slice(&u32::MAX.to_le_bytes());
    vec![
        Seed::good("empty", with(&bare, b"", &[])),
        Seed::good("full", with(&structure, &blocks, &[])),
        Seed::good("operations", with(&structure, &blocks, &operations)),
        Seed::bad("contents-cut-off", with(&structure, &blocks[1..], &[])),
        Seed::bad("a-directory-with-two-names", wrong(&two_names)),
        Seed::bad("a-knot-of-directories", wrong(&knot)),
        Seed::bad("a-name-of-two-dots", wrong(&dots)),
        Seed::bad("claims-4-billion-files", with(&many, b"", &[])),
    ]
}

#[test]
fn data() {
    DATA.replay();
}
