extern crate std;
use std::vec;
use std::vec::Vec;

use mielin_fuzz::{Seed, Target};

use super::*;
use crate::{Polarity, Trigger};

/// Memory from [`BIOS`] on, into which firmware puts its tables.
#[derive(Clone, Default)]
struct Firmware {
    memory: Vec<u8>,
}

impl Firmware {
    /// Puts bytes at the next multiple of 16; gives their address.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.memory.len().next_multiple_of(16);
        self.memory.resize(at, 0);
        self.memory.extend(bytes);
        BIOS + at as u64
    }

    fn table(&mut self, signature: &[u8; 4], body: &[u8]) -> u64 {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(signature);
        bytes.extend(body);
        let len = bytes.len() as u32;
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        balance(&mut bytes, 9);
        self.put(&bytes)
    }
}

/// Makes bytes add up to zero by one of them.
fn balance(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    let sum = bytes
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    bytes[at] = sum.wrapping_neg();
}

fn root(revision: u8, rsdt: u64, xsdt: u64) -> Vec<u8> {
    let mut root = vec![0; ROOT_BYTES_2];
    root[..8].copy_from_slice(ROOT_SIGNATURE);
    root[15] = revision;
    root[16..20].copy_from_slice(&(rsdt as u32).to_le_bytes());
    root[20..24].copy_from_slice(&36_u32.to_le_bytes());
    root[24..32].copy_from_slice(&xsdt.to_le_bytes());
    balance(&mut root[..ROOT_BYTES_1], 8);
    balance(&mut root, 32);
    root
}

/// As QEMU's q35 has it: two processors, and one that may come; the timer at line 2, and lines of PCI that are levels.
fn madt() -> Vec<u8> {
    let mut body = vec![0x00, 0x00, 0xe0, 0xfe, 1, 0, 0, 0];
    body.extend([0, 8, 0, 0, 1, 0, 0, 0]);
    body.extend([0, 8, 1, 1, 1, 0, 0, 0]);
    body.extend([0, 8, 2, 2, 2, 0, 0, 0]);
    body.extend([9, 16, 0, 0, 0x34, 0x12, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
    body.extend([1, 12, 7, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    body.extend([1, 12, 8, 0, 0, 0x10, 0xc0, 0xfe, 24, 0, 0, 0]);
    body.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    body.extend([2, 10, 0, 5, 5, 0, 0, 0, 0b1101, 0]);
    body.extend([2, 10, 0, 9, 9, 0, 0, 0, 0b1111, 0]);
    // Another bus, a line that ISA has not got, and a reserved polarity.
    body.extend([2, 10, 1, 4, 9, 0, 0, 0, 0, 0]);
    body.extend([2, 10, 0, 16, 9, 0, 0, 0, 0, 0]);
    body.extend([2, 10, 0, 4, 9, 0, 0, 0, 0b10, 0]);
    // Of a kind that is not known, and an interrupt that is not masked.
    body.extend([0x7f, 3, 1]);
    body.extend([4, 6, 0xff, 0, 0, 1]);
    body
}

/// A machine whose MADT has this body, by way of an XSDT or an RSDT. The root pointer comes first.
fn machine(body: &[u8], revision: u8) -> Firmware {
    let mut firmware = Firmware::default();
    firmware.put(&[0; ROOT_BYTES_2]);
    let other = firmware.table(b"FACP", &[1, 2, 3]);
    let madt = firmware.table(b"APIC", body);
    let short: Vec<u8> = [other, madt]
        .iter()
        .flat_map(|at| (*at as u32).to_le_bytes())
        .collect();
    let long: Vec<u8> = [other, madt]
        .iter()
        .flat_map(|at| at.to_le_bytes())
        .collect();
    let (rsdt, xsdt) = match revision {
        0 => (firmware.table(b"RSDT", &short), u64::MAX),
        _ => (0, firmware.table(b"XSDT", &long)),
    };
    firmware.memory[..ROOT_BYTES_2].copy_from_slice(&root(revision, rsdt, xsdt));
    firmware
}

/// Reads memory that begins at [`BIOS`].
fn reader<'m>(memory: &'m [u8]) -> impl Fn(u64, usize) -> Option<&'m [u8]> {
    move |address, len| {
        let begin = usize::try_from(address.checked_sub(BIOS)?).ok()?;
        memory.get(begin..begin.checked_add(len)?)
    }
}

fn read_madt(memory: &[u8]) -> Result<Madt<'_>, AcpiError> {
    Acpi::at(BIOS, reader(memory))?.madt()
}

#[test]
fn a_pc_is_read() {
    for revision in [0, 2] {
        let firmware = machine(&madt(), revision);
        let madt = read_madt(&firmware.memory).expect("whole tables");
        assert_eq!(madt.local_apic(), 0xfee0_0000);
        assert!(madt.has_old_controllers());
        let processors: Vec<_> = madt.processors().map(|p| (p.apic_id, p.enabled)).collect();
        assert_eq!(
            processors,
            [(0, true), (1, true), (2, false), (0x1234, true)]
        );
        let controllers: Vec<_> = madt
            .io_apics()
            .map(|found| (found.id, found.address, found.first_line))
            .collect();
        assert_eq!(controllers, [(7, 0xfec0_0000, 0), (8, 0xfec0_1000, 24)]);
        assert_eq!(madt.overrides().count(), 3);
        let check = |isa, line, trigger, polarity| {
            let expected = Line {
                line,
                trigger,
                polarity,
            };
            assert_eq!(madt.isa_line(isa), expected, "{isa}");
        };
        check(0, 2, Trigger::Edge, Polarity::High);
        check(4, 4, Trigger::Edge, Polarity::High);
        check(5, 5, Trigger::Level, Polarity::High);
        check(9, 9, Trigger::Level, Polarity::Low);
    }
}

#[test]
fn a_longer_address_counts() {
    let mut body = madt();
    body.extend([5, 12, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    let firmware = machine(&body, 2);
    let madt = read_madt(&firmware.memory).expect("whole tables");
    assert_eq!(madt.local_apic(), 1 << 32);
}

#[test]
fn the_root_is_found_where_it_may_be() {
    let found = |memory: &[u8], low: &[u8]| {
        let bios = reader(memory);
        let read = |address: u64, len: usize| match address {
            EXTENDED_AREA_SEGMENT => Some(&[0x00, 0x90][..len]),
            0x9_0000..0xa_0000 => {
                let begin = (address - 0x9_0000) as usize;
                low.get(begin..begin.checked_add(len)?)
            }
            _ => bios(address, len),
        };
        Acpi::search(read)
            .and_then(|acpi| acpi.madt())
            .map(|madt| madt.local_apic())
    };
    let good = machine(&madt(), 2);
    assert_eq!(found(&good.memory, &[]), Ok(0xfee0_0000));
    // Not at the beginning, and behind one with a wrong checksum.
    let mut moved = good.clone();
    let pointer = moved.memory[..ROOT_BYTES_2].to_vec();
    moved.memory[9] ^= 1;
    assert_eq!(found(&moved.memory, &[]), Err(AcpiError::NoRoot));
    assert_eq!(found(&moved.memory, &pointer), Ok(0xfee0_0000));
    moved.put(&pointer);
    assert_eq!(found(&moved.memory, &[]), Ok(0xfee0_0000));
    assert_eq!(found(&[], &[]), Err(AcpiError::NoRoot));
}

#[test]
fn what_is_wrong_is_said() {
    let check = |memory: &[u8], expected| assert_eq!(read_madt(memory).err(), Some(expected));
    let good = machine(&madt(), 2).memory;
    let changed = |at: usize| {
        let mut memory = good.clone();
        memory[at] ^= 1;
        memory
    };
    let madt_at = good
        .windows(4)
        .position(|four| four == b"APIC")
        .expect("there");
    let xsdt_at = good
        .windows(4)
        .position(|four| four == b"XSDT")
        .expect("there");
    let len = ROOT_BYTES_1;
    check(&[], AcpiError::Unreadable { address: BIOS, len });
    check(&changed(0), AcpiError::Malformed(BIOS));
    check(&changed(16), AcpiError::Checksum(BIOS));
    check(&changed(24), AcpiError::Checksum(BIOS));
    check(&changed(madt_at), AcpiError::NoTable(*b"APIC"));
    check(
        &changed(madt_at + 50),
        AcpiError::Checksum(BIOS + madt_at as u64),
    );
    check(
        &changed(xsdt_at),
        AcpiError::Malformed(BIOS + xsdt_at as u64),
    );
    let address = BIOS + xsdt_at as u64;
    let len = HEADER_BYTES + 16;
    let cut = &good[..good.len() - 1];
    check(cut, AcpiError::Unreadable { address, len });
    let malformed = AcpiError::Malformed(BIOS + madt_at as u64);
    let broken: [&[u8]; 6] = [
        &[],
        &[0; 7],
        // Entries of no length, longer than the table, and shorter than their kind.
        &[0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0],
        &[0, 0, 0, 0, 0, 0, 0, 0, 1, 8, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 0, 5],
    ];
    for body in broken {
        check(&machine(body, 2).memory, malformed);
    }
    let empty = machine(&[0; 8], 0).memory;
    let madt = read_madt(&empty).expect("nobody there");
    assert_eq!((madt.processors().count(), madt.io_apics().count()), (0, 0));
}

#[test]
fn a_table_is_not_longer_than_it_may_be() {
    let mut firmware = machine(&[0x7f; 8], 2);
    let at = firmware
        .memory
        .windows(4)
        .position(|four| four == b"APIC")
        .expect("there");
    let len = TABLE_BYTES_MAX as u32 + 1;
    firmware.memory[at + 4..at + 8].copy_from_slice(&len.to_le_bytes());
    firmware.memory.resize(TABLE_BYTES_MAX * 2, 0);
    let expected = AcpiError::Malformed(BIOS + at as u64);
    assert_eq!(read_madt(&firmware.memory).err(), Some(expected));
}

/// Makes the checksums of all that looks like a table right, so that what is behind them is reached.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in (0..bytes.len()).step_by(16) {
        let table = &mut bytes[at..];
        let is_table = [*b"XSDT", *b"RSDT", *b"APIC"]
            .iter()
            .any(|name| table.starts_with(name));
        let len = number(table, 4, 4).map_or(0, |len| len as usize);
        if is_table && let Some(whole) = table.get_mut(..len).filter(|whole| whole.len() > 9) {
            balance(whole, 9);
        }
    }
    if let Some(old) = bytes.get_mut(..ROOT_BYTES_1) {
        balance(old, 8);
    }
    let len = number(&bytes, 20, 4).map_or(0, |len| len as usize);
    if let Some(root) = bytes.get_mut(..len).filter(|root| root.len() > 32) {
        balance(root, 32);
    }
    bytes
}

/// Whatever the bytes are: no panic, and every list ends.
fn look(bytes: &[u8]) -> bool {
    let Ok(madt) = read_madt(bytes) else {
        return false;
    };
    let most = bytes.len() / 2;
    assert!(madt.processors().count() + madt.io_apics().count() <= most);
    assert!(madt.overrides().all(|other| other.isa < 16));
    // What is not of that bus stays where it is.
    assert!((0..=u8::MAX).all(|isa| madt.isa_line(isa).line == isa.into() || isa < 16));
    true
}

const ACPI: Target = Target {
    name: "acpi",
    mutations: 20_000,
    fixed_bytes: 0,
    bytes_per_byte: 1,
    run: |bytes| {
        look(&repaired(bytes));
        look(bytes)
    },
    seeds: || {
        let good = machine(&madt(), 2).memory;
        let mut unbalanced = good.clone();
        unbalanced[40] ^= 1;
        unbalanced[ROOT_BYTES_1] ^= 1;
        // The table of tables leads to itself only.
        let mut circle = Firmware::default();
        circle.put(&root(2, 0, BIOS + 48));
        circle.table(b"XSDT", &(BIOS + 48).to_le_bytes());
        let endless = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        vec![
            Seed::good("xsdt", good.clone()),
            Seed::good("rsdt", machine(&madt(), 0).memory),
            Seed::good("nobody", machine(&[0; 8], 2).memory),
            Seed::bad("unbalanced", unbalanced),
            Seed::bad("cut", good[..good.len() - 1].to_vec()),
            Seed::bad("circle", circle.memory),
            Seed::bad("endless", machine(&endless, 2).memory),
        ]
    },
};

#[test]
fn hostile_tables() {
    ACPI.replay();
}
