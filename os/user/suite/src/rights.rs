//! What capabilities allow: rights that are missing, and what no copy gives back.

use mielin_user::abi::Method;
use mielin_user::objects::{
    Endpoint, Frame, Interrupt, Message, Node, Notification, Ports, Queue, SchedulingControl,
    invoke,
};
use mielin_user::{Error, ObjectKind, Rights, ThreadSlot};

use crate::room::{Outcome, Room, same};
use crate::{Test, console};

pub(crate) const TESTS: &[Test] = &[
    ("rights::rights_of_endpoints", rights_of_endpoints),
    (
        "rights::rights_of_notifications_and_queues",
        rights_of_notifications_and_queues,
    ),
    ("rights::rights_of_nodes", rights_of_nodes),
    ("rights::rights_to_equip", rights_to_equip),
    ("rights::no_right_comes_back", no_right_comes_back),
    ("rights::control_of_priorities", control_of_priorities),
    ("rights::contexts_and_threads", contexts_and_threads),
    ("rights::what_cannot_be_copied", what_cannot_be_copied),
];

fn all_rights() -> impl Iterator<Item = Rights> {
    (0..16).map(Rights)
}

/// What is refused for want of a right, and what goes so far that its deadline has passed.
fn denied_without(rights: Rights, needed: Rights) -> Error {
    match rights.has(needed) {
        true => Error::TimedOut,
        false => Error::Denied,
    }
}

fn rights_of_endpoints(room: &mut Room) -> Outcome {
    let endpoint = room.endpoint()?;
    let reply = room.reply()?;
    let message = Message::new(1, [2]);
    for rights in all_rights() {
        let less = Endpoint(room.mint(endpoint.0, rights, 0)?);
        let writes = denied_without(rights, Rights::WRITE);
        let calls = denied_without(rights, Rights::WRITE.or(Rights::GRANT));
        let reads = denied_without(rights, Rights::READ);
        same!(
            less.send_until(&message, 0),
            Err(writes),
            "send with {rights:?}"
        );
        same!(
            less.call_until(&message, 0),
            Err(calls),
            "call with {rights:?}"
        );
        same!(
            less.receive_until(None, 0),
            Err(reads),
            "receive with {rights:?}"
        );
        let got = less.reply_receive_until(reply, &message, 0);
        same!(got, Err(reads), "reply and receive with {rights:?}");
        if !rights.has(Rights::WRITE) {
            same!(less.send(&message), Err(Error::Denied));
        }
        if !rights.has(Rights::WRITE.or(Rights::GRANT)) {
            same!(less.call(&message), Err(Error::Denied));
        }
        if !rights.has(Rights::READ) {
            same!(less.receive(Some(reply)), Err(Error::Denied));
            same!(less.reply_receive(reply, &message), Err(Error::Denied));
        }
    }
    Ok(())
}

fn rights_of_notifications_and_queues(room: &mut Room) -> Outcome {
    let notification = room.notification()?;
    let queue = room.supplies.queue(8)?;
    let message = Message::new(7, [8]);
    for rights in all_rights() {
        let less = Notification(room.mint(notification.0, rights, 0)?);
        let signals = rights.has(Rights::WRITE);
        same!(less.signal().is_ok(), signals, "signal with {rights:?}");
        let waited = less.wait_until(0);
        match (rights.has(Rights::READ), signals) {
            (true, true) => same!(waited, Ok(1)),
            (true, false) => same!(waited, Err(Error::TimedOut)),
            (false, _) => same!(waited, Err(Error::Denied)),
        }
        // Nothing stays for the next one.
        let _ = notification.wait_until(0);

        let less = Queue(room.mint(queue.0, rights, 5)?);
        match rights.has(Rights::WRITE) {
            true => less.push(&message)?,
            false => same!(less.push(&message), Err(Error::Denied)),
        }
        match (rights.has(Rights::READ), rights.has(Rights::WRITE)) {
            (true, true) => same!(less.pop()?.badge, 5),
            (true, false) => same!(less.pop(), Err(Error::Empty)),
            (false, _) => same!(less.pop(), Err(Error::Denied)),
        }
        let both = rights.has(Rights::READ.or(Rights::WRITE));
        let told = less.tell_of_messages(None);
        same!(told.is_ok(), both, "binding with {rights:?}");
        let _ = queue.pop();
    }
    let line_slot = room.supplies.slot()?;
    let interrupts = room.information.interrupts();
    interrupts.claim(console::LINE, room.supplies.node(), line_slot)?;
    let line = Interrupt(room.supplies.cap(line_slot));
    let reads = Notification(room.mint(notification.0, Rights::READ, 0)?);
    same!(line.bind(Some(reads)), Err(Error::Denied));
    same!(queue.tell_of_room(Some(reads)), Err(Error::Denied));
    let writes = Notification(room.mint(notification.0, Rights::WRITE, 0)?);
    same!(
        room.information.thread().bind(Some(writes)),
        Err(Error::Denied)
    );
    room.supplies.node().delete(line_slot)?;
    Ok(())
}

fn rights_of_nodes(room: &mut Room) -> Outcome {
    let node = room.supplies.new_node(4)?;
    let endpoint = room.endpoint()?;
    node.copy(1, endpoint.0)?;
    for rights in all_rights().filter(|rights| !rights.has(Rights::WRITE)) {
        let less = Node(room.mint(node.0, rights, 0)?);
        same!(less.copy(2, endpoint.0), Err(Error::Denied));
        same!(less.mint(2, endpoint.0, Rights::ALL, 1), Err(Error::Denied));
        same!(less.take(2, endpoint.0), Err(Error::Denied));
        same!(less.delete(1), Err(Error::Denied));
        same!(less.revoke(1), Err(Error::Denied));
        let untyped = room.supplies.untyped();
        let made = untyped.retype(ObjectKind::Endpoint, 0, 1, less, 2);
        same!(made, Err(Error::Denied));
        let claimed = room.information.interrupts().claim(console::LINE, less, 2);
        same!(claimed, Err(Error::Denied));
    }
    // What nobody was allowed to do was not done.
    same!(node.copy(1, endpoint.0), Err(Error::SlotTaken));
    node.copy(2, endpoint.0)?;
    same!(endpoint.receive_until(None, 0), Err(Error::TimedOut));
    Ok(())
}

fn rights_to_equip(room: &mut Room) -> Outcome {
    let thread = room.supplies.thread()?;
    let endpoint = room.endpoint()?;
    let frame = room.supplies.frame()?;
    for rights in all_rights() {
        let told = room.mint(endpoint.0, rights, 3)?;
        for which in [ThreadSlot::FaultEndpoint, ThreadSlot::TimeoutEndpoint] {
            let thread = room.supplies.thread()?;
            let wanted = rights.has(Rights::WRITE.or(Rights::GRANT));
            let got = thread.equip(which, told, 0);
            same!(
                got,
                if wanted { Ok(()) } else { Err(Error::Denied) },
                "{rights:?}"
            );
        }
        let page = room.mint(frame.0, rights, 0)?;
        if !rights.has(Rights::READ.or(Rights::WRITE)) {
            let got = thread.equip(ThreadSlot::Buffer, page, 0);
            same!(got, Err(Error::Denied), "{rights:?}");
        }
    }
    for offset in [1, 512, 1023, 4096, 8192, u64::MAX, 1 << 63, u64::MAX - 1023] {
        let got = thread.equip(ThreadSlot::Buffer, frame.0, offset);
        same!(got, Err(Error::InvalidArgument), "offset {offset:#x}");
    }
    thread.equip(ThreadSlot::Buffer, frame.0, 3072)?;
    let again = thread.equip(ThreadSlot::Buffer, frame.0, 0);
    same!(again, Err(Error::SlotTaken));
    for which in [5, 6, 255, u64::MAX] {
        let got = invoke(thread.0, Method::Equip, [which, frame.0.0, 0, 0]);
        same!(got, Err(Error::InvalidArgument));
    }
    for register in [mielin_kernel::registers::COUNT, 64, usize::MAX] {
        same!(thread.read_register(register), Err(Error::InvalidArgument));
        same!(
            thread.write_register(register, 1),
            Err(Error::InvalidArgument)
        );
    }
    Ok(())
}

/// Copies of copies have those rights only that all before them have, and badges stay.
fn no_right_comes_back(room: &mut Room) -> Outcome {
    let endpoint = room.endpoint()?;
    let less = room.mint(endpoint.0, Rights::READ, 9)?;
    let again = Endpoint(room.mint(less, Rights::ALL, 0)?);
    same!(
        again.send_until(&Message::new(0, []), 0),
        Err(Error::Denied)
    );
    same!(again.receive_until(None, 0), Err(Error::TimedOut));
    same!(room.mint(less, Rights::ALL, 10), Err(Error::Denied));
    same!(room.mint(less, Rights::ALL, 9), Err(Error::Denied));

    let frame = room.supplies.frame()?;
    let reads = Frame(room.mint(frame.0, Rights::READ, 0)?);
    let space = room.supplies.space();
    let at = room.supplies.addresses(4096);
    let writes = Rights::READ.or(Rights::WRITE);
    same!(
        room.supplies.map(reads, space, at, writes),
        Err(Error::Denied)
    );
    let executes = Rights::READ.or(Rights::EXECUTE);
    same!(
        room.supplies.map(reads, space, at, executes),
        Err(Error::Denied)
    );
    let copy = Frame(room.mint(reads.0, Rights::ALL, 0)?);
    same!(
        room.supplies.map(copy, space, at, writes),
        Err(Error::Denied)
    );
    room.supplies.map(copy, space, at, Rights::READ)?;

    // What has no badge takes none.
    for unbadged in [room.supplies.thread()?.0, room.reply()?.0, frame.0] {
        same!(
            room.mint(unbadged, Rights::ALL, 1),
            Err(Error::InvalidArgument)
        );
    }
    let ports = room.information.ports();
    let few = Ports(room.mint(ports.0, Rights::ALL, 0x0010_0020)?);
    for wider in [0x0010_0021, 0x000f_0020, 0x0020_0010, 1 << 32 | 0x0010_0020] {
        same!(room.mint(few.0, Rights::ALL, wider), Err(Error::Denied));
    }
    same!(few.read(0xf, 1), Err(Error::Denied));
    same!(few.read(0x20, 2), Err(Error::Denied));
    same!(few.write(0x1f, 4, 0), Err(Error::Denied));
    same!(few.read(0x10, 3), Err(Error::InvalidArgument));
    Ok(())
}

fn control_of_priorities(room: &mut Room) -> Outcome {
    let control = room.information.scheduling();
    let lower = SchedulingControl(room.mint(control.0, Rights::ALL, 50)?);
    let thread = room.supplies.thread()?;
    thread.set_priority(50, lower, false)?;
    same!(thread.set_priority(51, lower, false), Err(Error::Denied));
    for badge in [51, 255, 256, u64::MAX] {
        same!(room.mint(lower.0, Rights::ALL, badge), Err(Error::Denied));
    }
    let lowest = SchedulingControl(room.mint(lower.0, Rights::ALL, 1)?);
    same!(thread.set_priority(2, lowest, false), Err(Error::Denied));
    for priority in [256, 1 << 32, u64::MAX] {
        let got = invoke(thread.0, Method::SetPriority, [priority, control.0.0, 0, 0]);
        same!(got, Err(Error::InvalidArgument));
    }
    let context = room.supplies.context()?;
    for (budget, period) in [(0, 0), (0, 5), (6, 5), (u64::MAX, 1)] {
        let got = control.configure(context, budget, period);
        same!(
            got,
            Err(Error::InvalidArgument),
            "budget {budget} of {period}"
        );
    }
    Ok(())
}

fn what_cannot_be_copied(room: &mut Room) -> Outcome {
    let slot = room.supplies.slot()?;
    let line_slot = room.supplies.slot()?;
    let node = room.supplies.node();
    let interrupts = room.information.interrupts();
    interrupts.claim(console::LINE, node, line_slot)?;
    let untyped = room.supplies.object(ObjectKind::Untyped, 12)?;
    let table = room.supplies.object(ObjectKind::PageTable, 0)?;
    let line = room.supplies.cap(line_slot);
    for one in [untyped, table, line] {
        same!(node.copy(slot, one), Err(Error::NotCopyable));
        same!(
            node.mint(slot, one, Rights::ALL, 0),
            Err(Error::NotCopyable)
        );
        // But it can be moved.
        node.take(slot, one)?;
        node.take(room.supplies.index(one), room.supplies.cap(slot))?;
    }
    Ok(())
}

fn contexts_and_threads(room: &mut Room) -> Outcome {
    let control = room.information.scheduling();
    let (a, b) = (room.supplies.thread()?, room.supplies.thread()?);
    let (s, t) = (room.supplies.context()?, room.supplies.context()?);
    // Less than ten microseconds is no budget.
    same!(control.configure(s, 1, 0), Err(Error::InvalidArgument));
    control.configure(s, room.milliseconds(1), 0)?;
    s.bind(Some(a))?;
    same!(s.bind(Some(b)), Err(Error::Bound));
    same!(t.bind(Some(a)), Err(Error::Bound));
    same!(s.bind(Some(a)), Err(Error::Bound));
    s.bind(None)?;
    s.bind(None)?;
    s.bind(Some(b))?;
    same!(s.consumed()?, 0);
    // A notification is bound to one thread, and a thread to one.
    let (n, m) = (room.notification()?, room.notification()?);
    a.bind(Some(n))?;
    same!(a.bind(Some(m)), Err(Error::Bound));
    same!(b.bind(Some(n)), Err(Error::Bound));
    a.bind(None)?;
    b.bind(Some(n))?;
    // A thread without time is resumed, and does not run.
    a.resume()?;
    room.settle()?;
    a.suspend()?;
    Ok(())
}
