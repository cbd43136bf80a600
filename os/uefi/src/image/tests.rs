use std::vec::Vec;

use super::*;

const LOAD: u32 = 1;
const NOTE: u32 = 4;
const CODE: u32 = 5;
const DATA: u32 = 6;
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;

/// Type, flags, physical address, content, bytes in memory.
type Form<'a> = (u32, u32, u64, &'a [u8], u64);

/// A file with these segments, high in virtual memory, as the kernel is.
fn file(segments: &[Form<'_>]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(ARCHITECTURE.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    for long in [0, HEADER_BYTES as u64, 0] {
        bytes.extend(u64::to_le_bytes(long));
    }
    bytes.extend(0_u32.to_le_bytes());
    let size = PROGRAM_HEADER_BYTES as u16;
    for half in [HEADER_BYTES as u16, size, segments.len() as u16, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    let mut offset = (HEADER_BYTES + segments.len() * PROGRAM_HEADER_BYTES) as u64;
    for (kind, flags, physical, content, memory_bytes) in segments {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        let len = content.len() as u64;
        let address = 0xffff_ffff_8000_0000 | (physical & 0x3fff_ffff);
        for long in [offset, address, *physical, len, *memory_bytes, 1] {
            bytes.extend(u64::to_le_bytes(long));
        }
        offset += len;
    }
    segments.iter().for_each(|segment| bytes.extend(segment.3));
    bytes
}

/// The note of an entry.
fn note(entry: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [4, entry.len() as u32, ENTRY] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(OWNER);
    bytes.extend(entry);
    bytes
}

fn check(segments: &[Form<'_>], entry: u64, expected: Result<(u64, usize), ImageError>) {
    let note = note(&entry.to_le_bytes());
    let mut segments = segments.to_vec();
    segments.push((NOTE, 4, 0, &note, 0));
    let file = file(&segments);
    let image = Image::new(&file).map(|image| (image.begin(), image.pages()));
    assert_eq!(image, expected);
}

const TEXT: Form<'_> = (LOAD, CODE, 0x10_0000, b"code", 0x1004);

#[test]
fn images_are_whole_pages_around_their_segments() {
    check(&[TEXT], 0x10_0000, Ok((0x10_0000, 2)));
    check(&[TEXT], 0x10_1003, Ok((0x10_0000, 2)));
    let data = (LOAD, DATA, 0x20_0ffe, b"data".as_slice(), 4);
    check(&[data, TEXT], 0x10_0000, Ok((0x10_0000, 0x102)));
    let nothing = (LOAD, DATA, 0, b"".as_slice(), 0);
    check(&[nothing, TEXT], 0x10_0000, Ok((0x10_0000, 2)));
    let last = (LOAD, CODE, 0xffff_f000, b"".as_slice(), 0x1000);
    check(&[last], 0xffff_ffff, Ok((0xffff_f000, 1)));
}

#[test]
fn images_that_cannot_be_are_refused() {
    let at = |begin, bytes| (LOAD, CODE, begin, b"".as_slice(), bytes);
    check(&[], 0, Err(ImageError::Empty));
    check(&[at(0x10_0000, 0)], 0x10_0000, Err(ImageError::Empty));
    for (begin, bytes) in [(0xf_ffff, 2), (0xffff_ffff, 2), (1 << 40, 1), (u64::MAX, 2)] {
        check(&[at(begin, bytes)], begin, Err(ImageError::Outside(begin)));
    }
    let twice = Err(ImageError::Overlap(0x10_1003));
    check(&[TEXT, at(0x10_1003, 9)], 0x10_0000, twice);
    check(&[at(0x10_1003, 9), TEXT], 0x10_0000, twice);
    for entry in [0, 0xf_ffff, 0x10_1004, u64::MAX] {
        check(&[TEXT], entry, Err(ImageError::Entry(entry)));
    }
    let data = (LOAD, DATA, 0x20_0000, b"data".as_slice(), 4);
    check(&[TEXT, data], 0x20_0000, Err(ImageError::Entry(0x20_0000)));
}

#[test]
fn entries_have_four_bytes_or_eight() {
    let entry = |bytes: &[u8]| {
        let note = note(bytes);
        let file = file(&[TEXT, (NOTE, 4, 0, &note, 0)]);
        Image::new(&file).map(|image| image.entry())
    };
    assert_eq!(entry(&[4, 0, 0x10, 0]), Ok(0x10_0004));
    assert_eq!(entry(&[4, 0, 0x10, 0, 0, 0, 0, 0]), Ok(0x10_0004));
    assert_eq!(entry(&[4, 0, 0x10]), Err(ImageError::NoEntry));
    let without = Image::new(&file(&[TEXT])).map(|image| image.entry());
    assert_eq!(without, Err(ImageError::NoEntry));
    let foreign = Image::new(b"MZ and so on").map(|image| image.entry());
    let cut = ImageError::Executable(ExecutableError::CutOff);
    assert_eq!(foreign, Err(cut));
}

#[test]
fn content_is_written_where_it_belongs() {
    let note = note(&0x10_0000_u32.to_le_bytes());
    let data = (LOAD, DATA, 0x10_2004, b"data".as_slice(), 100);
    let file = file(&[TEXT, data, (NOTE, 4, 0, &note, 0)]);
    let image = Image::new(&file).expect("it is one");
    let mut memory = std::vec![0; image.pages() * 4096];
    image.write_into(&mut memory);
    let mut expected = std::vec![0; 3 * 4096];
    expected[..4].copy_from_slice(b"code");
    expected[0x2004..0x2008].copy_from_slice(b"data");
    assert_eq!(memory, expected);
}

/// Whatever is wrong with a header: no panic, and what is taken can be written.
#[test]
fn damaged_files_are_refused_or_can_be_written() {
    let note = note(&0x10_0000_u64.to_le_bytes());
    let data = (LOAD, DATA, 0x10_2000, b"data".as_slice(), 100);
    let good = file(&[TEXT, data, (NOTE, 4, 0, &note, 0)]);
    let (mut taken, mut refused) = (0, 0);
    for at in 0..good.len() {
        for damage in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= damage;
            // Megabytes are zeroed for what claims them; gigabytes would take long.
            match Image::new(&bytes) {
                Ok(image) if image.pages() <= 0x1_0000 => {
                    image.write_into(&mut std::vec![0; image.pages() * 4096]);
                    taken += 1;
                }
                Ok(_) => taken += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(Image::new(&good[..at]).is_err());
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
}
