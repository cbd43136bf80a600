use std::vec::Vec;

use super::*;

const CACHED: MemoryAttribute = MemoryAttribute::WRITE_BACK;

fn descriptor(ty: MemoryType, begin: u64, pages: u64, att: MemoryAttribute) -> MemoryDescriptor {
    MemoryDescriptor {
        ty,
        phys_start: begin,
        virt_start: 0,
        page_count: pages,
        att,
        ..MemoryDescriptor::default()
    }
}

fn of(descriptors: &[MemoryDescriptor]) -> Vec<(u64, u64, StretchKind)> {
    let stretches = stretches(descriptors.iter());
    stretches
        .map(|stretch| (stretch.begin, stretch.end, stretch.kind))
        .collect()
}

#[test]
fn memory_is_what_nobody_keeps() {
    let check = |ty, att, kind| {
        let one = of(&[descriptor(ty, 0x1000, 1, att)]);
        assert_eq!(one, [(0x1000, 0x2000, kind)], "{ty:?}");
    };
    for ty in [
        MemoryType::CONVENTIONAL,
        MemoryType::LOADER_CODE,
        MemoryType::BOOT_SERVICES_CODE,
        MemoryType::BOOT_SERVICES_DATA,
    ] {
        check(
            ty,
            CACHED | MemoryAttribute::UNCACHEABLE,
            StretchKind::Memory,
        );
        check(ty, MemoryAttribute::UNCACHEABLE, StretchKind::Reserved);
        let special = CACHED | MemoryAttribute::SPECIAL_PURPOSE;
        check(ty, special, StretchKind::Reserved);
    }
    for ty in [
        MemoryType::RESERVED,
        MemoryType::LOADER_DATA,
        MemoryType::RUNTIME_SERVICES_CODE,
        MemoryType::RUNTIME_SERVICES_DATA,
        MemoryType::MMIO,
        MemoryType::MMIO_PORT_SPACE,
        MemoryType::PAL_CODE,
        MemoryType::PERSISTENT_MEMORY,
        MemoryType::UNACCEPTED,
        MemoryType(0x7000_0000),
        MemoryType(0x8000_0000),
    ] {
        check(ty, CACHED, StretchKind::Reserved);
    }
    check(MemoryType::ACPI_RECLAIM, CACHED, StretchKind::Tables);
    check(MemoryType::ACPI_NON_VOLATILE, CACHED, StretchKind::Storage);
    check(MemoryType::UNUSABLE, CACHED, StretchKind::Unusable);
}

#[test]
fn neighbours_of_one_kind_are_one() {
    let all = [
        descriptor(MemoryType::BOOT_SERVICES_CODE, 0, 1, CACHED),
        descriptor(MemoryType::CONVENTIONAL, 0x1000, 3, CACHED),
        descriptor(MemoryType::CONVENTIONAL, 0x4000, 0, CACHED),
        descriptor(MemoryType::LOADER_DATA, 0x4000, 1, CACHED),
        descriptor(MemoryType::RUNTIME_SERVICES_DATA, 0x5000, 1, CACHED),
        descriptor(MemoryType::CONVENTIONAL, 0x8000, 1, CACHED),
        descriptor(MemoryType::LOADER_CODE, 0x9000, 1, CACHED),
        descriptor(MemoryType::CONVENTIONAL, 0xb000, 1, CACHED),
        descriptor(MemoryType::MMIO, u64::MAX - 0xfff, u64::MAX, CACHED),
    ];
    let expected = [
        (0, 0x4000, StretchKind::Memory),
        (0x4000, 0x6000, StretchKind::Reserved),
        (0x8000, 0xa000, StretchKind::Memory),
        (0xb000, 0xc000, StretchKind::Memory),
        (u64::MAX - 0xfff, u64::MAX, StretchKind::Reserved),
    ];
    assert_eq!(of(&all), expected);
    assert_eq!(of(&[]), []);
}

#[test]
fn the_page_is_what_the_protocol_says() {
    let mut page = [0xff; PAGE_BYTES];
    let stretches = [
        Stretch {
            begin: 0x10_0000,
            end: 0x30_0000,
            kind: StretchKind::Memory,
        },
        Stretch {
            begin: 0xfec0_0000,
            end: 0x1_0000_0000,
            kind: StretchKind::Reserved,
        },
    ];
    write(&mut page, 0xabc0_0000, 0x7777_0014, stretches.into_iter());
    // start_info.h: magic, version, flags, nr_modules; modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr; memmap_entries.
    let mut expected = Vec::new();
    for word in [0x336e_c578_u32, 1, 0, 0] {
        expected.extend(word.to_le_bytes());
    }
    for long in [0, 0, 0x7777_0014, 0xabc0_0040_u64, 2, 0] {
        expected.extend(long.to_le_bytes());
    }
    for long in [0x10_0000, 0x20_0000, 1, 0xfec0_0000, 0x140_0000_u64, 2] {
        expected.extend(long.to_le_bytes());
    }
    expected.resize(PAGE_BYTES, 0);
    assert_eq!(page[..], expected[..]);
}

#[test]
fn stretches_without_room_are_left_out() {
    let many = (0..1000).map(|at| Stretch {
        begin: at * 0x2000,
        end: at * 0x2000 + 0x1000,
        kind: StretchKind::Memory,
    });
    let mut page = [0; PAGE_BYTES];
    write(&mut page, 0, 0, many);
    assert_eq!(page[MAP_LEN..MAP_LEN + 4], 128_u32.to_le_bytes());
    let last = FIRST + 127 * ENTRY_BYTES;
    assert_eq!(page[last..last + 8], (127 * 0x2000_u64).to_le_bytes());
    assert!(page[last + ENTRY_BYTES..].iter().all(|byte| *byte == 0));
}
