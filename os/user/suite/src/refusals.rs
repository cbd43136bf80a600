//! What the kernel refuses: every call and every method by every kind of capability, and rights that are missing.

use mielin_user::abi::{MessageInfo, Method, SystemCall};
use mielin_user::objects::{
    Endpoint, Frame, Interrupt, Message, Node, Notification, Ports, Queue, Reply,
    SchedulingControl, Thread, Untyped, invoke,
};
use mielin_user::system_call::{Arguments, make, make_numbered};
use mielin_user::{Cap, Error, ObjectKind, Rights, ThreadSlot};

use crate::room::{Outcome, Room, ensure, same};
use crate::{Test, console};

pub(crate) const TESTS: &[Test] = &[
    (
        "refusals::every_call_by_every_kind",
        every_call_by_every_kind,
    ),
    (
        "refusals::every_reply_by_every_kind",
        every_reply_by_every_kind,
    ),
    (
        "refusals::every_method_by_every_kind",
        every_method_by_every_kind,
    ),
    (
        "refusals::every_argument_by_every_kind",
        every_argument_by_every_kind,
    ),
    ("refusals::unknown_calls", unknown_calls),
    ("refusals::rights_of_endpoints", rights_of_endpoints),
    (
        "refusals::rights_of_notifications_and_queues",
        rights_of_notifications_and_queues,
    ),
    ("refusals::rights_of_nodes", rights_of_nodes),
    ("refusals::rights_to_equip", rights_to_equip),
    ("refusals::no_right_comes_back", no_right_comes_back),
    ("refusals::control_of_priorities", control_of_priorities),
    ("refusals::wild_addresses", wild_addresses),
    ("refusals::revoked_capabilities", revoked_capabilities),
    (
        "refusals::refused_retypes_change_nothing",
        refused_retypes_change_nothing,
    ),
    (
        "refusals::refused_node_calls_change_nothing",
        refused_node_calls_change_nothing,
    ),
    ("refusals::what_cannot_be_copied", what_cannot_be_copied),
    ("refusals::contexts_and_threads", contexts_and_threads),
];

/// What a capability can be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nothing,
    Untyped,
    Node,
    Endpoint,
    Notification,
    Queue,
    Thread,
    AddressSpace,
    PageTable,
    Frame,
    SchedulingContext,
    Reply,
    SchedulingControl,
    InterruptControl,
    Interrupt,
    Ports,
    Power,
}

/// A capability of each kind.
fn one_of_each(room: &mut Room) -> Result<[(Kind, Cap); 17], Error> {
    let interrupts = room.information.interrupts();
    let line_slot = room.supplies.slot()?;
    interrupts.claim(console::LINE, room.supplies.node(), line_slot)?;
    let nothing = room.supplies.slot()?;
    let everything = Rights::ALL;
    let supplies = &mut room.supplies;
    Ok([
        (Kind::Nothing, supplies.cap(nothing)),
        (Kind::Untyped, supplies.object(ObjectKind::Untyped, 12)?),
        (Kind::Node, supplies.new_node(4)?.0),
        (Kind::Endpoint, supplies.endpoint()?.0),
        (Kind::Notification, supplies.notification()?.0),
        (Kind::Queue, supplies.queue(8)?.0),
        (Kind::Thread, supplies.thread()?.0),
        (Kind::AddressSpace, supplies.new_space()?.0),
        (Kind::PageTable, supplies.object(ObjectKind::PageTable, 0)?),
        (Kind::Frame, supplies.frame()?.0),
        (Kind::SchedulingContext, supplies.context()?.0),
        (Kind::Reply, supplies.reply()?.0),
        (
            Kind::SchedulingControl,
            supplies.mint(room.information.scheduling().0, everything, 0)?,
        ),
        (
            Kind::InterruptControl,
            supplies.mint(interrupts.0, everything, 0)?,
        ),
        (Kind::Interrupt, supplies.cap(line_slot)),
        (
            Kind::Ports,
            supplies.mint(room.information.ports().0, everything, 0)?,
        ),
        (
            Kind::Power,
            supplies.mint(room.information.power().0, everything, 0)?,
        ),
    ])
}

/// How a capability of the wrong kind is refused.
fn refused(kind: Kind) -> Error {
    match kind {
        Kind::Nothing => Error::NoCapability,
        _ => Error::WrongKind,
    }
}

fn every_call_by_every_kind(room: &mut Room) -> Outcome {
    let kinds = one_of_each(room)?;
    let calls: [(SystemCall, &[Kind]); 11] = [
        (SystemCall::Call, &[Kind::Endpoint]),
        (SystemCall::Send, &[Kind::Endpoint]),
        (SystemCall::Receive, &[Kind::Endpoint, Kind::Notification]),
        (SystemCall::ReplyReceive, &[Kind::Endpoint]),
        (SystemCall::CallUntil, &[Kind::Endpoint]),
        (SystemCall::ReplyReceiveUntil, &[Kind::Endpoint]),
        (SystemCall::SendUntil, &[Kind::Endpoint]),
        (
            SystemCall::ReceiveUntil,
            &[Kind::Endpoint, Kind::Notification],
        ),
        (SystemCall::Signal, &[Kind::Notification]),
        (SystemCall::Push, &[Kind::Queue]),
        (SystemCall::Pop, &[Kind::Queue]),
    ];
    let reply = room.reply()?;
    for (call, accepted) in calls {
        for (kind, cap) in kinds {
            if accepted.contains(&kind) {
                continue;
            }
            for words in [0, 3, 120] {
                let arguments = Arguments {
                    capability: cap.0,
                    info: MessageInfo::new(1, words).with_capabilities(2),
                    reply: reply.0.0,
                    ..Arguments::default()
                };
                same!(
                    make(call, &arguments),
                    Err(refused(kind)),
                    "{call:?} by {kind:?}"
                );
            }
        }
    }
    Ok(())
}

fn every_reply_by_every_kind(room: &mut Room) -> Outcome {
    let kinds = one_of_each(room)?;
    let endpoint = room.endpoint()?;
    for (kind, cap) in kinds {
        let accepted = kind == Kind::Reply;
        let arguments = Arguments {
            capability: endpoint.0.0,
            reply: cap.0,
            ..Arguments::default()
        };
        let wanted = |otherwise| Err(if accepted { otherwise } else { refused(kind) });
        let got = make(SystemCall::Reply, &arguments);
        same!(got, wanted(Error::NoReply), "reply by {kind:?}");
        let got = make(SystemCall::ReceiveUntil, &arguments);
        same!(got, wanted(Error::TimedOut), "receive with {kind:?}");
        let got = make(SystemCall::ReplyReceiveUntil, &arguments);
        same!(
            got,
            wanted(Error::TimedOut),
            "reply and receive with {kind:?}"
        );
    }
    Ok(())
}

/// Whose method it is.
fn owner(method: Method) -> &'static [Kind] {
    match method {
        Method::Retype | Method::Describe => &[Kind::Untyped],
        Method::Copy | Method::Mint | Method::Move | Method::Delete | Method::Revoke => {
            &[Kind::Node]
        }
        Method::Equip
        | Method::WriteRegister
        | Method::ReadRegister
        | Method::Resume
        | Method::Suspend
        | Method::SetPriority
        | Method::BindNotification => &[Kind::Thread],
        Method::Configure => &[Kind::SchedulingControl],
        Method::BindThread | Method::Consumed => &[Kind::SchedulingContext],
        Method::Map | Method::Unmap => &[Kind::PageTable, Kind::Frame],
        Method::Address => &[Kind::Frame],
        Method::Claim => &[Kind::InterruptControl],
        Method::BindInterrupt | Method::Acknowledge => &[Kind::Interrupt],
        Method::BindQueue => &[Kind::Queue],
        Method::ReadPort | Method::WritePort => &[Kind::Ports],
        Method::ShutDown => &[Kind::Power],
    }
}

fn every_method_by_every_kind(room: &mut Room) -> Outcome {
    let kinds = one_of_each(room)?;
    for number in 0..64 {
        let Some(method) = Method::from_number(number) else {
            for (kind, cap) in kinds {
                let arguments = Arguments {
                    capability: cap.0,
                    info: MessageInfo::new(number, 4),
                    ..Arguments::default()
                };
                let got = make(SystemCall::Invoke, &arguments);
                same!(
                    got,
                    Err(Error::InvalidArgument),
                    "method {number} of {kind:?}"
                );
            }
            continue;
        };
        for (kind, cap) in kinds {
            if owner(method).contains(&kind) {
                continue;
            }
            for (_, argument) in kinds {
                let got = invoke(cap, method, [1, argument.0, argument.0, 1]);
                same!(got, Err(refused(kind)), "{method:?} of {kind:?}");
            }
        }
    }
    Ok(())
}

/// A method, words for it, which of them names a capability, and the kinds that are taken there.
type Argument = (Kind, Method, [u64; 4], usize, &'static [Kind]);

/// Where methods take capabilities, all of those that are of the wrong kind are refused.
fn every_argument_by_every_kind(room: &mut Room) -> Outcome {
    let kinds = one_of_each(room)?;
    let free = room.supplies.slot()?;
    let node = ThreadSlot::Node as u64;
    let space = ThreadSlot::AddressSpace as u64;
    let buffer = ThreadSlot::Buffer as u64;
    let told = ThreadSlot::FaultEndpoint as u64;
    let late = ThreadSlot::TimeoutEndpoint as u64;
    let retype = mielin_user::abi::Retype::new(ObjectKind::Endpoint, 0, 1).0;
    let table: [Argument; 13] = [
        (
            Kind::Untyped,
            Method::Retype,
            [retype, 0, free, 0],
            1,
            &[Kind::Node],
        ),
        (
            Kind::Thread,
            Method::Equip,
            [node, 0, 0, 0],
            1,
            &[Kind::Node],
        ),
        (
            Kind::Thread,
            Method::Equip,
            [space, 0, 0, 0],
            1,
            &[Kind::AddressSpace],
        ),
        (
            Kind::Thread,
            Method::Equip,
            [buffer, 0, 0, 0],
            1,
            &[Kind::Frame],
        ),
        (
            Kind::Thread,
            Method::Equip,
            [told, 0, 0, 0],
            1,
            &[Kind::Endpoint],
        ),
        (
            Kind::Thread,
            Method::Equip,
            [late, 0, 0, 0],
            1,
            &[Kind::Endpoint],
        ),
        (
            Kind::Thread,
            Method::SetPriority,
            [1, 0, 0, 0],
            1,
            &[Kind::SchedulingControl],
        ),
        (
            Kind::Thread,
            Method::BindNotification,
            [0; 4],
            0,
            &[Kind::Notification],
        ),
        (
            Kind::SchedulingControl,
            Method::Configure,
            [0, 1, 1, 0],
            0,
            &[Kind::SchedulingContext],
        ),
        (
            Kind::SchedulingContext,
            Method::BindThread,
            [0; 4],
            0,
            &[Kind::Thread],
        ),
        (
            Kind::Frame,
            Method::Map,
            [0, 0x1000, 1, 0],
            0,
            &[Kind::AddressSpace],
        ),
        (
            Kind::PageTable,
            Method::Map,
            [0, 0x1000, 0, 0],
            0,
            &[Kind::AddressSpace],
        ),
        (
            Kind::Interrupt,
            Method::BindInterrupt,
            [0; 4],
            0,
            &[Kind::Notification],
        ),
    ];
    for (kind, method, words, place, accepted) in table {
        let Some((_, cap)) = kinds.iter().find(|(one, _)| *one == kind) else {
            continue;
        };
        for (given, argument) in kinds {
            if accepted.contains(&given) {
                continue;
            }
            let mut words = words;
            words[place] = argument.0;
            let got = invoke(*cap, method, words);
            same!(
                got,
                Err(refused(given)),
                "{method:?} of {kind:?} with {given:?}"
            );
        }
    }
    let queue = kinds[Kind::Queue as usize].1;
    let control = kinds[Kind::InterruptControl as usize].1;
    for (given, argument) in kinds {
        if given != Kind::Notification {
            for which in [0, 1] {
                let got = invoke(queue, Method::BindQueue, [which, argument.0, 0, 0]);
                same!(got, Err(refused(given)), "a queue with {given:?}");
            }
        }
        if given != Kind::Node {
            let words = [u64::from(console::LINE), argument.0, free, 0];
            let got = invoke(control, Method::Claim, words);
            same!(got, Err(refused(given)), "a line into {given:?}");
        }
    }
    Ok(())
}

fn unknown_calls(_: &mut Room) -> Outcome {
    for number in [14, 15, 16, 255, 256, 1 << 32, 1 << 63, u64::MAX] {
        let got = make_numbered(number, &Arguments::default());
        same!(got, Err(Error::UnknownCall), "call {number}");
    }
    let arguments = Arguments {
        capability: 1,
        info: MessageInfo(u64::MAX),
        words: [u64::MAX; 4],
        reply: u64::MAX,
        deadline: u64::MAX,
    };
    same!(
        make(SystemCall::Invoke, &arguments),
        Err(Error::InvalidArgument)
    );
    Ok(())
}

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

fn wild_addresses(room: &mut Room) -> Outcome {
    let message = Message::new(0, []);
    let endpoint = room.endpoint()?;
    let wild = [
        0,
        1 << 12,
        1 << 24,
        u64::MAX,
        u64::MAX - 1,
        1 << 63,
        endpoint.0.0 | 1 << 40,
        endpoint.0.0 | 1 << 63,
        0xffff_ffc0_8000_0000,
        0x40_0000,
    ];
    for address in wild {
        let cap = Cap(address);
        same!(
            Endpoint(cap).send(&message),
            Err(Error::NoCapability),
            "{address:#x}"
        );
        same!(Endpoint(cap).call(&message), Err(Error::NoCapability));
        same!(Endpoint(cap).receive(None), Err(Error::NoCapability));
        let reply = Reply(room.reply()?.0);
        same!(
            Endpoint(cap).reply_receive(reply, &message),
            Err(Error::NoCapability)
        );
        same!(
            Endpoint(endpoint.0).reply_receive(Reply(cap), &message),
            Err(Error::NoCapability)
        );
        same!(Reply(cap).send(&message), Err(Error::NoCapability));
        same!(Notification(cap).signal(), Err(Error::NoCapability));
        same!(Queue(cap).push(&message), Err(Error::NoCapability));
        same!(Thread(cap).resume(), Err(Error::NoCapability));
        same!(Node(cap).delete(1), Err(Error::NoCapability));
        let node = room.supplies.node();
        let slot = room.supplies.slot()?;
        let copied = node.copy(slot, cap);
        ensure!(copied.is_err(), "a copy of what is at {address:#x}");
        ensure!(node.take(slot, cap).is_err(), "moved from {address:#x}");
        let untyped = room.supplies.untyped();
        let made = untyped.retype(ObjectKind::Endpoint, 0, 1, Node(cap), 1);
        same!(made, Err(Error::NoCapability));
    }
    // A node in itself: an address can go round in it, but each turn takes a bit.
    let round = room.supplies.new_node(1)?;
    round.copy(1, round.0)?;
    let Cap(base) = round.0;
    let mut address = base;
    let mut shift = 64 - base.leading_zeros();
    shift = shift.next_multiple_of(12);
    while shift < 64 {
        address |= 1 << shift;
        let around = Node(Cap(address));
        same!(
            around.copy(1, endpoint.0),
            Err(Error::SlotTaken),
            "{address:#x}"
        );
        shift += 1;
    }
    // Indexes that a node does not have.
    let node = room.supplies.new_node(4)?;
    for index in [0, 16, 17, 1 << 32, u64::MAX] {
        same!(
            node.copy(index, endpoint.0),
            Err(Error::InvalidArgument),
            "index {index}"
        );
        same!(node.delete(index), Err(Error::InvalidArgument));
        same!(node.revoke(index), Err(Error::InvalidArgument));
        let made = room
            .supplies
            .untyped()
            .retype(ObjectKind::Reply, 0, 1, node, index);
        same!(made, Err(Error::InvalidArgument));
    }
    Ok(())
}

fn revoked_capabilities(room: &mut Room) -> Outcome {
    let node = room.supplies.node();
    let endpoint = room.endpoint()?;
    let child = room.mint(endpoint.0, Rights::ALL, 1)?;
    let grandchild = room.mint(child, Rights::READ, 0)?;
    node.revoke(room.supplies.index(child))?;
    same!(
        Endpoint(grandchild).receive_until(None, 0),
        Err(Error::NoCapability)
    );
    same!(Endpoint(child).receive_until(None, 0), Err(Error::TimedOut));
    node.revoke(room.supplies.index(endpoint.0))?;
    same!(
        Endpoint(child).receive_until(None, 0),
        Err(Error::NoCapability)
    );
    same!(endpoint.receive_until(None, 0), Err(Error::TimedOut));
    node.delete(room.supplies.index(endpoint.0))?;
    same!(endpoint.receive_until(None, 0), Err(Error::NoCapability));

    // A capability that moves keeps what was derived from it.
    let notification = room.notification()?;
    let badged = Notification(room.mint(notification.0, Rights::WRITE, 4)?);
    let slot = room.supplies.slot()?;
    node.take(slot, notification.0)?;
    same!(notification.signal(), Err(Error::NoCapability));
    badged.signal()?;
    same!(Notification(room.supplies.cap(slot)).wait_until(0), Ok(4));
    node.revoke(slot)?;
    same!(badged.signal(), Err(Error::NoCapability));
    Ok(())
}

fn refused_retypes_change_nothing(room: &mut Room) -> Outcome {
    let untyped = Untyped(room.supplies.object(ObjectKind::Untyped, 14)?);
    let node = room.supplies.new_node(9)?;
    let before = untyped.describe()?;
    node.copy(3, untyped.0).err();
    let endpoint = room.endpoint()?;
    node.copy(5, endpoint.0)?;
    let retype = |kind, size, count, index| untyped.retype(kind, size, count, node, index);
    same!(retype(ObjectKind::Endpoint, 0, 8, 1), Err(Error::SlotTaken));
    same!(
        retype(ObjectKind::Endpoint, 0, 256, 300),
        Err(Error::InvalidArgument)
    );
    same!(
        retype(ObjectKind::Endpoint, 0, 0, 1),
        Err(Error::InvalidArgument)
    );
    same!(
        retype(ObjectKind::Endpoint, 0, 257, 1),
        Err(Error::InvalidArgument)
    );
    same!(retype(ObjectKind::Frame, 12, 5, 6), Err(Error::NoMemory));
    same!(retype(ObjectKind::Frame, 21, 1, 6), Err(Error::NoMemory));
    same!(retype(ObjectKind::Untyped, 15, 1, 6), Err(Error::NoMemory));
    for size in [0, 1, 11, 13, 20, 30, 255] {
        same!(
            retype(ObjectKind::Frame, size, 1, 6),
            Err(Error::InvalidArgument)
        );
    }
    for size in [0, 4, 37, 64, 255] {
        same!(
            retype(ObjectKind::Untyped, size, 1, 6),
            Err(Error::InvalidArgument)
        );
    }
    for size in [0, 17, 64, 255] {
        same!(
            retype(ObjectKind::Node, size, 1, 6),
            Err(Error::InvalidArgument)
        );
    }
    for size in [0, 7, 17, 255] {
        same!(
            retype(ObjectKind::Queue, size, 1, 6),
            Err(Error::InvalidArgument)
        );
    }
    for kind in [11, 12, 255] {
        let words = [kind | 1 << 16, node.0.0, 6, 0];
        let got = invoke(untyped.0, Method::Retype, words);
        same!(got, Err(Error::InvalidArgument));
    }
    let huge = invoke(untyped.0, Method::Retype, [u64::MAX, node.0.0, 6, 0]);
    same!(huge, Err(Error::InvalidArgument));
    same!(untyped.describe()?, before);
    // Nothing but the endpoint is in the node.
    for index in (1..512).filter(|index| *index != 5) {
        node.copy(index, endpoint.0)?;
    }
    // Memory of devices becomes frames and untypeds only.
    let mut devices = room.information.untypeds().filter(|one| one.device);
    if let Some(device) = devices.find(|device| device.bits >= 12) {
        let slot = room.supplies.slot()?;
        for kind in ObjectKind::ALL {
            if matches!(kind, ObjectKind::Untyped | ObjectKind::Frame) {
                continue;
            }
            let size = if kind == ObjectKind::Queue { 8 } else { 1 };
            let made = device
                .untyped
                .retype(kind, size, 1, room.supplies.node(), slot);
            same!(made, Err(Error::InvalidArgument), "{kind:?} of a device");
        }
    }
    Ok(())
}

fn refused_node_calls_change_nothing(room: &mut Room) -> Outcome {
    let node = room.supplies.new_node(4)?;
    let endpoint = room.endpoint()?;
    let notification = room.notification()?;
    node.copy(1, endpoint.0)?;
    node.copy(2, notification.0)?;
    let empty = room.supplies.slot()?;
    let empty = room.supplies.cap(empty);
    same!(node.copy(1, notification.0), Err(Error::SlotTaken));
    same!(
        node.mint(1, notification.0, Rights::ALL, 1),
        Err(Error::SlotTaken)
    );
    same!(node.take(1, notification.0), Err(Error::SlotTaken));
    same!(node.take(3, empty), Err(Error::NoCapability));
    same!(node.copy(3, empty), Err(Error::NoCapability));
    same!(
        node.mint(3, empty, Rights::ALL, 1),
        Err(Error::NoCapability)
    );
    // An empty slot is no mistake.
    same!(node.delete(3), Ok(()));
    same!(node.revoke(3), Ok(()));
    // The notification is where it was, and no child of its is too many: it can be moved, and back.
    node.take(3, notification.0)?;
    same!(notification.signal(), Err(Error::NoCapability));
    let inner = Cap(node.0.0);
    ensure!(inner != notification.0, "two capabilities at one address");
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
    control.configure(s, 1000, 0)?;
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
