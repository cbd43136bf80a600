//! Messages through endpoints, within an address space and between two.

use mielin_user::abi::{MESSAGE_WORDS_MAX, REGISTER_WORDS};
use mielin_user::objects::{Endpoint, Message, Node, Reply};
use mielin_user::{Cap, Error, Rights};

use crate::Test;
use crate::room::{
    ABOVE, BELOW, Failure, Outcome, Place, Room, Worker, count, ensure, rest, same, share, shared,
};
use crate::servant::{self, ADD, DIE, FORGET, GIVE, INVERT, PASS_ON, SIGNAL, TWO_STEPS, WORK};

pub(crate) const TESTS: &[Test] = &[
    ("messages::calls_here", |room| calls(room, Place::Here)),
    ("messages::calls_apart", |room| calls(room, Place::Apart)),
    ("messages::passive_servers_here", |room| {
        passive_server(room, Place::Here)
    }),
    ("messages::passive_servers_apart", |room| {
        passive_server(room, Place::Apart)
    }),
    ("messages::of_all_lengths_here", |room| {
        lengths(room, Place::Here)
    }),
    ("messages::of_all_lengths_apart", |room| {
        lengths(room, Place::Apart)
    }),
    ("messages::claimed_lengths", claimed_lengths),
    ("messages::without_buffers", without_buffers),
    ("messages::badges", badges),
    ("messages::capabilities_here", |room| {
        capabilities(room, Place::Here)
    }),
    ("messages::capabilities_apart", |room| {
        capabilities(room, Place::Apart)
    }),
    (
        "messages::capabilities_that_do_not_go",
        capabilities_that_do_not_go,
    ),
    ("messages::capabilities_in_answers", capabilities_in_answers),
    ("messages::sends_wait_in_order", sends_wait_in_order),
    ("messages::receivers_wait_in_order", receivers_wait_in_order),
    ("messages::non_blocking", non_blocking),
    ("messages::timeouts_of_sends_and_receives", timeouts),
    ("messages::timeouts_of_calls", timeouts_of_calls),
    ("messages::calls_nobody_can_answer", calls_nobody_can_answer),
    ("messages::reply_objects", reply_objects),
    ("messages::chains_here", |room| chain(room, Place::Here)),
    ("messages::chains_apart", |room| chain(room, Place::Apart)),
    ("messages::clients_pay_for_servers", clients_pay),
    ("messages::dead_server_here", |room| {
        dead_server(room, Place::Here)
    }),
    ("messages::dead_server_apart", |room| {
        dead_server(room, Place::Apart)
    }),
    ("messages::dead_endpoint", dead_endpoint),
    ("messages::suspended_waits", suspended_waits),
];

/// An endpoint and the servant at it, which is not running yet.
pub(crate) fn servant(
    room: &mut Room,
    place: Place,
    other: Cap,
) -> Result<(Endpoint, Worker), Failure> {
    let endpoint = room.endpoint()?;
    let reply = room.reply()?;
    let worker = room.worker(place, servant::serve, 0, BELOW, &[endpoint.0, reply.0])?;
    // Its own node, so that it can empty slots, and something to give or to call.
    worker
        .spawned
        .node
        .copy(servant::NODE, worker.spawned.node.0)?;
    worker.spawned.node.copy(servant::OTHER, other)?;
    // The servant's reply object ends with the servant.
    room.supplies.node().delete(room.supplies.index(reply.0))?;
    Ok((endpoint, worker))
}

fn calls(room: &mut Room, place: Place) -> Outcome {
    let never = room.never().0;
    let (endpoint, worker) = servant(room, place, never)?;
    worker.start()?;
    for round in 0..100 {
        let got = endpoint.call(&Message::new(ADD, [round, 7]))?;
        same!(got.words, [round + 7, 0, 2, 0]);
        same!(got.info.words(), 4);
        same!(got.badge, 0);
        let got = endpoint.call(&Message::new(TWO_STEPS, [round, 1, 0]))?;
        same!(got.words, [round + 1, 0, 3, 0]);
    }
    Ok(())
}

fn passive_server(room: &mut Room, place: Place) -> Outcome {
    let never = room.never().0;
    let (endpoint, worker) = servant(room, place, never)?;
    worker.start_passive(room)?;
    for round in 0..1000 {
        let got = endpoint.call(&Message::new(ADD, [round, 7]))?;
        same!(got.words, [round + 7, 0, 2, 0]);
    }
    // A server that answers and receives in two steps is left without time between them: its second step comes to be when
    // somebody lends it time, which nobody can, since it receives nothing. With time of its own it goes on.
    let got = endpoint.call(&Message::new(TWO_STEPS, [1, 2]))?;
    same!(got.words[0], 3);
    same!(
        endpoint.call_until(&Message::new(ADD, [1, 2]), room.soon(2)),
        Err(Error::TimedOut)
    );
    worker.context.bind(Some(worker.thread))?;
    same!(endpoint.call(&Message::new(ADD, [1, 2]))?.words[0], 3);
    Ok(())
}

fn lengths(room: &mut Room, place: Place) -> Outcome {
    let never = room.never().0;
    let (endpoint, worker) = servant(room, place, never)?;
    worker.start()?;
    let buffer = room.buffer();
    for len in 0..=MESSAGE_WORDS_MAX {
        for index in 0..MESSAGE_WORDS_MAX {
            buffer.set_word(index, (len * 1000 + index) as u64);
        }
        let words = [1, 2, 3, 4].map(|word| word * len as u64);
        let got = endpoint.call(&Message::new(INVERT, words).long(len))?;
        same!(got.info.words(), len);
        same!(got.words, words.map(|word| !word), "{len} words");
        for index in REGISTER_WORDS..MESSAGE_WORDS_MAX {
            let sent = (len * 1000 + index) as u64;
            let wanted = if index < len { !sent } else { sent };
            same!(buffer.word(index), wanted, "word {index} of {len}");
        }
    }
    Ok(())
}

/// More words and capabilities than there can be are as many as there can be.
fn claimed_lengths(room: &mut Room) -> Outcome {
    let never = room.never().0;
    let (endpoint, worker) = servant(room, Place::Here, never)?;
    worker.start()?;
    for claimed in [121, 128, 255] {
        let got = endpoint.call(&Message::new(ADD, [1, 2]).long(claimed))?;
        same!(got.words, [3, 0, MESSAGE_WORDS_MAX as u64, 0]);
    }
    let buffer = room.buffer();
    for number in 0..3 {
        buffer.send_capability(number, never);
    }
    let got = endpoint.call(&Message::new(ADD, [1, 2]).with_capabilities(255))?;
    same!(got.words, [3, 0, 2, 3]);
    Ok(())
}

/// What a sender without a buffer says is cut off behind the words in registers, and so is what comes to a receiver without one.
fn without_buffers(room: &mut Room) -> Outcome {
    extern "C" fn send(_: u64, _: u64) -> ! {
        let message = Message::new(3, [1, 2, 3, 4]).long(50).with_capabilities(3);
        let _ = Endpoint(Cap(1)).send(&message);
        let got = Endpoint(Cap(1)).receive(None);
        share(1, got.map_or(0, |got| got.info.0));
        rest()
    }
    let endpoint = room.endpoint()?;
    let worker = room.worker(Place::Here, send, 0, BELOW, &[endpoint.0])?;
    // The page of its buffer ends.
    let frame = room.supplies.index(worker.spawned.buffer_frame.0);
    room.supplies.node().revoke(frame)?;
    room.supplies.node().delete(frame)?;
    worker.start()?;
    let got = endpoint.receive(None)?;
    same!(
        (got.info.label(), got.info.words(), got.info.capabilities()),
        (3, 4, 0)
    );
    same!(got.words, [1, 2, 3, 4]);
    endpoint.send(&Message::new(5, [0; 4]).long(120).with_capabilities(1))?;
    room.settle()?;
    let info = mielin_user::MessageInfo(shared(1));
    same!((info.label(), info.words(), info.capabilities()), (5, 4, 0));
    Ok(())
}

fn badges(room: &mut Room) -> Outcome {
    let never = room.never().0;
    let (endpoint, worker) = servant(room, Place::Apart, never)?;
    worker.start()?;
    let writes = Rights::WRITE.or(Rights::GRANT);
    for badge in [1, 77, u64::MAX, 1 << 63] {
        let badged = Endpoint(room.mint(endpoint.0, writes, badge)?);
        let copy = Endpoint(room.mint(badged.0, Rights::ALL, 0)?);
        for one in [badged, copy] {
            same!(one.call(&Message::new(ADD, [1, 1]))?.words[1], badge);
        }
    }
    Ok(())
}

fn capabilities(room: &mut Room, place: Place) -> Outcome {
    let never = room.never().0;
    let (endpoint, worker) = servant(room, place, never)?;
    worker.start()?;
    let notification = room.notification()?;
    let badged = room.mint(notification.0, Rights::WRITE, 8)?;
    let reads = room.mint(notification.0, Rights::READ, 0)?;
    let buffer = room.buffer();
    for count in 1..=3 {
        for number in 0..count {
            buffer.send_capability(number, badged);
        }
        let message = Message::new(SIGNAL, []).with_capabilities(count);
        let got = endpoint.call(&message)?;
        same!(got.words[..2], [0, count as u64]);
        same!(notification.wait_until(0), Ok(8));
    }
    // The capability that comes has the rights of the one that was sent.
    buffer.send_capability(0, reads);
    let got = endpoint.call(&Message::new(SIGNAL, []).with_capabilities(1))?;
    same!(got.words[..2], [Error::Denied as u64, 1]);
    // What was sent is derived from the sender's: it can be taken back.
    buffer.send_capability(0, badged);
    let got = endpoint.call(&Message::new(ADD, [0, 0]).with_capabilities(1))?;
    same!(got.words[3], 1);
    room.supplies.node().revoke(room.supplies.index(badged))?;
    let got = endpoint.call(&Message::new(SIGNAL, []))?;
    same!(got.words[0], Error::NoCapability as u64);
    Ok(())
}

fn capabilities_that_do_not_go(room: &mut Room) -> Outcome {
    extern "C" fn send(count: u64, buffer_at: u64) -> ! {
        for number in 0..3 {
            let word = buffer_at + 8 * (120 + number);
            crate::processor::store(word, 2);
        }
        let message = Message::new(0, []).with_capabilities(count as usize);
        loop {
            if Endpoint(Cap(1)).send(&message).is_err() {
                rest()
            }
        }
    }
    let never = room.never().0;
    let endpoint = room.endpoint()?;
    let writes = room.mint(endpoint.0, Rights::WRITE, 1)?;
    let grants = room.mint(endpoint.0, Rights::WRITE.or(Rights::GRANT), 2)?;
    let given = room.notification()?;
    // Without the right to grant nothing goes.
    let poor = room.working(Place::Here, send, 3, BELOW, &[writes, given.0])?;
    let node = room.supplies.new_node(3)?;
    let buffer = room.buffer();
    buffer.receive_capabilities(node, 1);
    let got = endpoint.receive(None)?;
    same!((got.badge, got.info.capabilities()), (1, 0));
    // Its first slot is empty still.
    node.copy(1, never)?;
    node.delete(1)?;
    poor.thread.suspend()?;

    let rich = room.working(Place::Here, send, 3, BELOW, &[grants, given.0])?;
    let came = |room: &mut Room, node, index| -> Result<usize, Error> {
        room.buffer().receive_capabilities(node, index);
        let got = endpoint.receive(None)?;
        Ok(got.info.capabilities())
    };
    // They go as far as there are empty slots.
    same!(came(room, node, 6)?, 2);
    same!(came(room, node, 5)?, 1);
    same!(came(room, node, 5)?, 0);
    same!(came(room, node, 0)?, 0);
    same!(came(room, node, 8)?, 0);
    same!(came(room, node, u64::MAX)?, 0);
    same!(came(room, node, 1 << 32)?, 0);
    // A node that may not be changed, and what is none.
    let closed = Node(room.mint(node.0, Rights::READ, 0)?);
    same!(came(room, closed, 1)?, 0);
    same!(came(room, Node(endpoint.0), 1)?, 0);
    same!(came(room, Node(Cap(u64::MAX)), 1)?, 0);
    same!(came(room, Node(Cap(0)), 1)?, 0);
    same!(came(room, node, 1)?, 3);
    rich.thread.suspend()?;
    // What cannot be copied does not go.
    let untyped = room.supplies.untyped();
    let made = room.supplies.slot()?;
    untyped.retype(
        mielin_user::ObjectKind::Untyped,
        12,
        1,
        room.supplies.node(),
        made,
    )?;
    let untyped = room.supplies.cap(made);
    let slow = room.worker(Place::Here, send, 1, BELOW, &[grants])?;
    slow.spawned.node.take(2, untyped)?;
    slow.start()?;
    let empty = room.supplies.new_node(2)?;
    same!(came(room, empty, 1)?, 0);
    Ok(())
}

fn capabilities_in_answers(room: &mut Room) -> Outcome {
    let notification = room.notification()?;
    let badged = room.mint(notification.0, Rights::WRITE, 16)?;
    let (endpoint, worker) = servant(room, Place::Apart, badged)?;
    worker.start()?;
    let slot = room.supplies.slot()?;
    room.buffer()
        .receive_capabilities(room.supplies.node(), slot);
    let got = endpoint.call(&Message::new(GIVE, []))?;
    same!(got.info.capabilities(), 1);
    let got = mielin_user::objects::Notification(room.supplies.cap(slot));
    got.signal()?;
    same!(notification.wait_until(0), Ok(16));
    // There is no room for a second one.
    let got = endpoint.call(&Message::new(GIVE, []))?;
    same!(got.info.capabilities(), 0);
    Ok(())
}

extern "C" fn send_once(word: u64, _: u64) -> ! {
    let sent = Endpoint(Cap(1)).send(&Message::new(0, [word]));
    share(
        10 + word as usize,
        1 + sent.err().map_or(0, |error| error as u64),
    );
    rest()
}

fn sends_wait_in_order(room: &mut Room) -> Outcome {
    let endpoint = room.endpoint()?;
    for word in 0..10 {
        room.working(Place::Here, send_once, word, BELOW, &[endpoint.0])?;
        room.settle()?;
        same!(shared(10 + word as usize), 0);
    }
    for word in 0..10 {
        same!(endpoint.receive(None)?.words[0], word);
        room.settle()?;
        same!(shared(10 + word as usize), 1);
    }
    same!(endpoint.receive_until(None, 0), Err(Error::TimedOut));
    Ok(())
}

fn receivers_wait_in_order(room: &mut Room) -> Outcome {
    extern "C" fn receive_once(number: u64, _: u64) -> ! {
        let got = Endpoint(Cap(1)).receive(None);
        share(
            10 + number as usize,
            got.map_or(u64::MAX, |got| got.words[0]),
        );
        rest()
    }
    let endpoint = room.endpoint()?;
    for number in 0..10 {
        room.working(Place::Here, receive_once, number, BELOW, &[endpoint.0])?;
        room.settle()?;
    }
    for number in 0..10 {
        endpoint.send(&Message::new(0, [number + 100]))?;
    }
    room.settle()?;
    for number in 0..10 {
        same!(shared(10 + number), number as u64 + 100);
    }
    Ok(())
}

fn non_blocking(room: &mut Room) -> Outcome {
    let endpoint = room.endpoint()?;
    let reply = room.reply()?;
    let message = Message::new(0, [6]);
    same!(endpoint.send_until(&message, 0), Err(Error::TimedOut));
    same!(endpoint.call_until(&message, 0), Err(Error::TimedOut));
    same!(endpoint.receive_until(None, 0), Err(Error::TimedOut));
    same!(endpoint.receive_until(Some(reply), 0), Err(Error::TimedOut));
    same!(
        endpoint.reply_receive_until(reply, &message, 0),
        Err(Error::TimedOut)
    );
    // A sender that waits is found, and so is a receiver.
    room.working(Place::Here, send_once, 3, BELOW, &[endpoint.0])?;
    room.settle()?;
    same!(endpoint.receive_until(None, 0)?.words[0], 3);
    let never = room.never().0;
    let (endpoint, worker) = servant(room, Place::Here, never)?;
    worker.start()?;
    room.settle()?;
    let long_ago = room.now() - 1;
    let got = endpoint.call_until(&Message::new(ADD, [1, 1]), room.soon(100))?;
    same!(got.words[0], 2);
    endpoint.send_until(&Message::new(WORK, [0]), long_ago)?;
    Ok(())
}

/// Deadlines are kept: not early, and not by more than a little late.
fn timeouts(room: &mut Room) -> Outcome {
    let endpoint = room.endpoint()?;
    let notification = room.notification()?;
    let reply = room.reply()?;
    let message = Message::new(0, [6]);
    // The machine may be a guest that has to wait itself.
    let late_max = room.milliseconds(300);
    for milliseconds in [1, 2, 5, 20] {
        for which in 0..6 {
            let deadline = room.soon(milliseconds);
            let got = match which {
                0 => endpoint.send_until(&message, deadline).err(),
                1 => endpoint.call_until(&message, deadline).err(),
                2 => endpoint.receive_until(None, deadline).err(),
                3 => endpoint.receive_until(Some(reply), deadline).err(),
                4 => endpoint
                    .reply_receive_until(reply, &message, deadline)
                    .err(),
                _ => notification.wait_until(deadline).err(),
            };
            let now = room.now();
            same!(got, Some(Error::TimedOut), "way {which}");
            ensure!(
                now >= deadline,
                "way {which} is {} ticks early",
                deadline - now
            );
            let late = now - deadline;
            ensure!(late <= late_max, "way {which} is {late} ticks late");
        }
    }
    // The same endpoint and reply object are as before.
    room.working(Place::Here, send_once, 3, BELOW, &[endpoint.0])?;
    same!(endpoint.receive(Some(reply))?.words[0], 3);
    Ok(())
}

/// A caller with time of its own waits for the answer until the deadline; one that has lent its time waits for the time.
fn timeouts_of_calls(room: &mut Room) -> Outcome {
    let never = room.never().0;
    let (endpoint, worker) = servant(room, Place::Here, never)?;
    worker
        .thread
        .set_priority(ABOVE, room.information.scheduling(), false)?;
    worker.start()?;
    // The servant works for longer than the caller waits; its answer is for nobody then.
    let work = Message::new(WORK, [room.milliseconds(20)]);
    worker
        .thread
        .set_priority(BELOW, room.information.scheduling(), false)?;
    let deadline = room.soon(5);
    same!(endpoint.call_until(&work, deadline), Err(Error::TimedOut));
    ensure!(room.now() >= deadline, "too early");
    let got = endpoint.call(&Message::new(ADD, [2, 2]))?;
    same!(got.words[0], 4);

    let (endpoint, worker) = servant(room, Place::Here, never)?;
    worker.start_passive(room)?;
    let begin = room.now();
    endpoint.call_until(&work, room.soon(5))?;
    ensure!(
        room.now() - begin >= room.milliseconds(20),
        "the servant did not work"
    );
    Ok(())
}

fn calls_nobody_can_answer(room: &mut Room) -> Outcome {
    extern "C" fn call_once(_: u64, _: u64) -> ! {
        let called = Endpoint(Cap(1)).call(&Message::new(0, [5]));
        share(1, called.err().map_or(1000, |error| error as u64));
        rest()
    }
    extern "C" fn receive_without(_: u64, _: u64) -> ! {
        let got = Endpoint(Cap(1)).receive(None);
        share(2, got.map_or(0, |got| got.words[0]));
        rest()
    }
    let endpoint = room.endpoint()?;
    // The caller comes first.
    room.working(Place::Here, call_once, 0, BELOW, &[endpoint.0])?;
    room.settle()?;
    same!(endpoint.receive(None)?.words[0], 5);
    room.settle()?;
    same!(shared(1), Error::NoReply as u64);
    // The receiver comes first.
    room.working(Place::Here, receive_without, 0, BELOW, &[endpoint.0])?;
    room.settle()?;
    same!(endpoint.call(&Message::new(0, [9])), Err(Error::NoReply));
    room.settle()?;
    same!(shared(2), 9);
    Ok(())
}

extern "C" fn call_and_share(word: u64, _: u64) -> ! {
    let called = Endpoint(Cap(1)).call(&Message::new(ADD, [word, 0]));
    let result = match called {
        Ok(got) => got.words[0],
        Err(error) => 1000 + error as u64,
    };
    share(word as usize, result);
    count(0);
    rest()
}

fn reply_objects(room: &mut Room) -> Outcome {
    let endpoint = room.endpoint()?;
    let (first, second) = (room.reply()?, room.reply()?);
    let answer = |number| Message::new(0, [number]);
    same!(first.send(&answer(0)), Err(Error::NoReply));
    for word in [1, 2, 3] {
        room.working(Place::Here, call_and_share, word, BELOW, &[endpoint.0])?;
        room.settle()?;
    }
    // Two callers are owed answers at once, which come in any order.
    same!(endpoint.receive(Some(first))?.words[0], 1);
    same!(endpoint.receive(Some(first)), Err(Error::ReplyInUse));
    same!(
        endpoint.receive_until(Some(first), 0),
        Err(Error::ReplyInUse)
    );
    same!(endpoint.receive(Some(second))?.words[0], 2);
    second.send(&answer(22))?;
    same!(second.send(&answer(23)), Err(Error::NoReply));
    room.settle()?;
    same!((shared(1), shared(2)), (0, 22));
    // The answer and the next message in one.
    same!(endpoint.reply_receive(first, &answer(11))?.words[0], 3);
    room.settle()?;
    same!(shared(1), 11);
    // Without the reply object the caller gets to know that nobody answers.
    let copy = Reply(room.mint(first.0, Rights::ALL, 0)?);
    room.supplies.node().delete(room.supplies.index(copy.0))?;
    room.settle()?;
    same!(shared(3), 0);
    room.supplies.node().delete(room.supplies.index(first.0))?;
    room.settle()?;
    same!(shared(3), 1000 + Error::Gone as u64);
    // A reply object that somebody receives with is taken.
    extern "C" fn receive_with(_: u64, _: u64) -> ! {
        let got = Endpoint(Cap(1)).receive(Some(Reply(Cap(2))));
        share(5, got.map_or(0, |got| got.words[0]));
        rest()
    }
    room.working(Place::Here, receive_with, 0, BELOW, &[endpoint.0, second.0])?;
    room.settle()?;
    same!(endpoint.receive(Some(second)), Err(Error::ReplyInUse));
    same!(
        endpoint.reply_receive(second, &answer(1)),
        Err(Error::ReplyInUse)
    );
    same!(second.send(&answer(1)), Err(Error::NoReply));
    // It ends meanwhile: then a message can be received, and no call answered.
    room.supplies.node().revoke(room.supplies.index(second.0))?;
    room.supplies.node().delete(room.supplies.index(second.0))?;
    same!(endpoint.call(&Message::new(0, [77])), Err(Error::NoReply));
    room.settle()?;
    same!(shared(5), 77);
    Ok(())
}

fn chain(room: &mut Room, place: Place) -> Outcome {
    let mut next = room.never().0;
    const LONG: u64 = 5;
    for link in 0..LONG {
        let (endpoint, worker) = servant(room, place, next)?;
        match link % 2 {
            0 => worker.start_passive(room)?,
            _ => worker.start()?,
        }
        next = endpoint.0;
    }
    let first = Endpoint(next);
    for round in 0..100 {
        // The last of them adds; each one before it adds one more.
        let got = first.call(&Message::new(PASS_ON, [round, 3, 0, LONG - 2]))?;
        same!(got.words[0], round + 3 + LONG - 1);
        same!(got.words[1], LONG - 1);
    }
    Ok(())
}

fn clients_pay(room: &mut Room) -> Outcome {
    extern "C" fn client(ticks: u64, _: u64) -> ! {
        let called = Endpoint(Cap(1)).call(&Message::new(WORK, [ticks]));
        share(1, 1 + u64::from(called.is_err()));
        rest()
    }
    let never = room.never().0;
    let (first, last) = servant(room, Place::Apart, never)?;
    last.start_passive(room)?;
    let ticks = room.milliseconds(10);
    let client = room.worker(Place::Here, client, ticks, BELOW, &[first.0])?;
    client.start()?;
    room.settle()?;
    same!(shared(1), 1);
    let paid = client.context.consumed()?;
    ensure!(paid >= ticks, "the client paid {paid} of {ticks} ticks");
    ensure!(paid < ticks * 3, "the client paid {paid} for {ticks} ticks");
    let own = last.context.consumed()?;
    ensure!(own < ticks / 2, "the server paid {own} ticks");
    Ok(())
}

fn dead_server(room: &mut Room, place: Place) -> Outcome {
    let never = room.never().0;
    for (label, passive) in [(FORGET, false), (FORGET, true), (DIE, false), (DIE, true)] {
        let (endpoint, worker) = servant(room, place, never)?;
        match passive {
            true => worker.start_passive(room)?,
            false => worker.start()?,
        }
        // One waits for an answer, and two for the server.
        let mut clients: [Option<Worker>; 3] = [None, None, None];
        for (word, client) in (1..).zip(&mut clients) {
            share(word as usize, 0);
            *client = Some(room.worker(Place::Here, call_and_share, word, BELOW, &[endpoint.0])?);
        }
        extern "C" fn provoke(label: u64, _: u64) -> ! {
            let called = Endpoint(Cap(1)).call(&Message::new(label, []));
            share(20, called.err().map_or(0, |error| error as u64));
            rest()
        }
        share(20, 0);
        room.working(Place::Here, provoke, label, BELOW, &[endpoint.0])?;
        room.settle()?;
        for client in clients.iter().flatten() {
            client.start()?;
        }
        room.settle()?;
        if label == DIE {
            same!(shared(20), 0, "its thread only stopped");
            // Whoever watches over it ends it, with all that it had; its node has a capability for itself.
            let node = room.supplies.node();
            let thread = room.supplies.index(worker.thread.0);
            node.revoke(thread)?;
            node.delete(thread)?;
            let own = room.supplies.index(worker.spawned.node.0);
            node.revoke(own)?;
            node.delete(own)?;
            room.settle()?;
        }
        same!(shared(20), Error::Gone as u64, "passive {passive}");
        same!(shared(1), 0, "somebody answered");
        let node = room.supplies.node();
        let slot = room.supplies.index(endpoint.0);
        node.revoke(slot)?;
        node.delete(slot)?;
        room.settle()?;
        for word in 1..=3 {
            same!(shared(word), 1000 + Error::Gone as u64, "client {word}");
        }
    }
    Ok(())
}

fn dead_endpoint(room: &mut Room) -> Outcome {
    extern "C" fn wait(way: u64, _: u64) -> ! {
        let endpoint = Endpoint(Cap(1));
        let message = Message::new(0, []);
        let later = mielin_user::system_call::now() + 1_000_000_000_000;
        let error = match way {
            0 => endpoint.send(&message).err(),
            1 => endpoint.send_until(&message, later).err(),
            2 => endpoint.call(&message).err(),
            _ => endpoint.call_until(&message, later).err(),
        };
        share(10 + way as usize, error.map_or(0, |error| error as u64));
        rest()
    }
    extern "C" fn receive(way: u64, _: u64) -> ! {
        let endpoint = Endpoint(Cap(1));
        let reply = Reply(Cap(2));
        let later = mielin_user::system_call::now() + 1_000_000_000_000;
        let error = match way {
            0 => endpoint.receive(None).err(),
            1 => endpoint.receive_until(Some(reply), later).err(),
            _ => endpoint.reply_receive(reply, &Message::new(0, [])).err(),
        };
        share(20 + way as usize, error.map_or(0, |error| error as u64));
        rest()
    }
    let gone = Error::Gone as u64;
    let (a, b) = (room.endpoint()?, room.endpoint()?);
    for way in 0..4 {
        room.working(Place::Here, wait, way, BELOW, &[a.0])?;
    }
    for way in 0..3 {
        let reply = room.reply()?;
        room.working(Place::Here, receive, way, BELOW, &[b.0, reply.0])?;
    }
    room.settle()?;
    for endpoint in [a, b] {
        let slot = room.supplies.index(endpoint.0);
        room.supplies.node().revoke(slot)?;
        room.settle()?;
        same!(
            (shared(10), shared(20)),
            (0, 0),
            "the endpoint is there still"
        );
    }
    for endpoint in [a, b] {
        room.supplies
            .node()
            .delete(room.supplies.index(endpoint.0))?;
    }
    room.settle()?;
    for way in 0..4 {
        same!(shared(10 + way), gone, "sender {way}");
    }
    for way in 0..3 {
        same!(shared(20 + way), gone, "receiver {way}");
    }
    Ok(())
}

fn suspended_waits(room: &mut Room) -> Outcome {
    let endpoint = room.endpoint()?;
    let worker = room.working(Place::Here, call_and_share, 7, BELOW, &[endpoint.0])?;
    room.settle()?;
    let thread = worker.thread;
    thread.suspend()?;
    same!(endpoint.receive_until(None, 0), Err(Error::TimedOut));
    thread.resume()?;
    room.settle()?;
    same!(shared(7), 1000 + Error::Canceled as u64);
    // And while it waits for an answer: that answer is for nobody.
    let reply = room.reply()?;
    worker
        .spawned
        .set_entry(call_and_share as *const () as usize as u64, 8)?;
    thread.suspend()?;
    thread.resume()?;
    same!(endpoint.receive(Some(reply))?.words[0], 8);
    thread.suspend()?;
    same!(reply.send(&Message::new(0, [])), Err(Error::NoReply));
    thread.resume()?;
    room.settle()?;
    same!(shared(8), 1000 + Error::Canceled as u64);
    Ok(())
}
