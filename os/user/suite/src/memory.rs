//! Pages, tables and address spaces.

use mielin_user::objects::{AddressSpace, Frame, PageTable, Untyped};
use mielin_user::{Error, FaultKind, ObjectKind, Rights};

use crate::Test;
use crate::prober::{Came, Prober, Try};
use crate::processor::{self, RETURN};
use crate::room::{Outcome, Place, Room, ensure, same};

pub(crate) const TESTS: &[Test] = &[
    ("memory::map_and_unmap", map_and_unmap),
    ("memory::what_pages_allow_here", |room| {
        what_pages_allow(room, Place::Here)
    }),
    ("memory::what_pages_allow_apart", |room| {
        what_pages_allow(room, Place::Apart)
    }),
    ("memory::writable_or_executable", writable_or_executable),
    (
        "memory::addresses_that_no_page_has",
        addresses_that_no_page_has,
    ),
    ("memory::shared_with_other_rights", shared_with_other_rights),
    ("memory::taken_back_from_another_space", taken_back),
    ("memory::large_pages", large_pages),
    ("memory::tables", tables),
    ("memory::tables_that_end", tables_that_end),
    ("memory::used_again_is_zero", used_again_is_zero),
    ("memory::the_kernel_is_not_there", the_kernel_is_not_there),
    ("memory::spaces_run_out", spaces_run_out),
    ("memory::a_space_ends_under_its_thread", space_ends),
    (
        "memory::identifiers_are_used_again",
        identifiers_are_used_again,
    ),
    ("memory::buffers_that_end", buffers_that_end),
];

const WRITES: Rights = Rights(Rights::READ.0 | Rights::WRITE.0);
const EXECUTES: Rights = Rights(Rights::READ.0 | Rights::EXECUTE.0);

fn map_and_unmap(room: &mut Room) -> Outcome {
    let prober = Prober::new(room, Place::Here)?;
    let space = room.supplies.space();
    let frame = room.supplies.frame()?;
    let at = room.supplies.addresses(8192);
    same!(frame.unmap(), Err(Error::NotBound));
    room.supplies.map(frame, space, at, WRITES)?;
    same!(
        frame.map(space, at + 4096, WRITES),
        Err(Error::AlreadyMapped)
    );
    for word in 0..512 {
        same!(processor::load(at + 8 * word), 0);
        processor::store(at + 8 * word, word * word);
    }
    frame.unmap()?;
    let came = prober.attempt(room, Try::Load, at)?;
    ensure!(came.is_page_fault(at, 0), "{came:?}");
    // It is the same page, wherever it is.
    frame.map(space, at + 4096, Rights::READ)?;
    for word in 0..512 {
        same!(processor::load(at + 4096 + 8 * word), word * word);
    }
    let other = room.supplies.frame()?;
    same!(
        other.map(space, at + 4096, WRITES),
        Err(Error::AlreadyMapped)
    );
    other.map(space, at, WRITES)?;
    same!(processor::load(at), 0);
    // Two capabilities for one page, each of which can be mapped.
    let copy = Frame(room.mint(frame.0, Rights::READ, 0)?);
    other.unmap()?;
    copy.map(space, at, Rights::READ)?;
    same!(processor::load(at + 80), 100);
    // Deleting a capability unmaps by that one only.
    room.supplies.node().delete(room.supplies.index(copy.0))?;
    let came = prober.attempt(room, Try::Load, at)?;
    ensure!(came.is_page_fault(at, 0), "{came:?}");
    same!(processor::load(at + 4096 + 80), 100);
    same!(frame.address()? % 4096, 0);
    Ok(())
}

fn what_pages_allow(room: &mut Room, place: Place) -> Outcome {
    let prober = Prober::new(room, place)?;
    let space = match prober.worker.program {
        Some(program) => program.space,
        None => room.supplies.space(),
    };
    let at = room.supplies.addresses(4096);
    for address in [at, at + 8, at + 4088] {
        for (what, access) in [(Try::Load, 0), (Try::Store, 1), (Try::Call, 2)] {
            let came = prober.attempt(room, what, address)?;
            ensure!(came.is_page_fault(address, access), "{what:?}: {came:?}");
        }
    }
    let (page, window) = room.page()?;
    let mut code = [0; 8];
    code[..RETURN.len()].copy_from_slice(RETURN);
    processor::store(window, u64::from_le_bytes(code));
    let copy = Frame(room.mint(page.0, Rights::ALL, 0)?);
    for (rights, may) in [
        (Rights::READ, [true, false, false]),
        (WRITES, [true, true, false]),
        (EXECUTES, [true, false, true]),
    ] {
        room.supplies.map(copy, space, at, rights)?;
        for (what, may) in [Try::Load, Try::Store, Try::Call].into_iter().zip(may) {
            let address = if what == Try::Store { at + 8 } else { at };
            let came = prober.attempt(room, what, address)?;
            match may {
                true => ensure!(
                    matches!(came, Came::Done(_)),
                    "{what:?} with {rights:?}: {came:?}"
                ),
                false => {
                    let faulted = came.is_page_fault(address, what as u64);
                    ensure!(faulted, "{what:?} with {rights:?}: {came:?}");
                }
            }
        }
        copy.unmap()?;
    }
    same!(processor::load(window + 8), 0x1234);
    Ok(())
}

fn writable_or_executable(room: &mut Room) -> Outcome {
    let frame = room.supplies.frame()?;
    let space = room.supplies.space();
    let at = room.supplies.addresses(4096);
    let read_only = Frame(room.mint(frame.0, Rights::READ, 0)?);
    room.supplies.map(read_only, space, at, Rights::READ)?;
    read_only.unmap()?;
    let possible = [Rights::READ, WRITES, EXECUTES];
    for rights in (0..16).map(Rights) {
        let ignored = Rights(rights.0 & !Rights::GRANT.0);
        let got = frame.map(space, at, rights);
        match possible.contains(&ignored) {
            true => {
                same!(got, Ok(()), "{rights:?}");
                frame.unmap()?;
            }
            false => same!(got, Err(Error::InvalidArgument), "{rights:?}"),
        }
    }
    Ok(())
}

fn addresses_that_no_page_has(room: &mut Room) -> Outcome {
    let frame = room.supplies.frame()?;
    let space = room.supplies.space();
    let table = PageTable(room.supplies.object(ObjectKind::PageTable, 0)?);
    let wild = [
        0x1,
        0x1008,
        0xfff,
        1 << 47,
        (1 << 63) - 4096,
        1 << 63,
        0xffff_8000_0000_0000,
        0xffff_ffc0_0000_0000,
        0xffff_ffff_8020_0000,
        u64::MAX - 4095,
        u64::MAX,
    ];
    for address in wild {
        same!(
            frame.map(space, address, Rights::READ),
            Err(Error::BadAddress),
            "{address:#x}"
        );
        same!(
            table.map(space, address),
            Err(Error::BadAddress),
            "{address:#x}"
        );
    }
    same!(frame.unmap(), Err(Error::NotBound));
    same!(table.unmap(), Err(Error::NotBound));
    Ok(())
}

fn shared_with_other_rights(room: &mut Room) -> Outcome {
    let (reader, writer) = (
        Prober::new(room, Place::Apart)?,
        Prober::new(room, Place::Apart)?,
    );
    let (page, window) = room.page()?;
    let at = 0x7000_0000;
    for (prober, rights) in [(&reader, Rights::READ), (&writer, WRITES)] {
        let copy = Frame(room.mint(page.0, rights, 0)?);
        let Some(program) = prober.worker.program else {
            continue;
        };
        room.supplies.map(copy, program.space, at, rights)?;
    }
    for value in 1..20 {
        processor::store(window, value);
        same!(reader.attempt(room, Try::Load, at)?, Came::Done(value));
        same!(writer.attempt(room, Try::Load, at)?, Came::Done(value));
        same!(writer.attempt(room, Try::Store, at)?, Came::Done(0));
        same!(reader.attempt(room, Try::Load, at)?, Came::Done(0x1234));
        same!(processor::load(window), 0x1234);
        let came = reader.attempt(room, Try::Store, at)?;
        ensure!(came.is_page_fault(at, 1), "{came:?}");
    }
    Ok(())
}

fn taken_back(room: &mut Room) -> Outcome {
    let prober = Prober::new(room, Place::Apart)?;
    let Some(program) = prober.worker.program else {
        return Ok(());
    };
    let (page, window) = room.page()?;
    processor::store(window, 5);
    let at = 0x7000_0000;
    let copy = Frame(room.mint(page.0, Rights::ALL, 0)?);
    room.supplies.map(copy, program.space, at, WRITES)?;
    same!(prober.attempt(room, Try::Load, at)?, Came::Done(5));
    room.supplies.node().revoke(room.supplies.index(page.0))?;
    for what in [Try::Load, Try::Store] {
        let came = prober.attempt(room, what, at)?;
        ensure!(came.is_page_fault(at, what as u64), "{came:?}");
    }
    same!(processor::load(window), 5);
    Ok(())
}

fn large_pages(room: &mut Room) -> Outcome {
    const LARGE: u64 = 1 << 21;
    let prober = Prober::new(room, Place::Here)?;
    let large = Frame(room.supplies.object(ObjectKind::Frame, 21)?);
    let space = room.supplies.space();
    let at = room.supplies.addresses(4 * LARGE);
    for bad in [at + 4096, at + LARGE / 2, 1 << 63] {
        same!(large.map(space, bad, WRITES), Err(Error::BadAddress));
    }
    room.supplies.map(large, space, at, WRITES)?;
    for offset in [0, 8, 4096, LARGE / 2, LARGE - 8] {
        same!(processor::load(at + offset), 0);
        processor::store(at + offset, offset + 1);
    }
    for offset in [0, 8, 4096, LARGE / 2, LARGE - 8] {
        same!(processor::load(at + offset), offset + 1);
    }
    let came = prober.attempt(room, Try::Load, at + LARGE)?;
    ensure!(came.is_page_fault(at + LARGE, 0), "{came:?}");
    // Neither a page nor a table comes into it.
    let small = room.supplies.frame()?;
    let mapped = small.map(space, at + 4096, WRITES);
    ensure!(mapped.is_err(), "a page within a large one");
    let table = PageTable(room.supplies.object(ObjectKind::PageTable, 0)?);
    same!(table.map(space, at), Err(Error::AlreadyMapped));
    // Where a table is, no large page comes.
    room.supplies.map(small, space, at + LARGE, WRITES)?;
    processor::store(at + LARGE, 9);
    large.unmap()?;
    same!(
        large.map(space, at + LARGE, WRITES),
        Err(Error::AlreadyMapped)
    );
    same!(processor::load(at + LARGE), 9);
    for offset in [0, LARGE - 8] {
        let came = prober.attempt(room, Try::Load, at + offset)?;
        ensure!(came.is_page_fault(at + offset, 0), "{came:?}");
    }
    large.map(space, at, Rights::READ)?;
    same!(processor::load(at + LARGE - 8), LARGE - 7);
    let came = prober.attempt(room, Try::Store, at)?;
    ensure!(came.is_page_fault(at, 1), "{came:?}");
    Ok(())
}

/// A space without tables, and then with all that are needed for an address.
fn tables(room: &mut Room) -> Outcome {
    let space = AddressSpace(room.supplies.object(ObjectKind::AddressSpace, 0)?);
    let frame = room.supplies.frame()?;
    let at = 0x1234_5000;
    let mut count = 0;
    let mut last = None;
    while frame.map(space, at, WRITES) == Err(Error::NoTable) {
        ensure!(count < 5, "tables are missing without end");
        let table = PageTable(room.supplies.object(ObjectKind::PageTable, 0)?);
        table.map(space, at)?;
        same!(table.map(space, at), Err(Error::AlreadyMapped));
        count += 1;
        last = Some(table);
    }
    ensure!(count >= 3, "{count} tables only");
    same!(frame.map(space, at, WRITES), Err(Error::AlreadyMapped));
    let more = PageTable(room.supplies.object(ObjectKind::PageTable, 0)?);
    same!(more.map(space, at), Err(Error::AlreadyMapped));
    same!(more.unmap(), Err(Error::NotBound));
    let Some(last) = last else { return Ok(()) };
    // Without its table the page is nowhere, though its capability does not know.
    last.unmap()?;
    let other = room.supplies.frame()?;
    same!(other.map(space, at, WRITES), Err(Error::NoTable));
    frame.unmap()?;
    // The table is empty: it can be used elsewhere.
    last.map(space, at)?;
    other.map(space, at, WRITES)?;
    frame.map(space, at + 4096, WRITES)?;
    // A stale capability does not unmap what is somebody else's.
    last.unmap()?;
    more.map(space, at)?;
    let third = room.supplies.frame()?;
    third.map(space, at, WRITES)?;
    other.unmap()?;
    let fourth = room.supplies.frame()?;
    same!(fourth.map(space, at, WRITES), Err(Error::AlreadyMapped));
    Ok(())
}

fn tables_that_end(room: &mut Room) -> Outcome {
    let prober = Prober::new(room, Place::Here)?;
    let space = room.supplies.space();
    let frame = room.supplies.frame()?;
    let at = room.supplies.addresses(1 << 21);
    let table = PageTable(room.supplies.object(ObjectKind::PageTable, 0)?);
    match table.map(space, at) {
        Ok(()) => {}
        // The tables above may be missing, too.
        Err(error) => return Err(error.into()),
    }
    room.supplies.map(frame, space, at, WRITES)?;
    processor::store(at, 3);
    room.supplies.node().delete(room.supplies.index(table.0))?;
    let came = prober.attempt(room, Try::Load, at)?;
    ensure!(came.is_page_fault(at, 0), "{came:?}");
    // The root goes: then nothing is there, and the thread cannot even begin.
    let prober = Prober::new(room, Place::Apart)?;
    let Some(program) = prober.worker.program else {
        return Ok(());
    };
    same!(
        prober
            .attempt(room, Try::Breakpoint, 0)?
            .is_fault(FaultKind::Breakpoint),
        true
    );
    // The second object of a loaded program is its root.
    let root = room.supplies.index(program.space.0) + 1;
    let root = PageTable(room.supplies.cap(root));
    root.unmap()?;
    let came = prober.attempt(room, Try::Load, at)?;
    ensure!(matches!(came, Came::Fault([1, _, _, 2])), "{came:?}");
    root.map(program.space, 0)?;
    let came = prober.attempt(room, Try::Load, at)?;
    ensure!(matches!(came, Came::Fault([1, _, _, 2])), "{came:?}");
    Ok(())
}

fn used_again_is_zero(room: &mut Room) -> Outcome {
    let untyped = Untyped(room.supplies.object(ObjectKind::Untyped, 16)?);
    let first = room.supplies.slots(16)?;
    let at = room.supplies.addresses(1 << 16);
    let (node, space) = (room.supplies.node(), room.supplies.space());
    let own = room.supplies.index(untyped.0);
    for round in 0..3 {
        untyped.retype(ObjectKind::Frame, 12, 16, node, first)?;
        for page in 0..16 {
            let frame = Frame(room.supplies.cap(first + page));
            let address = at + page * 4096;
            room.supplies.map(frame, space, address, WRITES)?;
            for offset in (0..4096).step_by(8) {
                same!(processor::load(address + offset), 0, "round {round}");
                processor::store(address + offset, u64::MAX);
            }
        }
        node.revoke(own)?;
    }
    // What was a table, a node, a queue: the same.
    untyped.retype(ObjectKind::Node, 7, 16, node, first)?;
    node.revoke(own)?;
    untyped.retype(ObjectKind::Frame, 12, 1, node, first)?;
    room.supplies
        .map(Frame(room.supplies.cap(first)), space, at, Rights::READ)?;
    for offset in (0..4096).step_by(8) {
        same!(processor::load(at + offset), 0);
    }
    Ok(())
}

/// Addresses of kernels, of all three architectures; and some that no processor has.
fn the_kernel_is_not_there(room: &mut Room) -> Outcome {
    for place in [Place::Here, Place::Apart] {
        let prober = Prober::new(room, place)?;
        for address in [
            0,
            8,
            0x8000_0000,
            0x8020_0000,
            0xffff_ffc0_0000_0000,
            0xffff_ffc0_8000_0000,
            0xffff_ffff_8020_0000,
            0xffff_ffff_8000_0000,
            0xffff_8000_0000_0000,
            0xffff_0000_4000_0000,
            0xffff_ff80_0000_0000,
            1 << 47,
            1 << 62,
            u64::MAX - 7,
        ] {
            for what in [Try::Load, Try::Store, Try::Call] {
                let came = prober.attempt(room, what, address)?;
                let refused =
                    came.is_fault(FaultKind::Page) || came.is_fault(FaultKind::Instruction);
                ensure!(refused, "{what:?} of {address:#x}: {came:?}");
            }
        }
    }
    Ok(())
}

fn spaces_run_out(room: &mut Room) -> Outcome {
    let untyped = Untyped(room.supplies.object(ObjectKind::Untyped, 18)?);
    let own = room.supplies.index(untyped.0);
    let spaces = room.supplies.new_node(12)?;
    let mut counts = [0; 2];
    for count in &mut counts {
        let made = loop {
            let made = untyped.retype(ObjectKind::AddressSpace, 0, 1, spaces, *count + 1);
            if made.is_err() {
                break made;
            }
            *count += 1;
        };
        same!(made, Err(Error::NoIdentifier));
        // All of a call, or none.
        room.supplies.node().revoke(own)?;
        for first in 0..*count / 256 {
            untyped.retype(ObjectKind::AddressSpace, 0, 256, spaces, first * 256 + 1)?;
        }
        let made = untyped.retype(
            ObjectKind::AddressSpace,
            0,
            256,
            spaces,
            *count / 256 * 256 + 1,
        );
        ensure!(made.is_err(), "256 at once");
        room.supplies.node().revoke(own)?;
    }
    same!(counts[0], counts[1], "identifiers are lost");
    ensure!(counts[0] >= 200, "{counts:?} spaces only");
    Ok(())
}

fn space_ends(room: &mut Room) -> Outcome {
    let prober = Prober::new(room, Place::Apart)?;
    let Some(program) = prober.worker.program else {
        return Ok(());
    };
    same!(
        prober
            .attempt(room, Try::Load, 0x40_0000)?
            .is_fault(FaultKind::Page),
        false
    );
    let space = room.supplies.index(program.space.0);
    let node = room.supplies.node();
    // The thread keeps its space when nobody else has it,
    node.delete(space)?;
    same!(
        prober
            .attempt(room, Try::Load, 0x40_0000)?
            .is_fault(FaultKind::Page),
        false
    );
    // and has none when it was taken from it.
    let prober = Prober::new(room, Place::Apart)?;
    let Some(program) = prober.worker.program else {
        return Ok(());
    };
    node.revoke(room.supplies.index(program.space.0))?;
    let came = prober.attempt(room, Try::Load, 0x40_0000)?;
    ensure!(matches!(came, Came::Fault([1, _, _, 2])), "{came:?}");
    // It can be given one again.
    prober
        .worker
        .thread
        .equip(mielin_user::ThreadSlot::AddressSpace, program.space.0, 0)?;
    same!(
        prober
            .attempt(room, Try::Load, 0x40_0000)?
            .is_fault(FaultKind::Page),
        false
    );
    Ok(())
}

/// A space that has the identifier of one before it sees nothing of it: as many come and go as there are identifiers.
fn identifiers_are_used_again(room: &mut Room) -> Outcome {
    let at = 0x7000_0000;
    let (page, window) = room.page()?;
    processor::store(window, 50);
    let memory = Untyped(room.supplies.object(ObjectKind::Untyped, 20)?);
    let first = room.supplies.slots(2)?;
    let (node, own) = (room.supplies.node(), room.supplies.index(memory.0));
    let prober = Prober::new(room, Place::Apart)?;
    let Some(program) = prober.worker.program else {
        return Ok(());
    };
    let copy = Frame(room.mint(page.0, Rights::READ, 0)?);
    room.supplies.map(copy, program.space, at, Rights::READ)?;
    same!(prober.attempt(room, Try::Load, at)?, Came::Done(50));
    room.supplies
        .node()
        .delete(room.supplies.index(prober.worker.thread.0))?;
    room.supplies
        .node()
        .delete(room.supplies.index(program.space.0))?;
    for _ in 0..4100 {
        memory.retype(ObjectKind::AddressSpace, 0, 1, node, first)?;
        node.revoke(own)?;
    }
    let prober = Prober::new(room, Place::Apart)?;
    let came = prober.attempt(room, Try::Load, at)?;
    ensure!(came.is_page_fault(at, 0), "{came:?}");
    Ok(())
}

fn buffers_that_end(room: &mut Room) -> Outcome {
    let thread = room.supplies.thread()?;
    let (frame, at) = room.page()?;
    thread.equip(mielin_user::ThreadSlot::Buffer, frame.0, 1024)?;
    let slot = room.supplies.index(frame.0);
    room.supplies.node().revoke(slot)?;
    // The thread has none now, and the page is where it was.
    processor::store(at, 1);
    thread.equip(mielin_user::ThreadSlot::Buffer, frame.0, 3072)?;
    room.supplies.node().delete(slot)?;
    room.supplies.node().delete(room.supplies.index(thread.0))?;
    Ok(())
}
