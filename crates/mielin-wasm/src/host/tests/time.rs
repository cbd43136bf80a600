//! Clocks, sleeping and polling.

use super::super::wasi::{clock, poll};
use super::*;
use crate::state::Pending;

#[test]
fn clocks_need_their_capability_and_never_go_back() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.call(|call| clock::clock_time_get(call, 1, 0, 0)), 76);
    assert_eq!(bench.call(|call| clock::clock_res_get(call, 1, 0)), 76);
    let denied = bench.desk.denied.lock().unwrap().clone();
    assert_eq!(
        denied,
        [
            (Capability::Clock, "clock_time_get"),
            (Capability::Clock, "clock_res_get")
        ]
    );

    let mut bench = Bench::new(&["clock"]);
    let mut last = 0;
    for _ in 0..100 {
        assert_eq!(bench.call(|call| clock::clock_time_get(call, 1, 0, 0)), 0);
        assert!(bench.u64(0) >= last);
        last = bench.u64(0);
    }
    assert_eq!(bench.call(|call| clock::clock_time_get(call, 0, 0, 0)), 0);
    assert!(
        bench.u64(0) > 1_700_000_000_000_000_000,
        "it is later than 2023"
    );
    assert_eq!(bench.call(|call| clock::clock_res_get(call, 0, 0)), 0);
    assert!(bench.u64(0) > 0);
    for (id, expected) in [(2, 58), (3, 58), (4, 28), (u32::MAX, 28)] {
        assert_eq!(
            bench.call(|call| clock::clock_time_get(call, id, 0, 0)),
            expected
        );
    }
    assert_eq!(
        bench.call(|call| clock::clock_time_get(call, 1, 0, END - 7)),
        21
    );
}

/// A subscription to a clock, as `poll_oneoff` reads it.
fn clock_subscription(userdata: u64, id: u32, timeout_ns: u64, absolute: bool) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[0..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[16..20].copy_from_slice(&id.to_le_bytes());
    bytes[24..32].copy_from_slice(&timeout_ns.to_le_bytes());
    bytes[40] = u8::from(absolute);
    bytes
}

fn fd_subscription(userdata: u64, kind: u8, fd: u32) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[0..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[8] = kind;
    bytes[16..20].copy_from_slice(&fd.to_le_bytes());
    bytes
}

#[test]
fn a_sleep_blocks_until_its_deadline_however_often_it_is_asked_again() {
    let mut bench = Bench::new(&["clock"]);
    bench.put(0, &clock_subscription(5, 1, 3_600_000_000_000, false));
    let poll = |call: &mut Call<'_>| poll::poll_oneoff(call, 0, 1000, 1, 2000);
    let wait = bench.blocks(poll);
    let deadline = wait.deadline_ns.unwrap();
    assert!(!wait.message);
    assert_eq!(bench.blocks(poll), wait, "asking again does not start anew");
    // The pending call travels, and the clock with it.
    bench.context.host = HostState::from_sections(&bench.context.host.to_sections()).unwrap();
    assert_eq!(bench.blocks(poll), wait);

    // An hour earlier it was issued; now it is over.
    bench.context.host.pending = Some(Pending::Poll { since_ns: 0 });
    bench.put(0, &clock_subscription(5, 1, 1, false));
    assert!(bench.context.host.now_ns() >= 1 && deadline > 1);
    assert_eq!(bench.call(poll), 0);
    assert_eq!(
        (bench.u32(2000), bench.u64(1000), bench.memory[1010]),
        (1, 5, 0)
    );

    bench.put(0, &clock_subscription(6, 1, 0, true));
    assert_eq!(bench.call(poll), 0);
    assert_eq!(bench.u64(1000), 6);
    bench.put(0, &clock_subscription(7, 0, u64::MAX, true));
    assert!(bench.blocks(poll).deadline_ns.unwrap() > deadline);
}

#[test]
fn of_several_subscriptions_the_ready_ones_are_reported() {
    let mut bench = Bench::new(&["clock"]);
    bench.context.host = bench.context.host.clone().with_stdin(*b"abc");
    let subscriptions = [
        clock_subscription(1, 1, 3_600_000_000_000, false),
        fd_subscription(2, 1, 0),
        fd_subscription(3, 2, 1),
        fd_subscription(4, 2, 9),
        fd_subscription(5, 1, 1),
        clock_subscription(6, 2, 0, false),
    ];
    bench.put(0, &subscriptions.concat());
    assert_eq!(
        bench.call(|call| poll::poll_oneoff(call, 0, 1000, 6, 2000)),
        0
    );
    assert_eq!(bench.u32(2000), 5);
    let events: Vec<(u64, u16, u8, u64)> = (0..5)
        .map(|index| {
            let at = 1000 + 32 * index;
            let error = u16::from_le_bytes([bench.memory[at + 8], bench.memory[at + 9]]);
            let at = at as u32;
            (
                bench.u64(at),
                error,
                bench.memory[at as usize + 10],
                bench.u64(at + 16),
            )
        })
        .collect();
    let expected = [
        (2, 0, 1, 3),
        (3, 0, 2, 4096),
        (4, 8, 2, 0),
        (5, 8, 1, 0),
        (6, 58, 0, 0),
    ];
    assert_eq!(events, expected);
}

#[test]
fn hostile_polls_are_refused() {
    let mut bench = Bench::new(&["clock"]);
    let mut check = |subscriptions, events, count, out, expected: Errno| {
        let poll = |call: &mut Call<'_>| poll::poll_oneoff(call, subscriptions, events, count, out);
        assert_eq!(
            bench.call(poll),
            errno(expected),
            "{subscriptions} {events} {count} {out}"
        );
    };
    check(0, 1000, 0, 2000, Errno::Inval);
    check(0, 1000, 1025, 2000, Errno::Inval);
    check(0, 1000, u32::MAX, 2000, Errno::Inval);
    check(END - 47, 1000, 1, 2000, Errno::Fault);
    check(0, END - 31, 1, 2000, Errno::Fault);
    check(0, u32::MAX, 1, 2000, Errno::Fault);
    check(0, 1000, 1, END - 3, Errno::Fault);
    bench.put(8, &[3]);
    assert_eq!(
        bench.call(|call| poll::poll_oneoff(call, 0, 1000, 1, 2000)),
        28
    );

    let mut bench = Bench::new(&[]);
    bench.put(0, &clock_subscription(5, 1, 0, false));
    assert_eq!(
        bench.call(|call| poll::poll_oneoff(call, 0, 1000, 1, 2000)),
        76
    );
    assert_eq!(
        *bench.desk.denied.lock().unwrap(),
        [(Capability::Clock, "poll_oneoff")]
    );
    bench.put(0, &fd_subscription(5, 2, 1));
    assert_eq!(
        bench.call(|call| poll::poll_oneoff(call, 0, 1000, 1, 2000)),
        0
    );
}
