//! What nobody waits for: notifications, queues and interrupts.

use mielin_user::abi::NOTIFICATION_LABEL;
use mielin_user::objects::{
    Endpoint, Interrupt, Message, Node, Notification, Queue, Reply, Untyped,
};
use mielin_user::{Cap, Error, ObjectKind, Rights};

use crate::room::{ABOVE, BELOW, Outcome, Place, Room, count, ensure, rest, same, share, shared};
use crate::{Test, console};

pub(crate) const TESTS: &[Test] = &[
    ("signals::bits_gather", bits_gather),
    ("signals::each_wakes_one", each_wakes_one),
    ("signals::between_spaces", between_spaces),
    ("signals::bound_to_a_thread", bound_to_a_thread),
    ("signals::dead_notification", dead_notification),
    ("signals::queues_keep_order", queues_keep_order),
    ("signals::queues_here", |room| {
        back_pressure(room, Place::Here)
    }),
    ("signals::queues_apart", |room| {
        back_pressure(room, Place::Apart)
    }),
    (
        "signals::queues_and_dead_notifications",
        queues_and_dead_notifications,
    ),
    ("signals::lines", lines),
    (
        "signals::interrupts_wait_for_acknowledgement",
        interrupts_wait,
    ),
    ("signals::interrupts_under_load", interrupts_under_load),
];

fn bits_gather(room: &mut Room) -> Outcome {
    let notification = room.notification()?;
    same!(notification.wait_until(0), Err(Error::TimedOut));
    for bit in [0, 3, 63] {
        Notification(room.mint(notification.0, Rights::WRITE, 1 << bit)?).signal()?;
    }
    same!(notification.wait(), Ok(1 << 63 | 1 << 3 | 1));
    same!(notification.wait_until(0), Err(Error::TimedOut));
    // Without a badge it is the lowest bit.
    notification.signal()?;
    notification.signal()?;
    same!(notification.wait_until(room.soon(1)), Ok(1));
    same!(notification.wait_until(0), Err(Error::TimedOut));
    Ok(())
}

extern "C" fn wait_once(number: u64, _: u64) -> ! {
    let bits = Notification(Cap(1)).wait();
    share(
        10 + number as usize,
        bits.unwrap_or_else(|error| 1000 + error as u64),
    );
    count(0);
    rest()
}

fn each_wakes_one(room: &mut Room) -> Outcome {
    let notification = room.notification()?;
    for number in 0..5 {
        room.working(Place::Here, wait_once, number, BELOW, &[notification.0])?;
        room.settle()?;
    }
    for number in 0..5 {
        let bit = 1 << number;
        Notification(room.mint(notification.0, Rights::WRITE, bit)?).signal()?;
        room.settle()?;
        same!(shared(0), number + 1);
        same!(shared(10 + number as usize), bit, "waiter {number}");
    }
    same!(notification.wait_until(0), Err(Error::TimedOut));
    Ok(())
}

fn between_spaces(room: &mut Room) -> Outcome {
    extern "C" fn ping(_: u64, _: u64) -> ! {
        loop {
            if Notification(Cap(1)).wait().is_err() || Notification(Cap(2)).signal().is_err() {
                rest()
            }
        }
    }
    let (there, back) = (room.notification()?, room.notification()?);
    for priority in [BELOW, ABOVE] {
        let worker = room.working(Place::Apart, ping, 0, priority, &[there.0, back.0])?;
        for _ in 0..500 {
            there.signal()?;
            same!(back.wait(), Ok(1));
        }
        worker.thread.suspend()?;
    }
    Ok(())
}

fn bound_to_a_thread(room: &mut Room) -> Outcome {
    let (endpoint, reply) = (room.endpoint()?, room.reply()?);
    let notification = room.notification()?;
    let signals = Notification(room.mint(notification.0, Rights::WRITE, 0x50)?);
    room.information.thread().bind(Some(notification))?;
    // Raised before.
    signals.signal()?;
    let got = endpoint.receive(Some(reply))?;
    same!(
        (got.info.label(), got.info.words(), got.badge),
        (NOTIFICATION_LABEL, 0, 0x50)
    );
    signals.signal()?;
    let got = endpoint.reply_receive_until(reply, &Message::new(0, []), 0)?;
    same!((got.info.label(), got.badge), (NOTIFICATION_LABEL, 0x50));
    same!(endpoint.receive_until(Some(reply), 0), Err(Error::TimedOut));
    // Raised while it receives.
    extern "C" fn later(_: u64, _: u64) -> ! {
        for _ in 0..3 {
            if Notification(Cap(1)).signal().is_err() {
                rest()
            }
        }
        let got = Endpoint(Cap(2)).call(&Message::new(0, [4]));
        share(1, got.map_or(0, |got| got.words[0]));
        rest()
    }
    room.working(Place::Apart, later, 0, BELOW, &[signals.0, endpoint.0])?;
    let got = endpoint.receive(Some(reply))?;
    same!((got.info.label(), got.badge), (NOTIFICATION_LABEL, 0x50));
    room.settle()?;
    let got = endpoint.receive(Some(reply))?;
    same!((got.info.label(), got.badge), (NOTIFICATION_LABEL, 0x50));
    // The reply object is free again: it answers the call.
    let got = endpoint.receive(Some(reply))?;
    same!((got.info.label(), got.words[0]), (0, 4));
    reply.send(&Message::new(0, [44]))?;
    room.information.thread().bind(None)?;
    signals.signal()?;
    same!(endpoint.receive_until(Some(reply), 0), Err(Error::TimedOut));
    same!(notification.wait_until(0), Ok(0x50));
    // Bound while the thread receives, and raised already.
    extern "C" fn receive(_: u64, _: u64) -> ! {
        let got = Endpoint(Cap(1)).receive(Some(Reply(Cap(2))));
        share(2, got.map_or(0, |got| got.badge));
        rest()
    }
    let worker = room.working(Place::Here, receive, 0, BELOW, &[endpoint.0, reply.0])?;
    room.settle()?;
    signals.signal()?;
    worker.thread.bind(Some(notification))?;
    room.settle()?;
    same!(shared(2), 0x50);
    Ok(())
}

fn dead_notification(room: &mut Room) -> Outcome {
    let notification = room.notification()?;
    let bound = room.supplies.thread()?;
    bound.bind(Some(notification))?;
    for number in 0..3 {
        room.working(Place::Here, wait_once, number, BELOW, &[notification.0])?;
    }
    room.settle()?;
    let slot = room.supplies.index(notification.0);
    room.supplies.node().revoke(slot)?;
    room.supplies.node().delete(slot)?;
    room.settle()?;
    for number in 0..3 {
        same!(shared(10 + number), 1000 + Error::Gone as u64);
    }
    // The thread is bound to nothing any more.
    let other = room.notification()?;
    bound.bind(Some(other))?;
    Ok(())
}

fn queues_keep_order(room: &mut Room) -> Outcome {
    for bits in [8, 9, 12] {
        let queue = room.supplies.queue(bits)?;
        let badged = Queue(room.mint(queue.0, Rights::WRITE, 31)?);
        let capacity = ((1 << bits) - 128) / 64;
        for round in 0..3 {
            // Each round begins at another place of the ring.
            for number in 0..capacity {
                badged.push(&Message::new(round, [number, round]))?;
            }
            same!(queue.push(&Message::new(0, [])), Err(Error::Full));
            for number in 0..capacity {
                let got = queue.pop()?;
                same!(got.words[..2], [number, round]);
                same!(
                    (got.info.label(), got.info.words(), got.badge),
                    (round, 2, 31)
                );
            }
            same!(queue.pop(), Err(Error::Empty));
            queue.push(&Message::new(0, []))?;
            queue.pop()?;
        }
        let long = Message::new(0, [0; 4]).long(5);
        same!(queue.push(&long), Err(Error::InvalidArgument));
        let carries = Message::new(0, []).with_capabilities(1);
        same!(queue.push(&carries), Err(Error::InvalidArgument));
        same!(queue.pop(), Err(Error::Empty));
    }
    Ok(())
}

fn back_pressure(room: &mut Room, place: Place) -> Outcome {
    const MESSAGES: u64 = 1000;
    extern "C" fn produce(_: u64, _: u64) -> ! {
        let (queue, room_again) = (Queue(Cap(1)), Notification(Cap(2)));
        let mut full = 0;
        for number in 0..MESSAGES {
            while queue.push(&Message::new(1, [number, full])).is_err() {
                full += 1;
                if room_again.wait().is_err() {
                    rest()
                }
            }
        }
        rest()
    }
    let queue = room.supplies.queue(9)?;
    let (some, room_again) = (room.notification()?, room.notification()?);
    queue.tell_of_messages(Some(some))?;
    same!(queue.tell_of_messages(Some(some)), Err(Error::SlotTaken));
    queue.tell_of_room(Some(room_again))?;
    let worker = room.working(place, produce, 0, BELOW, &[queue.0, room_again.0])?;
    let (mut next, mut full) = (0, 0);
    while next < MESSAGES {
        match queue.pop() {
            Ok(got) => {
                same!(got.words[0], next);
                full = got.words[1];
                next += 1;
            }
            Err(Error::Empty) => {
                some.wait_until(room.soon(1000))?;
                // The producer goes on until it waits for room.
                room.settle()?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(
        full > 50,
        "the producer found the queue full {full} times only"
    );
    worker.thread.suspend()?;
    queue.tell_of_messages(None)?;
    let _ = some.wait_until(0);
    queue.push(&Message::new(0, []))?;
    same!(some.wait_until(0), Err(Error::TimedOut));
    Ok(())
}

fn queues_and_dead_notifications(room: &mut Room) -> Outcome {
    let queue = room.supplies.queue(8)?;
    let notification = room.notification()?;
    queue.tell_of_messages(Some(notification))?;
    // The queue's own capability is derived from this one.
    let slot = room.supplies.index(notification.0);
    room.supplies.node().revoke(slot)?;
    queue.push(&Message::new(0, []))?;
    same!(notification.wait_until(0), Err(Error::TimedOut));
    queue.pop()?;
    queue.tell_of_messages(Some(notification))?;
    // It keeps the notification, though nobody else can reach it.
    room.supplies.node().delete(slot)?;
    queue.push(&Message::new(0, []))?;
    let slot = room.supplies.index(queue.0);
    room.supplies.node().delete(slot)?;
    same!(queue.pop(), Err(Error::NoCapability));
    Ok(())
}

/// Claims the console's line.
fn claim(room: &mut Room) -> Result<Interrupt, Error> {
    let slot = room.supplies.slot()?;
    let interrupts = room.information.interrupts();
    interrupts.claim(console::LINE, room.supplies.node(), slot)?;
    Ok(Interrupt(room.supplies.cap(slot)))
}

fn lines(room: &mut Room) -> Outcome {
    let interrupts = room.information.interrupts();
    let node = room.supplies.node();
    let slot = room.supplies.slot()?;
    for line in console::NO_LINES {
        same!(
            interrupts.claim(line, node, slot),
            Err(Error::InvalidArgument),
            "line {line}"
        );
    }
    let line = claim(room)?;
    same!(
        interrupts.claim(console::LINE, node, slot),
        Err(Error::Bound)
    );
    same!(
        interrupts.claim(console::LINE, node, 0),
        Err(Error::InvalidArgument)
    );
    let taken = room.supplies.index(line.0);
    same!(
        interrupts.claim(console::LINE, node, taken),
        Err(Error::SlotTaken)
    );
    let (a, b) = (room.notification()?, room.notification()?);
    line.bind(Some(a))?;
    same!(line.bind(Some(b)), Err(Error::SlotTaken));
    line.bind(None)?;
    line.bind(Some(b))?;
    node.delete(taken)?;
    same!(line.acknowledge(), Err(Error::NoCapability));
    // It can be had again.
    let line = claim(room)?;
    line.bind(Some(a))?;
    Ok(())
}

fn interrupts_wait(room: &mut Room) -> Outcome {
    let line = claim(room)?;
    let notification = room.notification()?;
    let badged = Notification(room.mint(notification.0, Rights::WRITE, 0x10)?);
    line.bind(Some(badged))?;
    console::begin_interrupts(true);
    let waited = interrupts_wait_one_by_one(room, line, notification);
    console::begin_interrupts(false);
    waited
}

fn interrupts_wait_one_by_one(
    room: &mut Room,
    line: Interrupt,
    notification: Notification,
) -> Outcome {
    // Some devices interrupt at once.
    room.pause(1)?;
    let _ = notification.wait_until(0);
    console::serve();
    line.acknowledge()?;
    room.pause(1)?;
    let _ = notification.wait_until(0);
    line.acknowledge()?;
    for round in 0..10 {
        console::provoke();
        same!(
            notification.wait_until(room.soon(500)),
            Ok(0x10),
            "round {round}"
        );
        console::serve();
        console::provoke();
        // It does not come again before it was acknowledged.
        same!(notification.wait_until(room.soon(1)), Err(Error::TimedOut));
        line.acknowledge()?;
        same!(
            notification.wait_until(room.soon(500)),
            Ok(0x10),
            "round {round}"
        );
        console::serve();
        line.acknowledge()?;
        same!(notification.wait_until(0), Err(Error::TimedOut));
    }
    // Without a notification it raises nothing.
    line.bind(None)?;
    console::provoke();
    same!(notification.wait_until(room.soon(1)), Err(Error::TimedOut));
    console::serve();
    Ok(())
}

/// Makes and destroys objects without end: the kernel is hardly ever idle, and in long operations often.
extern "C" fn churn(_: u64, _: u64) -> ! {
    let (untyped, node) = (Untyped(Cap(1)), Node(Cap(2)));
    loop {
        for first in [8, 264, 520] {
            let made = untyped.retype(ObjectKind::Endpoint, 0, 256, node, first);
            if made.is_err() {
                share(3, 1);
                rest()
            }
        }
        let own = Node(Cap(3));
        if own.revoke(1).is_err() {
            share(3, 2);
            rest()
        }
        count(1);
    }
}

fn interrupts_under_load(room: &mut Room) -> Outcome {
    let line = claim(room)?;
    let notification = room.notification()?;
    line.bind(Some(notification))?;
    let objects = room.supplies.new_node(10)?;
    let memory = room.supplies.object(ObjectKind::Untyped, 18)?;
    let never = room.never().0;
    let worker = room.worker(Place::Here, churn, 0, BELOW, &[never, objects.0])?;
    let node = worker.spawned.node;
    node.delete(1)?;
    node.take(1, memory)?;
    node.copy(3, node.0)?;
    worker.start()?;
    console::begin_interrupts(true);
    let mut outcome = Ok(());
    for number in 0..1000 {
        console::provoke();
        if notification.wait_until(room.soon(500)).is_err() {
            outcome = Err(crate::room::Failure::new(format_args!(
                "interrupt {number} did not come"
            )));
            break;
        }
        console::serve();
        line.acknowledge()?;
        if number % 10 == 0 {
            // The load goes on, in between.
            room.pause(1)?;
        }
    }
    console::begin_interrupts(false);
    outcome?;
    same!(shared(3), 0, "the load broke");
    ensure!(shared(1) > 20, "there was no load: {} rounds", shared(1));
    Ok(())
}
