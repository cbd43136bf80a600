//! What outlives a cut, and what is concluded from a hello.

use alloc::vec;
use alloc::vec::Vec;

use super::{A, B, Pair, concluded};
use crate::Epoch;
use crate::handover::message::{Guest, Hello, Phase, VERSION};
use crate::handover::{
    HandoverError, HostEndEvent, HostMessage, LeafEndEvent, LeafMessage, MessageError, Offer, Role,
    Transfer,
};

const STAY: Epoch = Epoch(5);

fn hello(guests: &[Guest]) -> Vec<u8> {
    let hello = Hello {
        version: VERSION,
        nonce: 77,
        boot: 1,
        profile: super::profile(),
        guests: guests.to_vec(),
    };
    LeafMessage::Hello(hello).encode(&[])
}

fn guest(stay: Epoch, phase: Phase) -> Guest {
    Guest {
        agent: A,
        stay,
        taken: 3,
        posted: 4,
        phase,
    }
}

/// What a host that has this role written down in epoch 5 concludes from this, and says.
fn check(
    role: Option<Role>,
    listed: Option<(Epoch, Phase)>,
    event: Option<HostEndEvent>,
    said: Option<Transfer>,
) {
    let mut host = super::HostEnd::new();
    let context = alloc::format!("{role:?} and {listed:?}");
    if let Some(role) = role {
        host.restore(A, STAY, role).unwrap();
    }
    let guests = listed.map(|(stay, phase)| guest(stay, phase));
    host.handle_message(&hello(guests.as_slice())).unwrap();
    let events = core::iter::from_fn(|| host.poll_event()).collect();
    assert_eq!(concluded(events), Vec::from_iter(event), "{context}");
    let mut answers = core::iter::from_fn(|| host.poll_message(9));
    let welcome = HostMessage::Welcome {
        nonce: 77,
        real_ns: 9,
    };
    assert_eq!(answers.next(), Some(welcome.encode(&[])), "{context}");
    let answer = answers.next();
    let answer = answer.map(|bytes| match HostMessage::decode(&bytes).unwrap().0 {
        HostMessage::Transfer(Transfer::Offer(offer)) => {
            let (agent, epoch) = (offer.agent, offer.epoch);
            // Only so that tables are short: an offer is that of the role.
            assert_eq!((agent, epoch, offer.bytes), (A, STAY, 3));
            None
        }
        HostMessage::Transfer(transfer) => Some(transfer),
        message => panic!("{message:?}"),
    });
    assert_eq!(answer.flatten(), said, "{context}");
}

#[test]
fn a_hello_settles_who_owns_an_agent() {
    let agent = A;
    let (below, above) = (Epoch(4), Epoch(6));
    let giving = || Some(Role::Giving(vec![1; 3]));
    let found = |epoch| {
        Some(HostEndEvent::Found {
            agent,
            epoch,
            taken: 3,
            posted: 4,
        })
    };
    let held = |epoch| Some((epoch, Phase::Held));
    let running = |stay| Some((stay, Phase::Running));
    let leaving = |stay, offered| Some((stay, Phase::Leaving { offered }));
    let cancel = |epoch| Some(Transfer::Cancel { agent, epoch });
    let lost = Some(HostEndEvent::Lost { agent, epoch: STAY });
    let released = Some(HostEndEvent::Released { agent, epoch: STAY });

    let is_held = Some(HostEndEvent::Held { agent, epoch: STAY });
    check(giving(), held(STAY), is_held, None);
    check(giving(), held(below), None, cancel(below));
    check(giving(), running(STAY), found(STAY), None);
    check(giving(), running(below), found(below), None);
    check(giving(), leaving(STAY, above), found(STAY), None);
    check(giving(), None, None, None);

    let away = || Some(Role::Away);
    let run = Some(Transfer::Run { agent, epoch: STAY });
    check(away(), held(STAY), None, run);
    check(away(), held(below), lost.clone(), cancel(below));
    check(away(), running(STAY), None, None);
    check(away(), leaving(STAY, above), None, None);
    check(away(), running(above), found(above), None);
    check(away(), running(below), found(below), None);
    check(away(), None, lost, None);

    let taken = || Some(Role::Taken);
    let have = Some(Transfer::Have { agent, epoch: STAY });
    let cancelled = |stay| {
        let epoch = STAY;
        Some(HostEndEvent::Cancelled { agent, epoch, stay })
    };
    check(taken(), leaving(below, STAY), None, have);
    check(taken(), leaving(below, above), cancelled(below), None);
    check(taken(), running(below), cancelled(below), None);
    check(taken(), None, released.clone(), None);
    check(taken(), held(above), released, cancel(above));

    check(None, held(STAY), None, cancel(STAY));
    check(None, running(STAY), found(STAY), None);
    check(None, leaving(STAY, above), found(STAY), None);
    check(None, None, None, None);
}

/// A leaf may say what it likes of agents that it was not given.
#[test]
fn what_is_found_is_believed_when_it_is_adopted() {
    let mut pair = Pair::with_guest(A);
    pair.host_dies();
    pair.leaf.want(A, 0).unwrap();
    pair.say();
    pair.hear();
    let agent = A;
    let found = HostEndEvent::Found {
        agent,
        epoch: STAY,
        taken: 0,
        posted: 0,
    };
    assert_eq!(concluded(pair.host_events()), [found]);
    pair.say();
    pair.hear();
    let want = pair.leaf.poll_message().unwrap();
    let unexpected = Err(MessageError::Unexpected);
    assert_eq!(pair.host.handle_message(&want), unexpected);
    pair.host.restore(A, STAY, Role::Away).unwrap();
    pair.host.handle_message(&want).unwrap();
    let wanted = HostEndEvent::Want {
        agent,
        epoch: STAY,
        next: 0,
    };
    assert_eq!(pair.host_events(), [wanted]);
}

#[test]
fn a_hello_that_lists_an_agent_twice_is_none() {
    let mut host = super::HostEnd::new();
    let twice = [guest(STAY, Phase::Running), guest(Epoch(6), Phase::Held)];
    let answer = host.handle_message(&hello(&twice));
    assert_eq!(answer, Err(MessageError::Unexpected));
    assert!(host.poll_event().is_none() && !host.is_greeted());
}

#[test]
fn a_host_that_has_started_anew_goes_on_with_what_is_held() {
    let mut pair = Pair::greeted();
    pair.host.offer(A, STAY, vec![1; 3]).unwrap();
    pair.run();
    pair.leaf.accept(A).unwrap();
    pair.run();
    pair.host_dies();
    pair.host
        .restore(A, STAY, Role::Giving(vec![1; 3]))
        .unwrap();
    pair.run();
    let held = HostEndEvent::Held {
        agent: A,
        epoch: STAY,
    };
    assert_eq!(concluded(pair.host_events()), [held]);
    // It is there: it need not come again.
    assert_eq!(pair.transfers(), []);
    pair.host.let_go(A).unwrap();
    pair.say();
    pair.host_dies();
    pair.host.restore(A, STAY, Role::Away).unwrap();
    pair.leaf_events();
    pair.run();
    let run = LeafEndEvent::Run {
        agent: A,
        epoch: STAY,
    };
    assert_eq!(pair.leaf_events().last(), Some(&run));
    assert!(concluded(pair.host_events()).is_empty());
}

#[test]
fn what_a_leaf_that_has_started_anew_was_given_comes_again() {
    let mut pair = Pair::greeted();
    pair.host.offer(A, STAY, vec![1; 600]).unwrap();
    pair.run();
    pair.leaf.accept(A).unwrap();
    pair.run();
    pair.leaf_dies();
    assert_eq!(pair.host.let_go(A), Err(HandoverError::State));
    pair.run();
    assert_eq!(pair.host.let_go(A), Err(HandoverError::State));
    let arrived = pair.leaf_events().pop();
    assert!(
        matches!(arrived, Some(LeafEndEvent::Arrived { epoch: STAY, bytes, .. }) if bytes.len() == 600)
    );
    pair.leaf.accept(A).unwrap();
    pair.run();
    pair.host.let_go(A).unwrap();
    pair.run();
    assert_eq!(pair.leaf.guests().count(), 1);
}

#[test]
fn what_was_arriving_at_a_cut_comes_again() {
    let mut pair = Pair::greeted();
    pair.host.offer(A, STAY, vec![1; 600]).unwrap();
    pair.run();
    pair.leaf_events();
    pair.cut();
    let cancelled = LeafEndEvent::Cancelled {
        agent: A,
        epoch: STAY,
    };
    assert_eq!(pair.leaf_events(), [cancelled]);
    assert_eq!(pair.leaf.accept(A), Err(HandoverError::State));
    pair.run();
    assert!(matches!(
        pair.leaf_events().pop(),
        Some(LeafEndEvent::Arrived { .. })
    ));
}

/// The leaf has let go, and nobody has heard it.
#[test]
fn what_a_leaf_has_let_go_is_released_at_its_next_hello() {
    let mut pair = Pair::with_guest(A);
    pair.leaf.offer(A, vec![2; 600], 0).unwrap();
    pair.run();
    pair.host.have(A).unwrap();
    let have = pair.host.poll_message(0).unwrap();
    pair.leaf.handle_message(&have).unwrap();
    pair.cut();
    pair.events();
    pair.run();
    let released = HostEndEvent::Released {
        agent: A,
        epoch: Epoch(6),
    };
    assert_eq!(concluded(pair.host_events()), [released]);
}

/// The leaf begins to offer it again before it has heard that the host has it.
#[test]
fn what_is_taken_is_not_taken_again() {
    let mut pair = Pair::with_guest(A);
    pair.leaf.offer(A, vec![2; 600], 0).unwrap();
    pair.run();
    pair.host.have(A).unwrap();
    pair.cut();
    pair.events();
    pair.say();
    pair.hear();
    let welcome = pair.host.poll_message(0).unwrap();
    pair.leaf.handle_message(&welcome).unwrap();
    let have = pair.host.poll_message(0).unwrap();
    while let Some(message) = pair.leaf.poll_message() {
        pair.host.handle_message(&message).unwrap();
    }
    assert!(pair.host.poll_message(0).is_none());
    pair.leaf.handle_message(&have).unwrap();
    pair.run();
    let released = HostEndEvent::Released {
        agent: A,
        epoch: Epoch(6),
    };
    assert_eq!(concluded(pair.host_events()), [released]);
}

#[test]
fn pieces_from_before_a_cut_make_nothing_whole() {
    let mut pair = Pair::with_guest(A);
    let offer = |agent, epoch| {
        Transfer::Offer(Offer {
            agent,
            epoch,
            bytes: 4,
            taken: 0,
            posted: 0,
        })
    };
    let (first, second) = (Transfer::Chunk { offset: 0 }, Transfer::Chunk { offset: 2 });
    let up = |transfer, tail: &[u8]| LeafMessage::Transfer(transfer).encode(tail);
    let down = |transfer, tail: &[u8]| HostMessage::Transfer(transfer).encode(tail);
    let begun = [up(offer(A, Epoch(6)), &[]), up(first, b"ab")];
    for message in begun {
        pair.host.handle_message(&message).unwrap();
    }
    let begun = [down(offer(B, STAY), &[]), down(first, b"ab")];
    for message in begun {
        pair.leaf.handle_message(&message).unwrap();
    }
    pair.cut();
    pair.run();
    pair.events();
    pair.host.handle_message(&up(second, b"cd")).unwrap();
    pair.leaf.handle_message(&down(second, b"cd")).unwrap();
    assert_eq!(pair.events(), (vec![], vec![]));
}

#[test]
fn an_agent_is_not_lost_once_it_has_arrived() {
    let mut pair = Pair::with_guest(A);
    pair.leaf.offer(A, vec![2; 600], 0).unwrap();
    pair.run();
    pair.host_events();
    pair.leaf_dies();
    pair.run();
    assert!(concluded(pair.host_events()).is_empty());
    pair.host.have(A).unwrap();
    let released = HostEndEvent::Released {
        agent: A,
        epoch: Epoch(6),
    };
    assert_eq!(pair.host_events(), [released]);

    let mut pair = Pair::with_guest(A);
    pair.leaf.offer(A, vec![2; 600], 0).unwrap();
    pair.say();
    pair.leaf_dies();
    pair.run();
    let lost = HostEndEvent::Lost {
        agent: A,
        epoch: STAY,
    };
    assert_eq!(concluded(pair.host_events()), [lost]);
}

#[test]
fn what_has_arrived_and_is_cancelled_across_a_cut_is_not_kept() {
    let mut pair = Pair::with_guest(A);
    pair.leaf.offer(A, vec![2; 600], 0).unwrap();
    pair.run();
    pair.host_events();
    pair.leaf.cancel(A).unwrap();
    pair.cut();
    pair.run();
    let (agent, epoch) = (A, Epoch(6));
    let cancelled = HostEndEvent::Cancelled {
        agent,
        epoch,
        stay: STAY,
    };
    assert_eq!(concluded(pair.host_events()), [cancelled]);
    assert_eq!(pair.host.have(A), Err(HandoverError::State));
}

/// The leaf's hello says that an agent leaves, and before it is welcome the agent is to stay.
#[test]
fn what_a_hello_has_said_is_taken_back() {
    let mut pair = Pair::with_guest(A);
    pair.leaf.offer(A, vec![2; 600], 0).unwrap();
    pair.run();
    pair.host.have(A).unwrap();
    pair.cut();
    pair.host_events();
    let said_hello = pair.leaf.poll_message().unwrap();
    pair.leaf.cancel(A).unwrap();
    for _ in 0..9 {
        pair.leaf.offer(A, vec![2; 600], 0).unwrap();
        pair.leaf.cancel(A).unwrap();
    }
    pair.host.handle_message(&said_hello).unwrap();
    pair.run();
    let (agent, epoch) = (A, Epoch(6));
    let cancelled = HostEndEvent::Cancelled {
        agent,
        epoch,
        stay: STAY,
    };
    assert_eq!(concluded(pair.host_events()), [cancelled]);
    // All that was offered in the meantime is taken back by one word.
    let have = Transfer::Have { agent, epoch };
    let epoch = Epoch(15);
    assert_eq!(pair.transfers(), [have, Transfer::Cancel { agent, epoch }]);
    assert_eq!(pair.leaf.guests().count(), 1);
}

#[test]
fn nothing_of_streams_that_have_ended_counts() {
    let mut pair = Pair::with_guest(A);
    pair.leaf.offer(A, vec![2; 600], 0).unwrap();
    pair.host.offer(B, STAY, vec![2; 600]).unwrap();
    pair.say();
    let (up, down) = (pair.up.clone(), pair.down.clone());
    let welcome = HostMessage::Welcome {
        nonce: 1,
        real_ns: 1,
    };
    pair.cut();
    // What was never sent comes first in the new streams.
    for message in up {
        pair.host.handle_message(&message).unwrap();
    }
    for message in down.iter().chain(&[welcome.encode(&[])]) {
        pair.leaf.handle_message(message).unwrap();
    }
    pair.say();
    for message in down {
        pair.leaf.handle_message(&message).unwrap();
    }
    assert_eq!(pair.events(), (vec![], vec![]));
    assert!(!pair.leaf.is_welcomed() && !pair.host.is_greeted());
    pair.run();
    assert!(pair.leaf.is_welcomed() && pair.host.is_greeted());
}

#[test]
fn a_host_cancels_what_is_held_after_a_cut() {
    let mut pair = Pair::greeted();
    pair.host.offer(A, STAY, vec![1; 3]).unwrap();
    pair.run();
    pair.leaf.accept(A).unwrap();
    pair.run();
    pair.events();
    pair.cut();
    pair.run();
    pair.host.cancel(A).unwrap();
    pair.run();
    assert_eq!(pair.leaf.guests().count(), 0);
    // The same while nobody listens.
    pair.host.offer(A, Epoch(6), vec![1; 3]).unwrap();
    pair.run();
    pair.leaf.accept(A).unwrap();
    pair.cut();
    pair.host.cancel(A).unwrap();
    pair.run();
    assert_eq!(pair.leaf.guests().count(), 0);
}

#[test]
fn a_role_is_restored_once() {
    let mut host = super::HostEnd::new();
    host.restore(A, STAY, Role::Away).unwrap();
    let again = host.restore(A, STAY, Role::Taken);
    assert_eq!(again, Err(HandoverError::State));
    let max = 1 << 20;
    let empty = host.restore(B, STAY, Role::Giving(vec![]));
    assert_eq!(empty, Err(HandoverError::Size { size: 0, max }));
}
