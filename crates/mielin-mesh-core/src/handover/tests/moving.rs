//! Agents come and go.

use alloc::vec;
use alloc::vec::Vec;

use super::{A, B, C, Pair, REAL_NS, ROOM_BYTES, concluded};
use crate::Epoch;
use crate::handover::message::{Guest, Phase};
use crate::handover::{
    HandoverError, HostEndEvent, HostMessage, LeafEndEvent, LeafMessage, MessageError, Offer,
    Reason, Transfer,
};

/// Bytes that differ from place to place.
fn checkpoint(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[test]
fn an_agent_goes_to_the_leaf_and_comes_back() {
    let mut pair = Pair::greeted();
    let (there, back) = (checkpoint(2_000), checkpoint(475));
    pair.host.offer(A, Epoch(5), there.clone()).unwrap();
    pair.run();
    let arrived = LeafEndEvent::Arrived {
        agent: A,
        epoch: Epoch(5),
        bytes: there,
    };
    assert_eq!(pair.events(), (vec![arrived], vec![]));
    assert_eq!(pair.host.let_go(A), Err(HandoverError::State));
    pair.leaf.accept(A).unwrap();
    pair.run();
    let (agent, epoch) = (A, Epoch(5));
    let held = HostEndEvent::Held { agent, epoch };
    assert_eq!(pair.events(), (vec![], vec![held]));
    pair.host.let_go(A).unwrap();
    pair.run();
    let run = LeafEndEvent::Run { agent, epoch };
    assert_eq!(pair.events(), (vec![run], vec![]));

    assert_eq!(pair.leaf.offer(A, back.clone(), 0), Ok(Epoch(6)));
    pair.run();
    let epoch = Epoch(6);
    let arrived = HostEndEvent::Arrived {
        agent,
        epoch,
        bytes: back,
        taken: 0,
        posted: 0,
    };
    assert_eq!(pair.events(), (vec![], vec![arrived]));
    pair.host.have(A).unwrap();
    pair.run();
    let handed_over = LeafEndEvent::HandedOver { agent, epoch };
    let released = HostEndEvent::Released { agent, epoch };
    assert_eq!(pair.events(), (vec![handed_over], vec![released]));
    assert_eq!(pair.leaf.guests().count(), 0);
    // Nobody has a role any more: it may go again.
    pair.give(A, Epoch(7));
}

#[test]
fn several_agents_go_one_after_the_other() {
    let mut pair = Pair::greeted();
    for agent in [A, B, C] {
        pair.host.offer(agent, Epoch(1), checkpoint(1_000)).unwrap();
    }
    pair.run();
    for agent in [A, B, C] {
        pair.leaf.accept(agent).unwrap();
    }
    pair.run();
    for agent in [A, B, C] {
        pair.host.let_go(agent).unwrap();
    }
    pair.run();
    pair.events();
    for agent in [A, B, C] {
        pair.leaf.offer(agent, checkpoint(1_000), 0).unwrap();
    }
    pair.run();
    let arrived = pair.host_events().into_iter().map(|event| match event {
        HostEndEvent::Arrived { agent, bytes, .. } => {
            assert_eq!(bytes, checkpoint(1_000));
            agent
        }
        event => panic!("{event:?}"),
    });
    assert_eq!(arrived.collect::<Vec<_>>(), [A, B, C]);
}

#[test]
fn a_leaf_takes_only_what_it_has_room_for() {
    let check = |change: fn(&mut Pair), bytes: usize, reason| {
        let mut pair = Pair::greeted();
        change(&mut pair);
        pair.host.offer(A, Epoch(5), checkpoint(bytes)).unwrap();
        pair.run();
        let refused = HostEndEvent::Refused {
            agent: A,
            epoch: Epoch(5),
            reason,
        };
        assert!(pair.leaf_events().is_empty());
        assert_eq!(pair.host_events().last(), Some(&refused));
        // It may be offered again.
        pair.host.offer(A, Epoch(6), checkpoint(1)).unwrap();
    };
    let room_bytes = ROOM_BYTES;
    check(|_| (), 5_001, Reason::NoRoom { room_bytes });
    let unready = |pair: &mut Pair| {
        let mut status = super::profile().status;
        status.ready = false;
        pair.leaf.set_status(status);
    };
    check(unready, 10, Reason::NotReady);
    let crowd = |pair: &mut Pair| {
        for number in 0..4 {
            pair.give(crate::AgentId([number; 16]), Epoch(1));
        }
    };
    check(crowd, 10, Reason::NoRoom { room_bytes: 0 });
}

#[test]
fn who_cannot_use_an_agent_refuses_it() {
    let mut pair = Pair::greeted();
    pair.host.offer(A, Epoch(5), checkpoint(9)).unwrap();
    pair.run();
    pair.leaf.refuse(A, Reason::Unsuitable).unwrap();
    assert_eq!(pair.leaf.accept(A), Err(HandoverError::State));
    pair.run();
    let (agent, reason) = (A, Reason::Unsuitable);
    let epoch = Epoch(5);
    let refused = HostEndEvent::Refused {
        agent,
        epoch,
        reason,
    };
    assert_eq!(pair.host_events(), [refused]);

    pair.give(A, Epoch(6));
    pair.leaf.offer(A, checkpoint(9), 0).unwrap();
    pair.run();
    pair.host.refuse(A, Reason::Damaged).unwrap();
    assert_eq!(pair.host.have(A), Err(HandoverError::State));
    pair.run();
    let (epoch, reason) = (Epoch(7), Reason::Damaged);
    let refused = LeafEndEvent::Refused {
        agent,
        epoch,
        reason,
    };
    assert_eq!(pair.leaf_events(), [refused]);
    // It runs on in its stay, and is offered in an epoch that nobody has seen.
    pair.leaf.want(A, 0).unwrap();
    assert_eq!(pair.leaf.offer(A, checkpoint(9), 0), Ok(Epoch(8)));
}

#[test]
fn a_host_takes_back_its_offer_at_any_time_before_it_lets_go() {
    let cancelled = |pair: &mut Pair| {
        pair.host.cancel(A).unwrap();
        assert_eq!(pair.host.let_go(A), Err(HandoverError::State));
        pair.run();
        assert_eq!(pair.leaf.guests().count(), 0);
        assert_eq!(pair.leaf.accept(A), Err(HandoverError::State));
        pair.leaf_events().pop()
    };
    let (agent, epoch) = (A, Epoch(5));
    let event = Some(LeafEndEvent::Cancelled { agent, epoch });

    let mut pair = Pair::greeted();
    pair.host.offer(A, epoch, checkpoint(2_000)).unwrap();
    for _ in 0..3 {
        let message = pair.host.poll_message(REAL_NS).unwrap();
        pair.leaf.handle_message(&message).unwrap();
    }
    assert_eq!(cancelled(&mut pair), None);

    let mut pair = Pair::greeted();
    pair.host.offer(A, epoch, checkpoint(9)).unwrap();
    pair.run();
    assert_eq!(cancelled(&mut pair), event);

    let mut pair = Pair::greeted();
    pair.host.offer(A, epoch, checkpoint(9)).unwrap();
    pair.run();
    pair.leaf.accept(A).unwrap();
    assert_eq!(cancelled(&mut pair), event);
    assert!(pair.host_events().is_empty());

    let mut pair = Pair::with_guest(A);
    assert_eq!(pair.host.cancel(A), Err(HandoverError::State));
    pair.run();
    assert_eq!(pair.leaf.guests().count(), 1);
}

/// The host's word that it has the agent crosses the leaf's that it keeps it.
#[test]
fn a_leaf_keeps_what_it_has_cancelled_in_time() {
    let mut pair = Pair::with_guest(A);
    pair.leaf.offer(A, checkpoint(9), 0).unwrap();
    pair.run();
    pair.host_events();
    pair.host.have(A).unwrap();
    pair.leaf.cancel(A).unwrap();
    pair.run();
    let (agent, epoch, stay) = (A, Epoch(6), Epoch(5));
    let cancelled = HostEndEvent::Cancelled { agent, epoch, stay };
    assert_eq!(pair.events(), (vec![], vec![cancelled]));
    // An offer in another epoch is not let go by an answer to the one before.
    pair.leaf.offer(A, checkpoint(9), 0).unwrap();
    let have = Transfer::Have { agent, epoch };
    let have = HostMessage::Transfer(have).encode(&[]);
    pair.leaf.handle_message(&have).unwrap();
    assert!(pair.leaf_events().is_empty());
    pair.leaf.cancel(A).unwrap();
    assert_eq!(pair.leaf.cancel(A), Err(HandoverError::State));
    let phase = pair.leaf.guests().next().unwrap().phase;
    assert_eq!(phase, Phase::Running);
}

#[test]
fn a_leaf_that_was_released_cannot_cancel() {
    let mut pair = Pair::with_guest(A);
    pair.leaf.offer(A, checkpoint(9), 0).unwrap();
    pair.run();
    pair.host.have(A).unwrap();
    pair.run();
    assert_eq!(pair.leaf.cancel(A), Err(HandoverError::State));
}

#[test]
fn nobody_runs_what_was_not_let_go() {
    let mut pair = Pair::greeted();
    pair.host.offer(A, Epoch(5), checkpoint(9)).unwrap();
    pair.run();
    let (agent, epoch) = (A, Epoch(5));
    let run = HostMessage::Transfer(Transfer::Run { agent, epoch }).encode(&[]);
    let unexpected = Err(MessageError::Unexpected);
    assert_eq!(pair.leaf.handle_message(&run), unexpected);
    pair.leaf.accept(A).unwrap();
    let other = Transfer::Run {
        agent,
        epoch: Epoch(4),
    };
    let other = HostMessage::Transfer(other).encode(&[]);
    assert_eq!(pair.leaf.handle_message(&other), unexpected);
    pair.leaf.handle_message(&run).unwrap();
    assert_eq!(pair.leaf.handle_message(&run), unexpected);

    let mut pair = Pair::with_guest(A);
    pair.leaf.offer(A, checkpoint(9), 0).unwrap();
    pair.run();
    let epoch = Epoch(6);
    let run = LeafMessage::Transfer(Transfer::Run { agent, epoch }).encode(&[]);
    assert_eq!(pair.host.handle_message(&run), unexpected);
}

#[test]
fn nobody_has_what_has_not_gone_out() {
    let mut pair = Pair::greeted();
    let (agent, epoch) = (A, Epoch(5));
    let have = LeafMessage::Transfer(Transfer::Have { agent, epoch }).encode(&[]);
    pair.host.offer(A, epoch, checkpoint(476)).unwrap();
    let unexpected = Err(MessageError::Unexpected);
    // The offer, and a piece and another.
    for _ in 0..3 {
        assert_eq!(pair.host.handle_message(&have), unexpected);
        pair.host.poll_message(REAL_NS).unwrap();
    }
    pair.host.handle_message(&have).unwrap();
    assert_eq!(pair.host.handle_message(&have), unexpected);
    assert_eq!(pair.host_events(), [HostEndEvent::Held { agent, epoch }]);
}

#[test]
fn pieces_that_do_not_fit_refuse_the_agent() {
    let check = |offset, len| {
        let mut pair = Pair::with_guest(B);
        let (agent, epoch) = (A, Epoch(5));
        let offer = Offer {
            agent,
            epoch,
            bytes: 10,
            taken: 0,
            posted: 0,
        };
        let tail = [0; 11];
        let chunk = Transfer::Chunk { offset };
        let to_leaf = [(Transfer::Offer(offer), 0), (chunk, len), (chunk, len)];
        for (transfer, len) in to_leaf {
            let message = HostMessage::Transfer(transfer).encode(&tail[..len]);
            pair.leaf.handle_message(&message).unwrap();
        }
        assert!(pair.leaf_events().is_empty());
        let from_leaf = Offer {
            agent: B,
            epoch: Epoch(6),
            ..offer
        };
        for (transfer, len) in [(Transfer::Offer(from_leaf), 0), (chunk, len), (chunk, len)] {
            let message = LeafMessage::Transfer(transfer).encode(&tail[..len]);
            pair.host.handle_message(&message).unwrap();
        }
        assert!(pair.host_events().is_empty());
        pair.say();
        let reason = Reason::Damaged;
        let refusal = |agent, epoch| Transfer::Refuse {
            agent,
            epoch,
            reason,
        };
        let refusals = [refusal(A, Epoch(5)), refusal(B, Epoch(6))];
        assert_eq!(pair.transfers(), refusals);
    };
    check(1, 3);
    check(0, 11);
    // The same piece twice.
    check(0, 5);
}

#[test]
fn a_leaf_does_not_take_what_it_owns() {
    let mut pair = Pair::with_guest(A);
    let offer = Offer {
        agent: A,
        epoch: Epoch(9),
        bytes: 1,
        taken: 0,
        posted: 0,
    };
    let offer = Transfer::Offer(offer);
    let to_leaf = HostMessage::Transfer(offer).encode(&[]);
    pair.leaf.handle_message(&to_leaf).unwrap();
    let reason = Reason::Conflict;
    let (agent, epoch) = (A, Epoch(9));
    let refuse = Transfer::Refuse {
        agent,
        epoch,
        reason,
    };
    let said = pair.leaf.poll_message().unwrap();
    assert_eq!(said, LeafMessage::Transfer(refuse).encode(&[]));
    // Nor does a host take an agent that it does not know to be there.
    let mut pair = Pair::greeted();
    let to_host = LeafMessage::Transfer(offer).encode(&[]);
    pair.host.handle_message(&to_host).unwrap();
    let said = pair.host.poll_message(REAL_NS).unwrap();
    assert_eq!(said, HostMessage::Transfer(refuse).encode(&[]));
}

#[test]
fn a_host_asks_for_an_agent_until_it_is_offered() {
    let mut pair = Pair::with_guest(A);
    assert_eq!(pair.host.come(B), Err(HandoverError::State));
    pair.host.come(A).unwrap();
    pair.say();
    pair.cut();
    pair.run();
    let come = LeafEndEvent::Come { agent: A };
    assert_eq!(pair.leaf_events().last(), Some(&come));
    pair.leaf.offer(A, checkpoint(9), 0).unwrap();
    pair.run();
    pair.cut();
    pair.run();
    assert!(!pair.leaf_events().contains(&come));
    assert_eq!(pair.host.come(A), Err(HandoverError::State));
}

#[test]
fn a_checkpoint_is_neither_empty_nor_too_large() {
    let mut pair = Pair::with_guest(A);
    let max = 1 << 20;
    for size in [0, max + 1] {
        let error = Err(HandoverError::Size { size, max });
        assert_eq!(pair.host.offer(B, Epoch(1), vec![0; size]), error);
        assert_eq!(
            pair.leaf.offer(A, vec![0; size], 0),
            error.map(|()| Epoch(0))
        );
    }
    pair.leaf.offer(A, vec![0; max], 0).unwrap();
    pair.run();
    let arrived = concluded(pair.host_events());
    assert!(matches!(&arrived[..], [HostEndEvent::Arrived { bytes, .. }] if bytes.len() == max));
}

#[test]
fn a_hello_lists_what_is_there() {
    let mut pair = Pair::with_guest(A);
    pair.give(B, Epoch(2));
    pair.host.offer(C, Epoch(3), checkpoint(9)).unwrap();
    pair.run();
    pair.leaf.accept(C).unwrap();
    pair.leaf.offer(B, checkpoint(9), 0).unwrap();
    pair.cut();
    pair.run();
    let guest = |agent, stay, phase| Guest {
        agent,
        stay,
        taken: 0,
        posted: 0,
        phase,
    };
    let leaving = Phase::Leaving { offered: Epoch(3) };
    let expected = [
        guest(A, Epoch(5), Phase::Running),
        guest(B, Epoch(2), leaving),
        guest(C, Epoch(3), Phase::Held),
    ];
    let mut events = pair.host_events().into_iter();
    let listed = events.find_map(|event| match event {
        HostEndEvent::Hello { guests, .. } => Some(guests),
        _ => None,
    });
    assert_eq!(listed.as_deref(), Some(&expected[..]));
}
