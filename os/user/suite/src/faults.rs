//! Faults, and what whoever is told of them can do.

use mielin_kernel::registers;
use mielin_user::objects::{Endpoint, Message};
use mielin_user::{Cap, Error, FaultKind, Rights, ThreadSlot};

use crate::Test;
use crate::prober::{Came, Prober, Try};
use crate::processor::{self, INSTRUCTION_BYTES};
use crate::room::{BELOW, Outcome, Place, Room, count, ensure, rest, same, share, shared};

pub(crate) const TESTS: &[Test] = &[
    ("faults::pages_on_demand_here", |room| {
        pages_on_demand(room, Place::Here)
    }),
    ("faults::pages_on_demand_apart", |room| {
        pages_on_demand(room, Place::Apart)
    }),
    ("faults::instructions_to_skip", passed_over),
    ("faults::registers_of_a_fault", registers_of_a_fault),
    ("faults::nobody_is_told", nobody_is_told),
    ("faults::nobody_can_answer", nobody_can_answer),
    ("faults::the_endpoint_ends", the_endpoint_ends),
    ("faults::the_reply_ends", the_reply_ends),
    (
        "faults::faults_pay_for_their_handlers",
        handlers_are_lent_time,
    ),
];

const WRITES: Rights = Rights(Rights::READ.0 | Rights::WRITE.0);
const PAGES: u64 = 16;
const AT: u64 = 0x7000_0000;

/// Writes to pages that are not there, and adds up what it reads.
extern "C" fn walk(_: u64, _: u64) -> ! {
    for page in 0..PAGES {
        processor::store(AT + page * 4096 + 8, page + 1);
    }
    let sum = (0..PAGES).map(|page| processor::load(AT + page * 4096 + 8));
    let sum = sum.sum();
    let _ = Endpoint(Cap(1)).call(&Message::new(5, [sum]));
    rest()
}

fn pages_on_demand(room: &mut Room, place: Place) -> Outcome {
    let (endpoint, reply) = (room.endpoint()?, room.reply()?);
    let worker = room.worker(place, walk, 0, BELOW, &[endpoint.0])?;
    room.watch(worker.thread, ThreadSlot::FaultEndpoint, endpoint, 9)?;
    worker.start()?;
    let space = match worker.program {
        Some(program) => program.space,
        None => room.supplies.space(),
    };
    let mut got = endpoint.receive(Some(reply))?;
    for page in 0..PAGES {
        let at = AT + page * 4096;
        same!(got.badge, 9);
        same!([got.words[0], got.words[2], got.words[3]], [1, at + 8, 1]);
        let frame = room.supplies.frame()?;
        room.supplies.map(frame, space, at, WRITES)?;
        // Two of three times the answer comes with the next receive.
        got = match page % 3 {
            0 => {
                reply.send(&Message::new(0, []))?;
                endpoint.receive(Some(reply))?
            }
            _ => endpoint.reply_receive(reply, &Message::new(0, [5; 4]))?,
        };
    }
    same!(
        (got.info.label(), got.words[0]),
        (5, PAGES * (PAGES + 1) / 2)
    );
    Ok(())
}

fn passed_over(room: &mut Room) -> Outcome {
    let prober = Prober::new(room, Place::Apart)?;
    for (what, kind) in [
        (Try::Undefined, FaultKind::Instruction),
        (Try::Privileged, FaultKind::Instruction),
        (Try::Breakpoint, FaultKind::Breakpoint),
        (Try::Floats, FaultKind::Instruction),
    ] {
        prober.begin(what, 0)?;
        let came = prober.next(room)?;
        ensure!(came.is_fault(kind), "{what:?}: {came:?}");
        let Came::Fault([_, at, _, _]) = came else {
            continue;
        };
        // At the same instruction it faults again.
        if what != Try::Breakpoint {
            prober.reply.send(&Message::new(0, [1]))?;
            let came = prober.next(room)?;
            ensure!(came.is_fault(kind), "{what:?}: {came:?}");
        }
        if what == Try::Floats {
            // With the unit it goes on.
            let control = room.information.scheduling();
            prober.worker.thread.set_priority(BELOW, control, true)?;
            prober.reply.send(&Message::new(0, []))?;
        } else {
            // On x86-64 the processor is behind a breakpoint of one byte already.
            let behind = match (what, cfg!(target_arch = "x86_64")) {
                (Try::Breakpoint, true) => at,
                _ => at + INSTRUCTION_BYTES,
            };
            prober.reply.send(&Message::new(1, [behind]))?;
        }
        same!(prober.next(room)?, Came::Done(0), "behind {what:?}");
        prober.worker.thread.suspend()?;
    }
    Ok(())
}

fn registers_of_a_fault(room: &mut Room) -> Outcome {
    let prober = Prober::new(room, Place::Apart)?;
    prober.begin(Try::Load, AT)?;
    let Came::Fault([_, at, _, _]) = prober.next(room)? else {
        ensure!(false, "no fault");
        return Ok(());
    };
    let thread = prober.worker.thread;
    same!(thread.read_register(registers::PROGRAM_COUNTER)?, at);
    let stack = thread.read_register(registers::STACK_POINTER)?;
    let top = prober.worker.spawned.stack_top;
    ensure!(
        stack <= top && top - stack < 4096,
        "the stack is at {stack:#x}, not below {top:#x}"
    );
    // The image ends below 16 MiB.
    ensure!(
        (0x40_0000..0x100_0000).contains(&at),
        "the program is at {at:#x}"
    );
    Ok(())
}

extern "C" fn count_and_fault(_: u64, _: u64) -> ! {
    loop {
        count(1);
        processor::undefined();
        count(2);
    }
}

fn nobody_is_told(room: &mut Room) -> Outcome {
    let worker = room.working(Place::Here, count_and_fault, 0, BELOW, &[])?;
    room.settle()?;
    same!((shared(1), shared(2)), (1, 0));
    // It stands still, and begins again where it is told to.
    let at = worker.thread.read_register(registers::PROGRAM_COUNTER)?;
    worker
        .thread
        .write_register(registers::PROGRAM_COUNTER, at + INSTRUCTION_BYTES)?;
    room.settle()?;
    same!((shared(1), shared(2)), (1, 0));
    worker.thread.resume()?;
    room.settle()?;
    same!((shared(1), shared(2)), (2, 1));
    Ok(())
}

fn nobody_can_answer(room: &mut Room) -> Outcome {
    let prober = Prober::new(room, Place::Apart)?;
    prober.begin(Try::Load, AT)?;
    // Received without a reply object, once first and once after the fault.
    let got = prober.endpoint.receive(None)?;
    same!(got.words[0], FaultKind::Page as u64);
    ensure!(prober.is_silent(room), "the thread went on");
    prober.begin(Try::Undefined, 0)?;
    let came = prober.next(room)?;
    ensure!(came.is_fault(FaultKind::Instruction), "{came:?}");
    prober.worker.thread.suspend()?;
    same!(prober.reply.send(&Message::new(0, [])), Err(Error::NoReply));
    Ok(())
}

fn the_endpoint_ends(room: &mut Room) -> Outcome {
    let endpoint = room.endpoint()?;
    let worker = room.worker(Place::Here, count_and_fault, 0, BELOW, &[])?;
    room.watch(worker.thread, ThreadSlot::FaultEndpoint, endpoint, 1)?;
    worker.start()?;
    room.settle()?;
    let slot = room.supplies.index(endpoint.0);
    // The thread waits to tell of its fault, by the last capability there is: its own.
    room.supplies.node().revoke(slot)?;
    room.supplies.node().delete(slot)?;
    room.settle()?;
    same!((shared(1), shared(2)), (1, 0));
    worker.thread.resume()?;
    room.settle()?;
    // It faults at the same place again, and nobody is told.
    same!((shared(1), shared(2)), (1, 0));
    Ok(())
}

fn the_reply_ends(room: &mut Room) -> Outcome {
    let prober = Prober::new(room, Place::Here)?;
    prober.begin(Try::Load, AT)?;
    let came = prober.next(room)?;
    ensure!(came.is_page_fault(AT, 0), "{came:?}");
    room.supplies
        .node()
        .delete(room.supplies.index(prober.reply.0))?;
    ensure!(prober.is_silent(room), "the thread went on");
    let worker = &prober.worker;
    // The prober's fault came to nothing; it can begin anew.
    worker
        .spawned
        .set_entry(count_and_fault as *const () as usize as u64, 0)?;
    worker.thread.resume()?;
    room.settle()?;
    same!((shared(1), shared(2)), (1, 0));
    Ok(())
}

/// Whoever is told of faults can do without time of its own.
fn handlers_are_lent_time(room: &mut Room) -> Outcome {
    extern "C" fn handle(_: u64, _: u64) -> ! {
        let (endpoint, reply) = (Endpoint(Cap(1)), mielin_user::objects::Reply(Cap(2)));
        let mut got = endpoint.receive(Some(reply));
        loop {
            let Ok(received) = got else { rest() };
            share(5, received.badge);
            count(4);
            let behind = received.words[1] + INSTRUCTION_BYTES;
            got = endpoint.reply_receive(reply, &Message::new(1, [behind]));
        }
    }
    let (endpoint, reply) = (room.endpoint()?, room.reply()?);
    let handler = room.worker(Place::Here, handle, 0, BELOW, &[endpoint.0, reply.0])?;
    handler.start_passive(room)?;
    let worker = room.worker(Place::Here, count_and_fault, 0, BELOW - 1, &[])?;
    room.watch(worker.thread, ThreadSlot::FaultEndpoint, endpoint, 66)?;
    worker.start()?;
    room.pause(10)?;
    worker.thread.suspend()?;
    ensure!(shared(2) > 100, "{} faults were handled", shared(2));
    same!(shared(5), 66);
    ensure!(
        shared(4) - shared(2) <= 1,
        "{} faults, {} handled",
        shared(4),
        shared(2)
    );
    Ok(())
}
