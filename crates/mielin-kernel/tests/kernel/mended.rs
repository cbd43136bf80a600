//! What was found by reading, each with the history that showed it.

use mielin_kernel::abi::{
    Error, Method, ObjectKind, Retype, Rights, SystemCall, ThreadSlot, UNTYPED_BITS_MAX, boot,
};
use mielin_kernel::{BootError, Capability, Machine, Region, State};

use crate::world::{After, POOL_BEGIN, POOL_END, World, executable, information, message, request};

#[test]
fn a_node_without_the_right_to_change_it_keeps_what_it_has() {
    let world = World::<mielin_hal::paging::Sv39>::of();
    let node = world.make(ObjectKind::Node, 4);
    let endpoint = world.make(ObjectKind::Endpoint, 0);
    assert!(world.invoke(node, Method::Move, &[5, endpoint]).is_ok());
    let weak = world.free();
    let mint = [weak, node, u64::from(Rights::READ.0), 0];
    assert!(world.invoke(boot::NODE, Method::Mint, &mint).is_ok());
    let by_weak = weak | 5 << 12;
    let to = world.free();
    let moved = world.invoke(boot::NODE, Method::Move, &[to, by_weak]);
    assert_eq!(moved, Err(Error::Denied));
    assert!(
        world
            .invoke(boot::NODE, Method::Copy, &[to, by_weak])
            .is_ok()
    );
    let by_strong = node | 5 << 12;
    let other = world.free();
    assert!(
        world
            .invoke(boot::NODE, Method::Move, &[other, by_strong])
            .is_ok()
    );
    world.check();
}

#[test]
fn the_largest_untyped_does_not_forget_that_it_is_used() {
    let world = World::<mielin_hal::paging::Sv39>::before_boot();
    let begin = 1 << 36;
    let registers = Region {
        begin,
        end: begin << 1,
        device: true,
    };
    let executable = executable();
    let regions = [registers];
    world
        .boot(information(&executable, &regions))
        .expect("it starts");
    let large = (boot::UNTYPED_FIRST..64)
        .find(|slot| {
            matches!(world.capability(*slot), Capability::Untyped { base, .. } if base == begin)
        })
        .expect("the registers are somebody's");
    let all = Retype::new(ObjectKind::Untyped, UNTYPED_BITS_MAX, 1).0;
    let retype = |at| world.invoke(large, Method::Retype, &[all, boot::NODE, at]);
    assert!(retype(world.free()).is_ok());
    world.check();
    assert_eq!(retype(world.free()), Err(Error::NoMemory));
    world.check();
}

#[test]
fn a_deadline_holds_when_the_message_waited() {
    let world = World::<mielin_hal::paging::Sv39>::of();
    let endpoint = world.make(ObjectKind::Endpoint, 0);
    let reply = world.make(ObjectKind::Reply, 0);
    let client = world.make_thread(200, 1000, 0);
    let thread = world.thread_at(client.thread);
    assert!(world.invoke(client.thread, Method::Resume, &[]).is_ok());
    let idle = world.make(ObjectKind::Notification, 0);
    let wait = request(SystemCall::ReceiveUntil, idle);
    assert_eq!(
        world.enter(&wait, world.arena().now() + 10, false),
        After::Waits
    );
    assert_eq!(world.thread(), thread);
    let call = message(SystemCall::CallUntil, endpoint, 0, &[]);
    assert_eq!(
        world.enter(&call, world.arena().now() + 500, false),
        After::Waits
    );
    assert_eq!(world.pass(10), 10);
    // The server has time of its own, so the client lends none.
    let receive = message(SystemCall::Receive, endpoint, reply, &[]);
    assert_eq!(world.call(&receive), After::Done(Ok(())));
    world.check();
    assert_eq!(world.arena().object(thread).state(), State::Called);
    assert_eq!(world.arena().object(thread).alarm(), Some(1500));
    world.arena().clock.set(1500);
    world.kernel.tick();
    assert_eq!(world.after(thread), After::Done(Err(Error::TimedOut)));
    world.check();
}

#[test]
fn a_revocation_that_cuts_its_own_way_says_so() {
    let world = World::<mielin_hal::paging::Sv39>::of();
    let untyped = world.make(ObjectKind::Untyped, 14);
    let objects = |kind, size, count| {
        let at = world.free();
        for _ in 1..count {
            world.free();
        }
        let words = [Retype::new(kind, size, count).0, boot::NODE, at];
        assert!(world.invoke(untyped, Method::Retype, &words).is_ok());
        at
    };
    objects(ObjectKind::Endpoint, 0, 3);
    // The way to the node leads through a node that is made of what is revoked.
    let way = objects(ObjectKind::Node, 2, 1);
    assert!(world.invoke(way, Method::Copy, &[1, boot::NODE]).is_ok());
    let revoked = world.invoke(way | 1 << 12, Method::Revoke, &[untyped]);
    assert_eq!(revoked, Err(Error::NoCapability));
    world.check();
    assert!(world.invoke(boot::NODE, Method::Revoke, &[untyped]).is_ok());
    assert_eq!(
        world.arena().object(world.slot(untyped)).first_child(),
        None
    );
    world.check();
}

#[test]
fn a_long_line_of_copies_is_revoked_step_by_step() {
    let world = World::<mielin_hal::paging::Sv39>::of();
    let endpoint = world.make(ObjectKind::Endpoint, 0);
    let mut last = endpoint;
    for _ in 0..50 {
        let next = world.free();
        assert!(
            world
                .invoke(boot::NODE, Method::Copy, &[next, last])
                .is_ok()
        );
        last = next;
    }
    // It may stop after each.
    world.arena().interruptions.set(u64::MAX);
    let revoke = crate::world::invocation(boot::NODE, Method::Revoke, &[endpoint]);
    let mut stops = 0;
    while world.enter(&revoke, 0, false) == After::Again {
        world.check();
        stops += 1;
    }
    assert_eq!(stops, 50);
    assert_eq!(
        world.arena().object(world.slot(endpoint)).first_child(),
        None
    );
}

#[test]
fn malformed_information_is_refused() {
    let executable = executable();
    let region = |begin, end, device| Region { begin, end, device };
    let end = |end| region(POOL_BEGIN, end, false);
    let refused = |pool: Region, regions: &[Region]| {
        let world = World::<mielin_hal::paging::Sv39>::before_boot();
        let mut with = information(&executable, regions);
        with.pool = pool;
        world.boot(with).expect_err("it is malformed")
    };
    assert_eq!(refused(end(POOL_BEGIN), &[]), BootError::NoMemory);
    assert_eq!(refused(end(0), &[]), BootError::NoMemory);
    let highest = region(u64::MAX - 100, u64::MAX, false);
    assert_eq!(refused(highest, &[]), BootError::NoMemory);
    let pool = end(POOL_END);
    let overlaps = BootError::Overlap(POOL_END - 4096);
    assert_eq!(
        refused(pool, &[region(POOL_END - 4096, POOL_END + 4096, false)]),
        overlaps
    );
    assert_eq!(
        refused(pool, &[region(POOL_END - 4096, POOL_END + 4096, true)]),
        overlaps
    );
    let twice = [
        region(0x30_0000, 0x40_0000, false),
        region(0x3f_0000, 0x50_0000, true),
    ];
    assert_eq!(refused(pool, &twice), BootError::Overlap(0x3f_0000));
    // What no page can be, nobody gets.
    for odd in [
        region(u64::MAX - 100, u64::MAX, true),
        region(u64::MAX - 100, u64::MAX, false),
        region(5, 3, false),
        region(1 << 50, u64::MAX, true),
    ] {
        let world = World::<mielin_hal::paging::Sv39>::before_boot();
        let regions = [odd];
        world
            .boot(information(&executable, &regions))
            .expect("it starts");
        world.check();
    }
    for pages in 1..110 {
        let world = World::<mielin_hal::paging::Sv39>::before_boot();
        let mut with = information(&executable, &[]);
        with.pool.end = POOL_BEGIN + pages * 4096;
        match world.boot(with) {
            Ok(()) => world.check(),
            Err(error) => assert_eq!(error, BootError::NoMemory),
        }
    }
    let archive = |physical, bytes| {
        let world = World::<mielin_hal::paging::Sv39>::before_boot();
        let mut with = information(&executable, &[]);
        with.archive = mielin_kernel::Given { physical, bytes };
        world.boot(with)
    };
    assert_eq!(
        archive(POOL_BEGIN, 4096),
        Err(BootError::Overlap(POOL_BEGIN))
    );
    assert!(archive(0x1000, u64::MAX).is_err());
    assert!(archive(0x1000, 1 << 40).is_err());
    assert!(archive(u64::MAX - 5, 100).is_err());
    assert!(archive(0x1001, 100).is_err());
}

#[test]
fn time_that_is_used_up_is_lent_but_not_used() {
    let world = World::new();
    let endpoint = world.make(ObjectKind::Endpoint, 0);
    let reply = world.make(ObjectKind::Reply, 0);
    let server = world.make_thread(255, 1000, 0);
    let (client, serves) = (world.thread(), world.thread_at(server.thread));
    assert!(world.invoke(server.thread, Method::Resume, &[]).is_ok());
    let give_way = request(SystemCall::Yield, 0);
    assert_eq!(world.call(&give_way), After::Done(Ok(())));
    let receive = message(SystemCall::Receive, endpoint, reply, &[]);
    assert_eq!(world.call(&receive), After::Waits);
    let unbind = world.invoke(server.context, Method::BindThread, &[0]);
    assert!(unbind.is_ok());
    // Another one, who has a server for when its budget is used up.
    let other = world.make_thread(255, 100, 10_000);
    let words = [ThreadSlot::TimeoutEndpoint as u64, endpoint];
    assert!(world.invoke(other.thread, Method::Equip, &words).is_ok());
    assert!(world.invoke(other.thread, Method::Resume, &[]).is_ok());
    // The server serves the first, when the other one uses up what it has.
    let call = message(SystemCall::Call, endpoint, 0, &[1]);
    assert_eq!(world.call(&call), After::Waits);
    assert_eq!(world.thread(), serves);
    world.call(&give_way);
    assert_eq!(world.thread(), world.thread_at(other.thread));
    world.pass(100);
    world.check();
    assert_eq!(world.thread(), serves);
    // Next it would serve that one, by its time.
    let answer = message(SystemCall::ReplyReceive, endpoint, reply, &[2]);
    world.call(&answer);
    world.check();
    assert_eq!(world.thread(), client);
    let lent_at = world.arena().now();
    for _ in 0..1000 {
        if world.thread() == serves {
            break;
        }
        world.pass(100);
        world.check();
    }
    assert_eq!(world.thread(), serves);
    assert!(world.arena().now() > lent_at + 9000);
}
