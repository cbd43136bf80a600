//! One straight path through each part of the kernel, with the invariants checked on the way.

use mielin_hal::paging::{FourLevel, PageTables, Stage1, Sv48};
use mielin_kernel::abi::{
    BUFFER_CAPABILITIES, BUFFER_INDEX, BUFFER_NODE, Error, MessageInfo, Method, ObjectKind, Rights,
    SystemCall, ThreadSlot, boot,
};
use mielin_kernel::{Capability, Machine, State, registers};

use crate::world::{After, World, message, request};

#[test]
fn a_kernel_starts() {
    let world = World::new();
    world.check();
    assert!(world.kernel.current().is_some());
    assert!(world.untyped(19) >= boot::UNTYPED_FIRST);
}

#[test]
fn capabilities_are_copied_moved_and_revoked() {
    let world = World::new();
    let before = world.arena().count();
    let endpoint = world.make(ObjectKind::Endpoint, 0);
    let [a, b, c] = [world.free(), world.free(), world.free()];
    let node = boot::NODE;
    assert!(world.invoke(node, Method::Copy, &[a, endpoint]).is_ok());
    let mint = [b, a, u64::from(Rights::WRITE.0), 77];
    assert!(world.invoke(node, Method::Mint, &mint).is_ok());
    world.check();
    let Capability::Endpoint { rights, badge, .. } = world.capability(b) else {
        panic!("no endpoint")
    };
    assert_eq!((rights, badge), (Rights::WRITE, 77));
    let again = [c, b, 15, 78];
    assert_eq!(world.invoke(node, Method::Mint, &again), Err(Error::Denied));
    assert!(world.invoke(node, Method::Move, &[c, b]).is_ok());
    world.check();
    assert!(world.invoke(node, Method::Revoke, &[endpoint]).is_ok());
    world.check();
    assert_eq!(world.capability(a), Capability::Null);
    assert_eq!(world.capability(c), Capability::Null);
    assert!(world.invoke(node, Method::Delete, &[endpoint]).is_ok());
    world.check();
    assert_eq!(world.arena().count(), before);
}

#[test]
fn a_server_without_time_answers_calls() {
    let world = World::new();
    let endpoint = world.make(ObjectKind::Endpoint, 0);
    let reply = world.make(ObjectKind::Reply, 0);
    let server = world.make_thread(255, 1000, 0);
    let (client, thread) = (world.thread(), world.thread_at(server.thread));
    assert!(world.invoke(server.thread, Method::Resume, &[]).is_ok());
    world.check();
    // The server runs when the first thread's slice is over, and waits.
    let yields = request(SystemCall::Yield, 0);
    assert_eq!(world.call(&yields), After::Done(Ok(())));
    assert_eq!(world.thread(), thread);
    let receive = message(SystemCall::Receive, endpoint, reply, &[]);
    assert_eq!(world.call(&receive), After::Waits);
    world.check();
    assert_eq!(world.thread(), client);
    assert!(
        world
            .invoke(server.context, Method::BindThread, &[0])
            .is_ok()
    );
    world.check();
    for round in 0..3 {
        let call = message(SystemCall::Call, endpoint, 0, &[1, 2, 3, round]);
        assert_eq!(world.call(&call), After::Waits);
        world.check();
        assert_eq!(world.thread(), thread);
        assert_eq!(world.register(thread, registers::WORDS[3]), round);
        let answer = message(SystemCall::ReplyReceive, endpoint, reply, &[9, round]);
        assert_eq!(world.call(&answer), After::Waits);
        world.check();
        assert_eq!(world.thread(), client);
        assert_eq!(world.after(client), After::Done(Ok(())));
        assert_eq!(world.register(client, registers::WORDS[1]), round);
        let info = MessageInfo(world.register(client, registers::INFO));
        assert_eq!((info.label(), info.words()), (7, 2));
    }
    // Whoever takes the thread away takes its place at the endpoint, too.
    assert!(
        world
            .invoke(boot::NODE, Method::Delete, &[server.thread])
            .is_ok()
    );
    world.check();
}

#[test]
fn everything_that_was_made_of_an_untyped_can_be_revoked() {
    let world = World::new();
    let untyped = world.untyped(19);
    let before = world.arena().count();
    for round in 0..3 {
        world.make(ObjectKind::Untyped, 12);
        world.make(ObjectKind::Node, 4);
        let endpoint = world.make(ObjectKind::Endpoint, 0);
        let notification = world.make(ObjectKind::Notification, 0);
        let queue = world.make(ObjectKind::Queue, 9);
        world.make(ObjectKind::AddressSpace, 0);
        world.make(ObjectKind::PageTable, 0);
        world.make(ObjectKind::Frame, 12);
        world.make(ObjectKind::Reply, 0);
        let thread = world.make_thread(3, 100, 1000);
        let equip = [ThreadSlot::FaultEndpoint as u64, endpoint];
        assert!(world.invoke(thread.thread, Method::Equip, &equip).is_ok());
        assert!(
            world
                .invoke(queue, Method::BindQueue, &[0, notification])
                .is_ok()
        );
        let bind = [notification];
        assert!(
            world
                .invoke(thread.thread, Method::BindNotification, &bind)
                .is_ok()
        );
        assert!(world.invoke(thread.thread, Method::Resume, &[]).is_ok());
        world.check();
        world.arena().interruptions.set(round);
        assert!(world.invoke(boot::NODE, Method::Revoke, &[untyped]).is_ok());
        world.check();
        assert_eq!(world.arena().count(), before);
    }
}

#[test]
fn notifications_and_queues() {
    let world = World::new();
    let notification = world.make(ObjectKind::Notification, 0);
    let queue = world.make(ObjectKind::Queue, 8);
    let me = world.thread();
    let bind = [0, notification];
    assert!(world.invoke(queue, Method::BindQueue, &bind).is_ok());
    let push = message(SystemCall::Push, queue, 0, &[4, 5]);
    assert_eq!(world.call(&push), After::Done(Ok(())));
    assert_eq!(world.call(&push), After::Done(Ok(())));
    assert_eq!(world.call(&push), After::Done(Err(Error::Full)));
    world.check();
    assert_eq!(
        world.call(&request(SystemCall::Receive, notification)),
        After::Done(Ok(()))
    );
    assert_eq!(world.register(me, registers::BADGE), 1);
    let pop = request(SystemCall::Pop, queue);
    assert_eq!(world.call(&pop), After::Done(Ok(())));
    assert_eq!(world.register(me, registers::WORDS[1]), 5);
    assert_eq!(world.call(&pop), After::Done(Ok(())));
    assert_eq!(world.call(&pop), After::Done(Err(Error::Empty)));
    world.check();
}

#[test]
fn interrupts_raise_notifications() {
    let world = World::new();
    let notification = world.make(ObjectKind::Notification, 0);
    let line = world.free();
    let claim = [5, boot::NODE, line];
    assert!(
        world
            .invoke(boot::INTERRUPT_CONTROL, Method::Claim, &claim)
            .is_ok()
    );
    let twice = [5, boot::NODE, world.free()];
    let refused = world.invoke(boot::INTERRUPT_CONTROL, Method::Claim, &twice);
    assert_eq!(refused, Err(Error::Bound));
    assert!(
        world
            .invoke(line, Method::BindInterrupt, &[notification])
            .is_ok()
    );
    assert!(world.arena().lines[5].get());
    world.check();
    world.kernel.interrupt(5);
    assert!(!world.arena().lines[5].get());
    assert_eq!(
        world.call(&request(SystemCall::Receive, notification)),
        After::Done(Ok(()))
    );
    assert!(world.invoke(line, Method::Acknowledge, &[]).is_ok());
    assert!(world.arena().lines[5].get());
    assert!(world.invoke(boot::NODE, Method::Delete, &[line]).is_ok());
    assert!(!world.arena().lines[5].get());
    world.check();
}

fn pages<P: PageTables>() {
    let world = World::<P>::of();
    let space = world.make(ObjectKind::AddressSpace, 0);
    let frame = world.make(ObjectKind::Frame, 12);
    let map = |what, words: &[u64]| world.invoke(what, Method::Map, words);
    let at = 0x4000_0000;
    assert_eq!(map(frame, &[space, at, 3]), Err(Error::NoTable));
    let tables: Vec<u64> = (0..P::LEVELS)
        .map(|_| world.make(ObjectKind::PageTable, 0))
        .collect();
    for table in &tables {
        assert!(map(*table, &[space, at]).is_ok());
        world.check();
    }
    let more = world.make(ObjectKind::PageTable, 0);
    assert_eq!(map(more, &[space, at]), Err(Error::AlreadyMapped));
    assert_eq!(map(frame, &[space, at, 11]), Err(Error::InvalidArgument));
    assert_eq!(map(frame, &[space, at + 1, 3]), Err(Error::BadAddress));
    assert_eq!(map(frame, &[space, P::USER_END, 3]), Err(Error::BadAddress));
    assert!(map(frame, &[space, at, 3]).is_ok());
    world.check();
    assert!(!world.arena().flushes.borrow().is_empty());
    let copy = world.free();
    assert!(
        world
            .invoke(boot::NODE, Method::Mint, &[copy, frame, 1, 0])
            .is_ok()
    );
    assert_eq!(map(copy, &[space, at + 4096, 3]), Err(Error::Denied));
    assert!(map(copy, &[space, at + 4096, 1]).is_ok());
    world.check();
    assert!(world.invoke(tables[1], Method::Unmap, &[]).is_ok());
    world.check();
    assert!(map(tables[1], &[space, at]).is_ok());
    world.check();
    assert!(world.invoke(boot::NODE, Method::Delete, &[space]).is_ok());
    world.check();
    for table in &tables {
        assert!(world.invoke(boot::NODE, Method::Delete, &[*table]).is_ok());
        world.check();
    }
}

#[test]
fn pages_are_mapped_in_all_formats() {
    pages::<mielin_hal::paging::Sv39>();
    pages::<Sv48>();
    pages::<Stage1>();
    pages::<FourLevel>();
}

#[test]
fn faults_come_as_messages() {
    let world = World::new();
    let endpoint = world.make(ObjectKind::Endpoint, 0);
    let reply = world.make(ObjectKind::Reply, 0);
    let other = world.make_thread(255, 1000, 0);
    let (me, thread) = (world.thread(), world.thread_at(other.thread));
    let equip = [ThreadSlot::FaultEndpoint as u64, endpoint];
    assert!(world.invoke(other.thread, Method::Equip, &equip).is_ok());
    assert!(world.invoke(other.thread, Method::Resume, &[]).is_ok());
    let receive = message(SystemCall::Receive, endpoint, reply, &[]);
    assert_eq!(world.call(&receive), After::Waits);
    assert_eq!(world.thread(), thread);
    world.kernel.fault(mielin_kernel::Fault {
        kind: mielin_kernel::abi::FaultKind::Page,
        address: 0x1234,
        access: 1,
    });
    world.check();
    assert_eq!(world.thread(), me);
    assert_eq!(world.register(me, registers::WORDS[2]), 0x1234);
    assert_eq!(world.arena().object(thread).state(), State::Called);
    let answer = message(SystemCall::Reply, 0, reply, &[]);
    assert_eq!(world.call(&answer), After::Done(Ok(())));
    assert_eq!(world.arena().object(thread).state(), State::Ready);
    world.check();
}

/// Messages carry capabilities if the sender may grant, to places that the receiver names, until one does not go.
#[test]
fn capabilities_go_with_messages() {
    let world = World::new();
    let endpoint = world.make(ObjectKind::Endpoint, 0);
    let weak = world.free();
    let mint = [weak, endpoint, u64::from(Rights::WRITE.0), 0];
    assert!(world.invoke(boot::NODE, Method::Mint, &mint).is_ok());
    let node = world.make(ObjectKind::Node, 2);
    let given = [
        world.make(ObjectKind::Reply, 0),
        world.make(ObjectKind::Notification, 0),
    ];
    let receiver = world.make_thread(255, 1000, 0);
    let frame = world.make(ObjectKind::Frame, 12);
    let equip = [ThreadSlot::Buffer as u64, frame, 1024];
    assert!(world.invoke(receiver.thread, Method::Equip, &equip).is_ok());
    assert!(world.invoke(receiver.thread, Method::Resume, &[]).is_ok());
    let buffer = |of: mielin_kernel::Ref<mielin_kernel::Thread>| {
        let at = world.arena().object(of).buffer().expect("it has one");
        let page: &mielin_kernel::Page = world
            .arena()
            .object(mielin_kernel::Ref::at(at & !0xfff).expect("a page"));
        &page[(at & 0xfff) as usize / 8..]
    };
    let (me, other) = (world.thread(), world.thread_at(receiver.thread));
    buffer(other)[BUFFER_NODE].set(node);
    for (word, address) in buffer(me)[BUFFER_CAPABILITIES..]
        .iter()
        .zip([given[0], given[1], 999])
    {
        word.set(address);
    }
    let receive = message(SystemCall::Receive, endpoint, 0, &[]);
    let send = |by: u64, index: u64, count: usize| {
        buffer(other)[BUFFER_INDEX].set(index);
        assert_eq!(
            world.call(&request(SystemCall::Yield, 0)),
            After::Done(Ok(()))
        );
        assert_eq!(world.thread(), other);
        assert_eq!(world.call(&receive), After::Waits);
        let mut send = message(SystemCall::Send, by, 0, &[1]);
        send.info = send.info.with_capabilities(count);
        assert_eq!(world.call(&send), After::Done(Ok(())));
        world.check();
        MessageInfo(world.register(other, registers::INFO)).capabilities()
    };
    let empty = || {
        for index in 1..4 {
            assert!(world.invoke(node, Method::Delete, &[index]).is_ok());
        }
    };
    // The receiver goes first the next time: it is of the same priority, and comes back when this one gives up its time.
    assert_eq!(send(endpoint, 1, 2), 2);
    assert_eq!(send(endpoint, 1, 2), 0);
    empty();
    assert_eq!(send(endpoint, 3, 2), 1);
    empty();
    assert_eq!(send(endpoint, 1, 3), 2);
    empty();
    assert_eq!(send(weak, 1, 2), 0);
    assert_eq!(send(endpoint, 0, 2), 0);
    assert_eq!(send(endpoint, u64::MAX, 2), 0);
    assert_eq!(send(endpoint, 5, 2), 0);
    // What was given goes with what it was made of.
    assert_eq!(send(endpoint, 1, 1), 1);
    assert!(
        world
            .invoke(boot::NODE, Method::Revoke, &[given[0]])
            .is_ok()
    );
    assert_eq!(
        world.invoke(node, Method::Move, &[2, node | 1 << 12]),
        Err(Error::NoCapability)
    );
    world.check();
}
