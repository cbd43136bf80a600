//! The module `mielin`.

use super::super::mielin;
use super::*;
use crate::state::Pending;

#[test]
fn sending_needs_a_grant_for_that_destination() {
    let one = format!("message:{}", Address([1; 16]));
    let mut bench = Bench::new(&[&one]);
    bench.put(0, &[1; 16]);
    bench.put(16, &[2; 16]);
    bench.put(100, b"hi");
    assert_eq!(bench.call(|call| mielin::send(call, 0, 100, 2, 200)), 0);
    assert_eq!(bench.u64(200), 1);
    let sent = (Address([1; 16]), MessageKind::Message, b"hi".to_vec());
    assert_eq!(*bench.desk.sent.lock().unwrap(), [sent]);
    assert_eq!(bench.call(|call| mielin::send(call, 16, 100, 2, 200)), 76);
    let wanted = Capability::Message(Target::One(Address([2; 16])));
    assert_eq!(
        *bench.desk.denied.lock().unwrap(),
        [(wanted, "mielin.send")]
    );
    assert_eq!(bench.call(|call| mielin::send(call, 0, 100, 1001, 200)), 35);
    assert_eq!(
        bench.call(|call| mielin::send(call, 0, END - 1, 2, 200)),
        21
    );
    assert_eq!(
        bench.call(|call| mielin::send(call, END - 15, 100, 2, 200)),
        21
    );
    assert_eq!(
        bench.call(|call| mielin::send(call, 0, 100, 2, END - 7)),
        21
    );
    assert_eq!(
        bench.desk.sent.lock().unwrap().len(),
        1,
        "nothing else was sent"
    );
    for (error, expected) in [
        (SendError::Unknown, 23),
        (SendError::Closed, 64),
        (SendError::TooLarge { limit: 1 }, 35),
    ] {
        *bench.desk.send_error.lock().unwrap() = Some(error);
        assert_eq!(
            bench.call(|call| mielin::send(call, 0, 100, 2, 200)),
            expected
        );
    }
    *bench.desk.send_error.lock().unwrap() = Some(SendError::Full);
    let wait = bench.blocks(|call| mielin::send(call, 0, 100, 2, 200));
    assert!(wait.deadline_ns.is_some() && !wait.message);
    *bench.desk.send_error.lock().unwrap() = None;
    assert_eq!(bench.call(|call| mielin::send(call, 0, 100, 2, 200)), 0);
    assert_eq!(bench.u64(200), 2);
}

fn message(from: u8, sequence: u64, kind: MessageKind, payload: &[u8]) -> Received {
    Received {
        from: Address([from; 16]),
        sequence,
        kind,
        payload: payload.to_vec(),
    }
}

#[test]
fn receiving_blocks_looks_or_times_out() {
    let mut bench = Bench::new(&[]);
    let forever = |call: &mut Call<'_>| mielin::receive(call, 100, 10, u64::MAX, 0);
    let look = |call: &mut Call<'_>| mielin::receive(call, 100, 10, 0, 0);
    assert_eq!(bench.call(look), errno(Errno::Again));
    assert_eq!(
        bench.blocks(forever),
        Wait {
            deadline_ns: None,
            message: true,
            reading: false,
        }
    );
    let put = |bench: &Bench, message| bench.desk.mailbox.lock().unwrap().push_back(message);
    put(
        &bench,
        message(4, 9, MessageKind::Reply { to: 3 }, b"0123456789"),
    );
    put(&bench, message(5, 1, MessageKind::Message, b"0123456789a"));
    assert_eq!(bench.call(forever), 0);
    assert_eq!(&bench.memory[0..16], [4; 16]);
    assert_eq!(
        (bench.u64(16), bench.u64(24), bench.u32(32), bench.u32(36)),
        (9, 3, 1, 10)
    );
    assert_eq!(&bench.memory[100..110], b"0123456789");

    // Too large: it says how large, and stays.
    assert_eq!(bench.call(look), errno(Errno::Msgsize));
    assert_eq!(bench.u32(36), 11);
    assert_eq!(bench.call(|call| mielin::receive(call, 100, 11, 0, 0)), 0);
    assert_eq!((bench.u64(24), bench.u32(32), bench.u32(36)), (0, 0, 11));

    let timed = |call: &mut Call<'_>| mielin::receive(call, 100, 10, 3_600_000_000_000, 0);
    let wait = bench.blocks(timed);
    assert_eq!(
        bench.blocks(timed),
        wait,
        "asking again does not start anew"
    );
    bench.context.host.pending = Some(Pending::Receive {
        deadline_ns: Some(1),
    });
    assert_eq!(bench.call(timed), errno(Errno::Timedout));

    // Nothing is taken when there is nowhere to put it.
    put(&bench, message(6, 2, MessageKind::Message, b"x"));
    for (buffer, capacity, out) in [(END - 9, 10, 0), (100, 10, END - 39), (100, u32::MAX, 0)] {
        let call = |call: &mut Call<'_>| mielin::receive(call, buffer, capacity, 0, out);
        assert_eq!(bench.call(call), errno(Errno::Fault));
    }
    assert_eq!(bench.desk.mailbox.lock().unwrap().len(), 1);
}

#[test]
fn each_message_can_be_answered_once_without_any_grant() {
    let mut bench = Bench::new(&[]);
    let received = message(4, 9, MessageKind::Message, b"?");
    bench.desk.mailbox.lock().unwrap().push_back(received);
    assert_eq!(bench.call(|call| mielin::receive(call, 100, 10, 0, 0)), 0);
    bench.put(200, b"yes");
    let reply = |call: &mut Call<'_>| mielin::reply(call, 0, 9, 200, 3);
    assert_eq!(
        bench.call(|call| mielin::reply(call, 0, 8, 200, 3)),
        errno(Errno::Noent)
    );
    assert_eq!(
        bench.call(|call| mielin::reply(call, 300, 9, 200, 3)),
        errno(Errno::Noent)
    );
    *bench.desk.send_error.lock().unwrap() = Some(SendError::Full);
    bench.blocks(reply);
    *bench.desk.send_error.lock().unwrap() = None;
    assert_eq!(bench.call(reply), 0);
    let sent = (
        Address([4; 16]),
        MessageKind::Reply { to: 9 },
        b"yes".to_vec(),
    );
    assert_eq!(*bench.desk.sent.lock().unwrap(), [sent]);
    assert_eq!(bench.call(reply), errno(Errno::Noent));
    assert_eq!(*bench.desk.denied.lock().unwrap(), []);
}

#[test]
fn a_message_can_be_passed_over_and_answered() {
    let mut bench = Bench::new(&[]);
    let discard = |call: &mut Call<'_>| mielin::discard(call, 10, 0);
    assert_eq!(bench.call(discard), errno(Errno::Again));
    for message in [
        message(4, 9, MessageKind::Message, &[1; 5000]),
        message(5, 1, MessageKind::Reply { to: 3 }, b"yes"),
    ] {
        bench.desk.mailbox.lock().unwrap().push_back(message);
    }
    // Nothing is dropped when there is nowhere to say what it was.
    let outside = |call: &mut Call<'_>| mielin::discard(call, 10, END - 39);
    assert_eq!(bench.call(outside), errno(Errno::Fault));
    let as_long = |call: &mut Call<'_>| mielin::discard(call, 5000, 0);
    assert_eq!(bench.call(as_long), errno(Errno::Again));
    let receive = |call: &mut Call<'_>| mielin::receive(call, 100, 10, 0, 0);
    assert_eq!(bench.call(receive), errno(Errno::Msgsize));
    bench.put(100, b"untouched");

    assert_eq!(bench.call(discard), 0);
    assert_eq!(&bench.memory[0..16], [4; 16]);
    assert_eq!(
        (bench.u64(16), bench.u64(24), bench.u32(32), bench.u32(36)),
        (9, 0, 0, 5000)
    );
    assert_eq!(&bench.memory[100..109], b"untouched");
    assert_eq!(
        bench.call(|call| mielin::reply(call, 0, 9, 100, 9)),
        0,
        "who sent it can be told"
    );
    // The next one is short: it stays.
    assert_eq!(bench.call(discard), errno(Errno::Again));
    assert_eq!(bench.call(receive), 0);
    assert_eq!((bench.u64(24), bench.u32(32)), (3, 1));
}

#[test]
fn unanswered_messages_are_bounded() {
    let mut state = HostState::new(Address::default());
    for sequence in 0..10_000 {
        state.note_received(Address([1; 16]), sequence);
    }
    assert_eq!(state.unanswered.len(), crate::state::UNANSWERED_MAX);
    assert_eq!(state.unanswered.back(), Some(&(Address([1; 16]), 9_999)));
}

#[test]
fn the_small_calls_of_mielin() {
    let mut bench = Bench::new(&["clock", "message"]);
    let (version, _) = bench.context.call(&mut bench.memory, mielin::abi_version);
    assert_eq!(version.unwrap(), 4);
    assert_eq!(bench.call(|call| mielin::self_id(call, 0)), 0);
    assert_eq!(&bench.memory[..16], [7; 16]);
    assert_eq!(bench.call(|call| mielin::self_id(call, END - 15)), 21);

    bench.put(100, b"line \xff");
    assert_eq!(bench.call(|call| mielin::log(call, 1, 100, 6)), 0);
    assert_eq!(
        *bench.desk.lines.lock().unwrap(),
        [(Level::Warn, "line \u{fffd}".into())]
    );
    assert_eq!(bench.call(|call| mielin::log(call, 5, 100, 6)), 28);
    assert_eq!(bench.call(|call| mielin::log(call, 1, 0, 65537)), 35);
    assert_eq!(bench.call(|call| mielin::log(call, 1, END - 5, 6)), 21);

    assert_eq!(
        bench.call(|call| mielin::capabilities(call, 300, 100, 0)),
        0
    );
    assert_eq!(
        &bench.memory[300..300 + bench.u32(0) as usize],
        b"clock\nmessage\n"
    );
    bench.put(300, &[0; 14]);
    assert_eq!(
        bench.call(|call| mielin::capabilities(call, 300, 13, 0)),
        35
    );
    assert_eq!((bench.u32(0), bench.memory[300]), (14, 0));
}
