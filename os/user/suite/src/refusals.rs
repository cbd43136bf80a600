//! What the kernel refuses: every call, method and argument by every kind of capability, and addresses of none.

use mielin_user::abi::{MessageInfo, Method, SystemCall};
use mielin_user::objects::{
    Endpoint, Message, Node, Notification, Queue, Reply, Thread, Untyped, invoke,
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

/// Where methods take capabilities.
fn arguments(free: u64) -> [Argument; 13] {
    let node = ThreadSlot::Node as u64;
    let space = ThreadSlot::AddressSpace as u64;
    let buffer = ThreadSlot::Buffer as u64;
    let told = ThreadSlot::FaultEndpoint as u64;
    let late = ThreadSlot::TimeoutEndpoint as u64;
    let retype = mielin_user::abi::Retype::new(ObjectKind::Endpoint, 0, 1).0;
    [
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
    ]
}

/// All of those that are of the wrong kind are refused.
fn every_argument_by_every_kind(room: &mut Room) -> Outcome {
    let kinds = one_of_each(room)?;
    let free = room.supplies.slot()?;
    for (kind, method, words, place, accepted) in arguments(free) {
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
