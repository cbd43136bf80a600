//! Executables that nobody would build, and system calls that nobody would make.

use mielin_kernel::abi::{MessageInfo, Method, ObjectKind, Retype, ThreadSlot, boot};
use mielin_kernel::{BootError, Request};
use proptest::prelude::*;

use crate::random::run;
use crate::world::{World, information, segment};

/// Whatever the segment is, the kernel starts with it as it is, or says what is wrong with it.
#[test]
fn odd_executables_start_or_are_refused() {
    let address = prop_oneof![
        any::<u64>(),
        0..0x2_0000u64,
        (0..40u32).prop_map(|bits| (1u64 << bits).wrapping_sub(5)),
        Just((1 << 38) - 4096),
    ];
    let bytes = prop_oneof![any::<u64>(), 0..0x9000u64, 0..0x20_0000u64];
    let inputs = (address, 0..8u32, 0..5000usize, bytes);
    run(600, &inputs, |(address, flags, content, memory_bytes)| {
        let world = World::<mielin_hal::paging::Sv39>::before_boot();
        let executable = segment(address, flags, &vec![7; content], memory_bytes);
        let given = information(&executable, &[]);
        match world.boot(given) {
            Ok(()) => world.check(),
            Err(error) => prop_assert!(!matches!(error, BootError::Kernel(_))),
        }
        Ok(())
    });
}

/// Any call with any arguments, of a thread that has a little of everything: whatever happens, the kernel goes on.
#[test]
fn random_registers_do_no_harm() {
    let small = || {
        prop_oneof![
            4 => 0..90u64,
            1 => any::<u64>(),
            1 => (0..90u64, 0..20u64).prop_map(|(first, second)| first | second << 12),
            1 => (12..40u32).prop_map(|bits| 1 << bits),
        ]
    };
    let info = prop_oneof![
        6 => (0..27u64, 0..6usize).prop_map(|(label, words)| MessageInfo::new(label, words).0),
        1 => any::<u64>(),
    ];
    let retype = prop_oneof![
        3 => small(),
        1 => (0..11usize, 0..22u8, 0..4u64)
            .prop_map(|(kind, size, count)| Retype::new(ObjectKind::ALL[kind], size, count).0),
    ];
    let number = prop_oneof![4 => Just(13), 3 => 0..15u64, 1 => any::<u64>()];
    let call = (
        number,
        small(),
        info,
        (retype, small(), small(), small()),
        small(),
    );
    let until = prop_oneof![0..2000u64, any::<u64>()];
    let histories = (
        any::<u64>(),
        prop::collection::vec((call, until, 0..20u8), 1..120),
    );
    run(400, &histories, |(interruptions, calls)| {
        let world = World::new();
        furnish(&world);
        world.arena().interruptions.set(interruptions);
        for ((number, capability, info, words, reply), until, event) in calls {
            match event {
                0 => world.kernel.interrupt(3),
                1 => world.kernel.tick(),
                2 => {
                    world.pass(50);
                }
                _ => {}
            }
            if world.kernel.current().is_none() {
                world.pass(1 << 40);
            }
            if world.kernel.current().is_none() {
                break;
            }
            let request = Request {
                number,
                capability,
                info: MessageInfo(info),
                words: [words.0, words.1, words.2, words.3],
                reply,
            };
            world.enter(&request, until, false);
            world.check();
        }
        Ok(())
    });
}

/// Gives the first thread one object of each kind, threads that run, and a node within its own.
fn furnish(world: &World) {
    for (kind, size) in [
        (ObjectKind::Untyped, 13),
        (ObjectKind::Node, 4),
        (ObjectKind::Endpoint, 0),
        (ObjectKind::Notification, 0),
        (ObjectKind::Queue, 8),
        (ObjectKind::AddressSpace, 0),
        (ObjectKind::PageTable, 0),
        (ObjectKind::PageTable, 0),
        (ObjectKind::PageTable, 0),
        (ObjectKind::Frame, 12),
        (ObjectKind::Reply, 0),
    ] {
        world.make(kind, size);
    }
    let line = world.free();
    let claim = [3, boot::NODE, line];
    world
        .invoke(boot::INTERRUPT_CONTROL, Method::Claim, &claim)
        .expect("it is free");
    for (priority, period) in [(255, 0), (200, 100)] {
        let made = world.make_thread(priority, 50, period);
        let equip = [ThreadSlot::FaultEndpoint as u64, 66];
        world
            .invoke(made.thread, Method::Equip, &equip)
            .expect("it is an endpoint");
        world
            .invoke(made.thread, Method::Resume, &[])
            .expect("it is a thread");
    }
}
