//! Against a real directory, against a list of bytes, and against hostile bytes.
#![allow(clippy::unwrap_used)]

mod differential;
mod hostile;

use super::*;
use crate::StateError;
use crate::state::bytes::{Reader, Writer};

fn path(text: &str) -> Path<'_> {
    Path::new(text.as_bytes()).unwrap()
}

fn files(bytes: u64) -> FileSystem {
    FileSystem::new(Quota::of_bytes(bytes))
}

const NEW: Opening = Opening {
    create: true,
    exclusive: true,
    truncate: false,
    directory: false,
    write: true,
};

fn make(files: &mut FileSystem, name: &str) -> Ino {
    files.open(ROOT, path(name), NEW, 1).unwrap()
}

fn encode(files: &FileSystem) -> (Vec<u8>, Vec<u8>) {
    let mut stream = BlockStream::default();
    stream.add(files);
    let mut out = Writer::default();
    files.encode(&stream, &mut out);
    (out.bytes, stream.take(usize::MAX))
}

fn decode(structure: &[u8], blocks: &[u8], quota: Quota) -> Result<FileSystem, StateError> {
    let mut reader = Reader::new("files", structure);
    let files = FileSystem::decode(&mut reader, blocks, quota)?;
    reader.end()?;
    Ok(files)
}

/// What must hold whatever was done.
fn check(files: &FileSystem) {
    let blocks: u64 = files
        .nodes
        .values()
        .map(|node| match &node.kind {
            Kind::File(content) => {
                let behind = content.iter().last().map_or(0, |(index, _)| index + 1);
                assert!(behind <= content.len().div_ceil(BLOCK as u64));
                let tail = content.len() % BLOCK as u64;
                if let Some((index, block)) = content.iter().last()
                    && index == content.len() / BLOCK as u64
                {
                    assert!(block[tail as usize..].iter().all(|byte| *byte == 0));
                }
                content.blocks()
            }
            Kind::Directory(_) => 0,
        })
        .sum();
    assert_eq!(blocks, files.blocks);
    assert!(files.blocks <= files.quota.blocks);
    assert!(files.nodes.len() <= files.quota.nodes && files.names <= files.quota.nodes);
    assert!(files.is_settled(), "everything has a name or is open");
    // What is read again has counted its names itself.
    let (structure, contents) = encode(files);
    let mut again = decode(&structure, &contents, files.quota).unwrap();
    for (ino, node) in &files.nodes {
        (0..node.opens).for_each(|_| again.hold(*ino));
        let copy = &again.nodes[ino];
        assert_eq!(node.names, copy.names, "{ino:?}");
        if let (Kind::Directory(one), Kind::Directory(other)) = (&node.kind, &copy.kind) {
            assert_eq!(one.parent, other.parent, "{ino:?}");
        }
    }
    assert_eq!((files.blocks, files.names), (again.blocks, again.names));
    assert!(again.is_settled());
}

#[test]
fn paths_do_not_escape() {
    let mut files = files(1 << 20);
    files.make_directory(ROOT, path("d"), 0).unwrap();
    files.make_directory(ROOT, path("d/e"), 0).unwrap();
    let inner = files.find(ROOT, path("d/e")).unwrap();
    let outside = [
        "..",
        "../",
        "../d",
        "./..",
        "d/../..",
        "d/e/../../..",
        "d//..//..",
    ];
    for text in outside {
        assert_eq!(
            files.find(ROOT, path(text)),
            Err(FsError::Outside),
            "{text}"
        );
    }
    for text in ["..", "../e", "./../..", "../../d/e"] {
        assert_eq!(
            files.find(inner, path(text)),
            Err(FsError::Outside),
            "{text}"
        );
    }
    for text in ["d/..", "d/e/../..", "d/../d/./..", "./."] {
        assert_eq!(files.find(ROOT, path(text)), Ok(ROOT), "{text}");
    }
    // Nothing is skipped: what `..` follows must be a directory that is there.
    assert_eq!(files.find(ROOT, path("x/../d")), Err(FsError::NotFound));
    make(&mut files, "f");
    assert_eq!(files.find(ROOT, path("f/../d")), Err(FsError::NotDirectory));
    assert_eq!(files.find(ROOT, path("f/")), Err(FsError::NotDirectory));
    let long = "n".repeat(256);
    let deep = "d/".repeat(2049);
    for (bytes, error) in [
        (&b""[..], FsError::NotFound),
        (b"/", FsError::Outside),
        (b"/data/d", FsError::Outside),
        (b"d\0e", FsError::Invalid),
        (b"\xff", FsError::NotUtf8),
        (b"\xc0\xae\xc0\xae/d", FsError::NotUtf8),
        (long.as_bytes(), FsError::NameTooLong),
        (deep.as_bytes(), FsError::NameTooLong),
    ] {
        assert_eq!(Path::new(bytes).unwrap_err(), error, "{bytes:?}");
    }
    // Odd names are names.
    for text in ["...", "..d", " ", "\\..\\", "a\nb", "C:", "~", "é\u{202e}"] {
        let ino = make(&mut files, text);
        assert_eq!(files.find(ROOT, path(text)), Ok(ino));
        assert!(files.list(ROOT, 0).unwrap().any(|entry| entry.name == text));
    }
}

#[test]
fn what_is_open_outlives_its_name() {
    let mut files = files(1 << 20);
    let ino = make(&mut files, "f");
    files.write(ino, 0, b"kept", 2).unwrap();
    files.remove_file(ROOT, path("f"), 3).unwrap();
    check(&files);
    assert_eq!(files.stat(ino).unwrap().names, 0);
    let mut read = [0; 4];
    assert_eq!(files.read(ino, 0, &mut read), Ok(4));
    assert_eq!((&read, files.blocks), (b"kept", 1));
    files.release(ino);
    assert_eq!((files.stat(ino), files.blocks), (Err(FsError::NotFound), 0));

    files.make_directory(ROOT, path("d"), 0).unwrap();
    let how = Opening {
        directory: true,
        ..Opening::default()
    };
    let removed = files.open(ROOT, path("d"), how, 0).unwrap();
    files.remove_directory(ROOT, path("d"), 0).unwrap();
    check(&files);
    let there = files.open(removed, path("f"), NEW, 0);
    assert_eq!(there, Err(FsError::NotFound));
    assert_eq!(files.list(removed, 0).unwrap().count(), 2);
    files.release(removed);
    check(&files);
}

#[test]
fn the_quota_holds() {
    let mut files = files(3 * BLOCK as u64);
    let ino = make(&mut files, "f");
    let bytes = vec![7; 5 * BLOCK];
    assert_eq!(files.write(ino, 10, &bytes, 0), Ok(3 * BLOCK - 10));
    assert_eq!(
        files.write(ino, 3 * BLOCK as u64, b"x", 0),
        Err(FsError::NoSpace)
    );
    assert_eq!(files.write(ino, 0, b"over what is there", 0), Ok(18));
    let other = make(&mut files, "g");
    assert_eq!(files.write(other, 0, b"x", 0), Err(FsError::NoSpace));
    assert_eq!(files.allocate(other, 0, 1, 0), Err(FsError::NoSpace));
    // A hole takes nothing, however long it is.
    files.set_len(other, i64::MAX as u64, 0).unwrap();
    check(&files);
    assert_eq!(files.set_len(other, 1 << 63, 0), Err(FsError::TooLarge));
    assert_eq!(
        files.write(other, i64::MAX as u64, b"x", 0),
        Err(FsError::TooLarge)
    );
    assert_eq!(
        files.allocate(other, u64::MAX, 2, 0),
        Err(FsError::TooLarge)
    );
    assert_eq!(files.allocate(other, 0, 0, 0), Err(FsError::Invalid));
    files.set_len(ino, BLOCK as u64 + 1, 0).unwrap();
    assert_eq!(
        files.allocate(other, 5, i64::MAX as u64 - 5, 0),
        Err(FsError::NoSpace)
    );
    assert_eq!(files.allocate(other, 5, BLOCK as u64 - 5, 0), Ok(()));
    check(&files);
    assert_eq!(files.write(other, 8, b"taken before", 0), Ok(12));
    check(&files);

    // The root, f and g are there.
    for index in 3..64 {
        make(&mut files, &index.to_string());
    }
    assert_eq!(files.open(ROOT, path("65"), NEW, 0), Err(FsError::NoSpace));
    assert_eq!(
        files.make_directory(ROOT, path("65"), 0),
        Err(FsError::NoSpace)
    );
    // A name more may be given, and that is the last.
    files
        .link((ROOT, path("f")), (ROOT, path("f2")), 0)
        .unwrap();
    let full = files.link((ROOT, path("f")), (ROOT, path("f3")), 0);
    assert_eq!(full, Err(FsError::NoSpace));
    files
        .rename((ROOT, path("f2")), (ROOT, path("f3")), 0)
        .unwrap();
    check(&files);
}

/// A program cannot use its numbers up; who wrote the snapshot may claim that it has.
#[test]
fn numbers_run_out_without_an_accident() {
    let mut files = files(1 << 20);
    files.next = u64::MAX - 1;
    let ino = make(&mut files, "last");
    assert_eq!(ino, Ino(u64::MAX - 1));
    let full = files.make_directory(ROOT, path("one more"), 0);
    assert_eq!(full, Err(FsError::NoSpace));
    check(&files);
    let Kind::Directory(top) = &mut files.nodes.get_mut(&ROOT).unwrap().kind else {
        panic!("the top is a directory")
    };
    top.next = u64::MAX;
    let link = files.link((ROOT, path("last")), (ROOT, path("again")), 0);
    let rename = files.rename((ROOT, path("last")), (ROOT, path("again")), 0);
    assert_eq!(
        (link, rename),
        (Err(FsError::NoSpace), Err(FsError::NoSpace))
    );
    assert_eq!(files.find(ROOT, path("last")), Ok(ino));
    check(&files);
}

#[test]
fn a_listing_goes_on_while_the_directory_changes() {
    let mut files = files(1 << 20);
    for name in ["a", "b", "c", "d"] {
        make(&mut files, name);
    }
    let first: Vec<_> = files.list(ROOT, 0).unwrap().take(3).collect();
    assert_eq!(
        first.iter().map(|entry| entry.name).collect::<Vec<_>>(),
        [".", "..", "a"]
    );
    let at = first[2].number;
    files.remove_file(ROOT, path("a"), 0).unwrap();
    files.remove_file(ROOT, path("c"), 0).unwrap();
    make(&mut files, "A");
    let (structure, blocks) = encode(&files);
    for files in [&files, &decode(&structure, &blocks, files.quota).unwrap()] {
        let rest: Vec<_> = files
            .list(ROOT, at)
            .unwrap()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(rest, ["b", "d", "A"]);
        assert_eq!(files.list(ROOT, u64::MAX).unwrap().count(), 0);
    }
}

#[test]
fn a_stream_has_each_block_once_until_it_is_written() {
    let mut files = files(1 << 20);
    let ino = make(&mut files, "f");
    let block = |byte: u8| vec![byte; BLOCK];
    files
        .write(ino, 0, &[block(1), block(2), block(3)].concat(), 0)
        .unwrap();
    let mut stream = BlockStream::default();
    stream.add(&files);
    stream.add(&files);
    let mut sent = stream.take(1);
    assert_eq!(sent, block(1));
    sent.extend(stream.take(usize::MAX));
    assert_eq!(stream.len(), 3 * BLOCK as u64);
    files.write(ino, BLOCK as u64, b"changed", 0).unwrap();
    // Another file takes what the first one gives up.
    files.set_len(ino, 2 * BLOCK as u64, 0).unwrap();
    let other = make(&mut files, "g");
    files.write(other, 0, b"new", 0).unwrap();
    stream.add(&files);
    let rest = stream.take(usize::MAX);
    assert_eq!(rest.len(), BLOCK + 3);
    sent.extend(rest);
    let mut out = Writer::default();
    files.encode(&stream, &mut out);
    let again = decode(&out.bytes, &sent, files.quota).unwrap();
    let mut read = vec![0; 2 * BLOCK];
    assert_eq!(again.read(ino, 0, &mut read), Ok(2 * BLOCK));
    assert_eq!(
        (&read[..BLOCK], &read[BLOCK..][..8]),
        (&block(1)[..], &b"changed\x02"[..])
    );
    assert_eq!(again.read(other, 0, &mut read), Ok(3));
}
