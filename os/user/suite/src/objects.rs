//! Memory becomes objects and memory again: accounting, creation and deletion.

use mielin_user::objects::{Endpoint, Message, Node, Notification, Thread, Untyped};
use mielin_user::{Cap, Error, ObjectKind, Rights, ThreadSlot};

use crate::Test;
use crate::room::{BELOW, Outcome, Place, Room, count, ensure, rest, same, share, shared};

pub(crate) const TESTS: &[Test] = &[
    ("objects::exact_accounting", exact_accounting),
    ("objects::ten_thousand_threads", ten_thousand_threads),
    (
        "objects::threads_that_wait_are_destroyed",
        threads_that_wait,
    ),
    ("objects::memory_in_memory", memory_in_memory),
    ("objects::long_derivations", long_derivations),
    ("objects::wide_derivations", wide_derivations),
    ("objects::children_of_what_was_deleted", children_of_deleted),
    ("objects::nodes_in_nodes", nodes_in_nodes),
    (
        "objects::nodes_that_hold_themselves",
        nodes_that_hold_themselves,
    ),
    ("objects::a_thread_deletes_itself", |room| {
        deletes_itself(room, Itself::Thread)
    }),
    ("objects::a_thread_deletes_its_node", |room| {
        deletes_itself(room, Itself::Node)
    }),
    ("objects::a_thread_deletes_its_space", |room| {
        deletes_itself(room, Itself::Space)
    }),
    ("objects::a_thread_deletes_its_time", |room| {
        deletes_itself(room, Itself::Time)
    }),
    ("objects::a_thread_deletes_its_memory", |room| {
        deletes_itself(room, Itself::Memory)
    }),
    ("objects::revoking_is_interrupted", revoking_is_interrupted),
];

/// The bytes that each object takes, and the size to ask for.
const SIZES: [(ObjectKind, u8, u64); 15] = [
    (ObjectKind::Untyped, 5, 32),
    (ObjectKind::Untyped, 12, 4096),
    (ObjectKind::Node, 1, 64),
    (ObjectKind::Node, 4, 512),
    (ObjectKind::Endpoint, 0, 32),
    (ObjectKind::Notification, 0, 64),
    (ObjectKind::Queue, 8, 256),
    (ObjectKind::Queue, 11, 2048),
    (ObjectKind::Thread, 0, 2048),
    (ObjectKind::AddressSpace, 0, 32),
    (ObjectKind::PageTable, 0, 4096),
    (ObjectKind::Frame, 12, 4096),
    (ObjectKind::SchedulingContext, 0, 256),
    (ObjectKind::Reply, 0, 64),
    (ObjectKind::Endpoint, 7, 32),
];

fn exact_accounting(room: &mut Room) -> Outcome {
    let untyped = Untyped(room.supplies.object(ObjectKind::Untyped, 16)?);
    let own = room.supplies.index(untyped.0);
    let first = room.supplies.slots(2048)?;
    let node = room.supplies.node();
    let (base, bits, used) = untyped.describe()?;
    same!((base % (1 << 16), bits, used), (0, 16, 0));
    for (kind, size, bytes) in SIZES {
        // As many as fit, and not one more.
        let fits = (1 << 16) / bytes;
        let mut made = 0;
        while made < fits {
            let now = (fits - made).min(256);
            untyped.retype(kind, size, now, node, first + made)?;
            made += now;
            same!(untyped.describe()?.2, made * bytes, "{kind:?} of {bytes}");
        }
        let more = untyped.retype(kind, size, 1, node, first + made);
        same!(more, Err(Error::NoMemory), "{kind:?} of {bytes}");
        // The memory is used until the last of them is gone.
        for index in 1..fits {
            node.delete(first + index)?;
        }
        let more = untyped.retype(kind, size, 1, node, first + 1);
        same!(more, Err(Error::NoMemory), "{kind:?} of {bytes}");
        node.delete(first)?;
        untyped.retype(kind, size, 1, node, first)?;
        same!(untyped.describe()?.2, bytes);
        node.revoke(own)?;
    }
    // Objects begin at multiples of their size: what is left out before one is used, too.
    untyped.retype(ObjectKind::Endpoint, 0, 1, node, first)?;
    untyped.retype(ObjectKind::Frame, 12, 1, node, first + 1)?;
    same!(untyped.describe()?.2, 8192);
    untyped.retype(ObjectKind::Endpoint, 0, 1, node, first + 2)?;
    same!(untyped.describe()?.2, 8192 + 32);
    Ok(())
}

fn ten_thousand_threads(room: &mut Room) -> Outcome {
    const BATCH: u64 = 250;
    let bits = 20;
    let untyped = Untyped(room.supplies.object(ObjectKind::Untyped, bits)?);
    let own = room.supplies.index(untyped.0);
    let first = room.supplies.slots(2 * BATCH + 1)?;
    let (node, space) = (room.supplies.node(), room.supplies.space());
    let (control, slice) = (room.information.scheduling(), room.milliseconds(1));
    for batch in 0..10_000 / BATCH {
        untyped.retype(ObjectKind::Thread, 0, BATCH, node, first)?;
        untyped.retype(ObjectKind::SchedulingContext, 0, BATCH, node, first + BATCH)?;
        for index in 0..BATCH {
            let thread = Thread(room.supplies.cap(first + index));
            let context = room.supplies.cap(first + BATCH + index);
            let context = mielin_user::objects::SchedulingContext(context);
            thread.equip(ThreadSlot::Node, node.0, 0)?;
            thread.equip(ThreadSlot::AddressSpace, space.0, 0)?;
            thread.set_priority(BELOW, control, false)?;
            control.configure(context, slice, 0)?;
            context.bind(Some(thread))?;
            let entry = count_once as *const () as usize as u64;
            thread.write_register(mielin_kernel::registers::PROGRAM_COUNTER, entry)?;
            thread.resume()?;
        }
        room.settle()?;
        same!(shared(0), (batch + 1) * BATCH, "not all of them ran");
        // One half goes one by one, in two orders, and the other at once.
        match batch % 3 {
            0 => {
                for index in 0..BATCH {
                    node.delete(first + index)?;
                }
            }
            1 => {
                for index in (0..BATCH).rev() {
                    node.delete(first + index)?;
                }
            }
            _ => {}
        }
        node.revoke(own)?;
    }
    untyped.retype(ObjectKind::Untyped, bits, 1, node, first)?;
    Ok(())
}

/// Needs no stack: it counts, and faults.
extern "C" fn count_once(_: u64, _: u64) -> ! {
    count(0);
    rest()
}

extern "C" fn wait_somehow(way: u64, _: u64) -> ! {
    let (endpoint, notification) = (Endpoint(Cap(1)), Notification(Cap(2)));
    let later = mielin_user::system_call::now() + 1_000_000_000_000;
    let message = Message::new(0, []);
    let _ = match way {
        0 => endpoint.receive(None).map(|_| ()),
        1 => endpoint.receive_until(None, later).map(|_| ()),
        2 => notification.wait().map(|_| ()),
        3 => notification.wait_until(later).map(|_| ()),
        4 => endpoint.send(&message),
        5 => endpoint.send_until(&message, later),
        6 => endpoint.call(&message).map(|_| ()),
        _ => endpoint.call_until(&message, later).map(|_| ()),
    };
    count(0);
    rest()
}

/// In whatever line a thread stands when it ends, the others are in order.
fn threads_that_wait(room: &mut Room) -> Outcome {
    let node = room.supplies.node();
    for way in 0..8 {
        share(0, 0);
        let (endpoint, notification) = (room.endpoint()?, room.notification()?);
        let given = [endpoint.0, notification.0];
        let mut threads = [None; 5];
        for thread in &mut threads {
            let worker = room.working(Place::Here, wait_somehow, way, BELOW, &given)?;
            *thread = Some(worker.thread);
        }
        room.settle()?;
        same!(shared(0), 0);
        for index in [2, 0, 4] {
            if let Some(thread) = threads[index] {
                node.delete(room.supplies.index(thread.0))?;
            }
        }
        let badge = Notification(notification.0);
        for _ in 0..2 {
            match way {
                0 | 1 => endpoint.send_until(&Message::new(0, []), 0)?,
                2 | 3 => badge.signal()?,
                _ => endpoint.receive_until(None, 0).map(|_| ())?,
            }
        }
        room.settle()?;
        same!(shared(0), 2, "way {way}");
        let nobody = match way {
            0 | 1 => endpoint.send_until(&Message::new(0, []), 0).err(),
            2 | 3 => badge.wait_until(0).err(),
            _ => endpoint.receive_until(None, 0).err(),
        };
        same!(nobody, Some(Error::TimedOut), "way {way}");
    }
    Ok(())
}

fn memory_in_memory(room: &mut Room) -> Outcome {
    let node = room.supplies.node();
    let outer = Untyped(room.supplies.object(ObjectKind::Untyped, 20)?);
    let (base, ..) = outer.describe()?;
    let first = room.supplies.slots(20)?;
    let mut parent = outer;
    // Each is half of the one before it, and lies within it.
    for (bits, slot) in (6..20).rev().zip(first..) {
        parent.retype(ObjectKind::Untyped, bits, 1, node, slot)?;
        let half = Untyped(room.supplies.cap(slot));
        same!(half.describe()?, (base, bits, 0));
        parent = half;
    }
    parent.retype(ObjectKind::Endpoint, 0, 2, node, first + 15)?;
    let endpoint = Endpoint(room.supplies.cap(first + 15));
    same!(endpoint.receive_until(None, 0), Err(Error::TimedOut));
    node.revoke(room.supplies.index(outer.0))?;
    same!(endpoint.receive_until(None, 0), Err(Error::NoCapability));
    same!(parent.describe(), Err(Error::NoCapability));
    outer.retype(ObjectKind::Untyped, 20, 1, node, first)?;
    Ok(())
}

fn long_derivations(room: &mut Room) -> Outcome {
    const LONG: u64 = 2000;
    let endpoint = room.endpoint()?;
    let first = room.supplies.slots(LONG)?;
    let node = room.supplies.node();
    let mut parent = endpoint.0;
    for slot in first..first + LONG {
        node.mint(slot, parent, Rights::ALL, 0)?;
        parent = room.supplies.cap(slot);
    }
    // What is derived from the one in the middle ends, and no more.
    node.revoke(first + LONG / 2)?;
    let at = |slot| Endpoint(room.supplies.cap(slot)).receive_until(None, 0);
    same!(at(first + LONG / 2), Err(Error::TimedOut));
    same!(at(first + LONG / 2 + 1), Err(Error::NoCapability));
    same!(at(first + LONG - 1), Err(Error::NoCapability));
    same!(at(first), Err(Error::TimedOut));
    node.revoke(room.supplies.index(endpoint.0))?;
    for slot in first..first + LONG {
        same!(at(slot), Err(Error::NoCapability));
    }
    same!(endpoint.receive_until(None, 0), Err(Error::TimedOut));
    Ok(())
}

fn wide_derivations(room: &mut Room) -> Outcome {
    const WIDE: u64 = 2000;
    let endpoint = room.endpoint()?;
    let first = room.supplies.slots(WIDE)?;
    let node = room.supplies.node();
    for slot in first..first + WIDE {
        node.copy(slot, endpoint.0)?;
    }
    for slot in (first..first + WIDE).step_by(3) {
        node.delete(slot)?;
    }
    node.revoke(room.supplies.index(endpoint.0))?;
    for slot in first..first + WIDE {
        let got = Endpoint(room.supplies.cap(slot)).receive_until(None, 0);
        same!(got, Err(Error::NoCapability));
    }
    same!(endpoint.receive_until(None, 0), Err(Error::TimedOut));
    Ok(())
}

/// What was derived from a capability outlives it, and ends with what that one was derived from.
fn children_of_deleted(room: &mut Room) -> Outcome {
    let node = room.supplies.node();
    let endpoint = room.endpoint()?;
    let middle = room.mint(endpoint.0, Rights::ALL, 0)?;
    let last = Endpoint(room.mint(middle, Rights::ALL, 7)?);
    node.delete(room.supplies.index(middle))?;
    same!(last.receive_until(None, 0), Err(Error::TimedOut));
    node.revoke(room.supplies.index(endpoint.0))?;
    same!(last.receive_until(None, 0), Err(Error::NoCapability));
    Ok(())
}

fn nodes_in_nodes(room: &mut Room) -> Outcome {
    let outer = room.supplies.new_node(4)?;
    let untyped = Untyped(room.supplies.object(ObjectKind::Untyped, 16)?);
    // A node whose only capability is in another node, and so on.
    let mut parent = outer;
    let mut shift = 64 - outer.0.0.leading_zeros().min(40);
    shift = shift.next_multiple_of(12);
    let mut address = outer.0.0;
    for _ in 0..6 {
        untyped.retype(ObjectKind::Node, 4, 1, parent, 15)?;
        address |= 15 << shift;
        shift += 4;
        parent = Node(Cap(address));
        let endpoint = room.endpoint()?;
        parent.copy(1, endpoint.0)?;
        let inside = Endpoint(Cap(address | 1 << shift));
        same!(inside.receive_until(None, 0), Err(Error::TimedOut));
    }
    let (_, _, used) = untyped.describe()?;
    same!(used, 6 * 512);
    // All end with the first.
    outer.delete(15)?;
    same!(parent.delete(1), Err(Error::NoCapability));
    let slot = room.supplies.slot()?;
    untyped.retype(ObjectKind::Untyped, 16, 1, room.supplies.node(), slot)?;
    Ok(())
}

fn nodes_that_hold_themselves(room: &mut Room) -> Outcome {
    let untyped = Untyped(room.supplies.object(ObjectKind::Untyped, 14)?);
    let slots = room.supplies.slots(3)?;
    let (outer, own) = (room.supplies.node(), room.supplies.index(untyped.0));
    for way in 0..3 {
        untyped.retype(ObjectKind::Node, 3, 2, outer, slots)?;
        let (a, b) = (
            Node(room.supplies.cap(slots)),
            Node(room.supplies.cap(slots + 1)),
        );
        match way {
            // The only capability of a node moves into the node: nobody reaches it, and its memory comes back.
            0 => a.take(1, a.0)?,
            // Two nodes hold each other.
            1 => {
                a.take(1, b.0)?;
                let inner = Node(Cap(a.0.0 | 1 << 24));
                inner.take(1, a.0)?;
            }
            _ => {
                a.copy(1, b.0)?;
                b.copy(1, a.0)?;
                outer.delete(slots)?;
                outer.delete(slots + 1)?;
            }
        }
        outer.revoke(own)?;
        untyped.retype(ObjectKind::Untyped, 14, 1, outer, slots + 2)?;
        outer.revoke(own)?;
    }
    Ok(())
}

/// What a thread deletes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Itself {
    Thread,
    Node,
    Space,
    Time,
    Memory,
}

/// Deletes what is in a slot of the room's node, or, with bit 32, all that was derived from it.
extern "C" fn delete_slot(argument: u64, _: u64) -> ! {
    let (node, index) = (Node(Cap(1)), argument & 0xffff_ffff);
    let _ = match argument >> 32 {
        0 => node.delete(index),
        _ => node.revoke(index),
    };
    rest()
}

fn deletes_itself(room: &mut Room, what: Itself) -> Outcome {
    const BITS: u8 = 20;
    const REVOKES: u64 = 1 << 32;
    let memory = Untyped(room.supplies.object(ObjectKind::Untyped, BITS)?);
    let (inner, slot) = (room.supplies.slot()?, room.supplies.slot()?);
    let inner = room.supplies.within(memory, inner, 10)?;
    let outer = core::mem::replace(&mut room.supplies, inner);
    let node = outer.node();
    let argument = match what {
        Itself::Thread | Itself::Time => slot,
        // The thread has a copy, which is derived from the one in the slot.
        Itself::Node | Itself::Space => slot | REVOKES,
        Itself::Memory => outer.index(memory.0) | REVOKES,
    };
    let worker = room.worker(Place::Apart, delete_slot, argument, BELOW, &[node.0])?;
    let program = worker.program.map_or(Cap(0), |program| program.space.0);
    worker.context.bind(Some(worker.thread))?;
    worker.thread.resume()?;
    match what {
        Itself::Thread => node.take(slot, worker.thread.0)?,
        Itself::Node => node.take(slot, worker.spawned.node.0)?,
        Itself::Space => node.take(slot, program)?,
        Itself::Time => node.take(slot, worker.context.0)?,
        Itself::Memory => {}
    }
    room.settle()?;
    // Whatever became of the thread, its memory is all there.
    room.supplies = outer;
    if matches!(what, Itself::Thread | Itself::Time) {
        node.copy(slot, room.never().0)?;
        node.delete(slot)?;
    }
    let own = room.supplies.index(memory.0);
    node.revoke(own)?;
    memory.retype(ObjectKind::Untyped, BITS, 1, node, slot)?;
    Ok(())
}

extern "C" fn revoke_for_long(_: u64, _: u64) -> ! {
    let (untyped, own) = (Untyped(Cap(1)), Node(Cap(2)));
    let objects = Node(Cap(3));
    loop {
        for first in 0..15 {
            let made = untyped.retype(ObjectKind::Endpoint, 0, 256, objects, first * 256 + 1);
            if made.is_err() {
                share(3, 1);
                rest()
            }
        }
        share(2, 1);
        if own.revoke(1).is_err() {
            share(3, 2);
            rest()
        }
        share(2, 0);
        count(1);
    }
}

/// While a thread revokes thousands of objects, others that come before it do not wait for that.
fn revoking_is_interrupted(room: &mut Room) -> Outcome {
    let memory = room.supplies.object(ObjectKind::Untyped, 17)?;
    let objects = room.supplies.new_node(12)?;
    let never = room.never().0;
    let worker = room.worker(
        Place::Here,
        revoke_for_long,
        0,
        BELOW,
        &[never, never, objects.0],
    )?;
    let node = worker.spawned.node;
    node.delete(1)?;
    node.take(1, memory)?;
    node.delete(2)?;
    node.copy(2, node.0)?;
    worker.start()?;
    let mut within = 0;
    for _ in 0..200 {
        let deadline = room.now() + room.milliseconds(1) / 2;
        let _ = room.never().wait_until(deadline);
        within += shared(2);
    }
    same!(shared(3), 0, "it broke");
    ensure!(shared(1) > 0, "it never ended");
    ensure!(
        within > 0,
        "it was never interrupted, in {} rounds",
        shared(1)
    );
    worker.thread.suspend()?;
    Ok(())
}
