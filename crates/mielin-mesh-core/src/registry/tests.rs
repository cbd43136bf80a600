#![allow(clippy::unwrap_used)]

use alloc::format;
use alloc::vec;

use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::kademlia::Key;
use crate::limits::REGISTRY_PAGE_MAX;
use crate::{Identity, MemberState, NodeRole};

fn node(index: u8) -> NodeId {
    NodeId([index; 32])
}

fn agent(index: u8) -> AgentId {
    AgentId([index; 16])
}

fn at(seconds: u64) -> Instant {
    Instant::from_start(Duration::from_secs(seconds))
}

fn record(who: u8, holder: u8, epoch: u64, revision: u64) -> LocationRecord {
    LocationRecord {
        agent: agent(who),
        name: Name::new(format!("agent-{who}")).unwrap(),
        module: [who; 32],
        owner: node(0),
        started_ms: 0,
        node: node(holder),
        epoch: Epoch(epoch),
        revision,
        state: AgentState::Running,
    }
}

fn member(index: u8, state: MemberState) -> Member {
    Member {
        identity: Identity {
            id: node(index),
            name: Name::new(format!("node-{index}")).unwrap(),
            role: NodeRole::Edge,
            address: ([127, 0, 0, 1], 1).into(),
            generation: 1,
            departed: None,
            revision: 0,
            relays: Vec::new(),
        },
        state,
        since: Instant::START,
    }
}

#[test]
fn the_higher_epoch_wins_and_within_one_only_the_holder_revises() {
    let mut registry = AgentRegistry::new(node(9));
    let mut check = |record, expected| {
        assert_eq!(registry.learn(at(1), record), expected);
        let location = registry.locate(&agent(1)).map(|found| &found.record);
        location.map(|r| (r.node, r.epoch.0, r.revision))
    };
    let not_holder = Merge::Refused(MergeRefusal::NotHolder);
    let held = Merge::Refused(MergeRefusal::HeldByAnother);
    assert_eq!(
        check(record(1, 9, 3, 1), not_holder),
        None,
        "this node knows what it holds"
    );
    let first = Some((node(1), 3, 5));
    assert_eq!(check(record(1, 1, 3, 5), Merge::Accepted), first);
    assert_eq!(check(record(1, 1, 3, 5), Merge::Refreshed), first);
    assert_eq!(check(record(1, 1, 3, 4), Merge::Stale), first);
    assert_eq!(check(record(1, 1, 2, 9), Merge::Stale), first);
    assert_eq!(check(record(1, 2, 3, 9), held), first);
    assert_eq!(check(record(1, 2, 2, 9), Merge::Stale), first);
    assert_eq!(
        check(record(1, 1, 3, 6), Merge::Accepted),
        Some((node(1), 3, 6))
    );
    assert_eq!(
        check(record(1, 2, 4, 1), Merge::Accepted),
        Some((node(2), 4, 1))
    );
    assert_eq!(
        check(record(1, 1, 3, 7), Merge::Stale),
        Some((node(2), 4, 1))
    );
}

#[test]
fn a_stale_holder_is_fenced_and_cannot_announce() {
    let mut registry = AgentRegistry::new(node(1));
    registry.announce(at(0), record(1, 1, 3, 0)).unwrap();
    assert_eq!(
        registry.announce(at(0), record(2, 2, 3, 0)),
        Err(RegistryError::NotHolder)
    );
    while registry.poll_event().is_some() {}
    let newer = record(1, 2, 5, 1);
    assert_eq!(registry.learn(at(1), newer.clone()), Merge::Accepted);
    let fenced = RegistryEvent::Fenced {
        agent: agent(1),
        ours: Epoch(3),
        by: newer,
    };
    assert_eq!(registry.poll_event(), Some(fenced));
    for epoch in [3, 4, 5] {
        let refused = registry.announce(at(2), record(1, 1, epoch, 0));
        assert_eq!(
            refused,
            Err(RegistryError::Superseded {
                node: node(2),
                epoch: Epoch(5)
            })
        );
    }
    registry.announce(at(2), record(1, 1, 6, 0)).unwrap();
}

#[test]
fn revisions_rise_and_a_restart_outnumbers_its_former_self() {
    let mut registry = AgentRegistry::new(node(1));
    for expected in [1_000, 1_001, 1_002] {
        registry.announce(at(0), record(1, 1, 0, 1_000)).unwrap();
        assert_eq!(
            registry.locate(&agent(1)).unwrap().record.revision,
            expected
        );
    }
    registry.announce(at(0), record(1, 1, 0, 5_000)).unwrap();
    assert_eq!(registry.locate(&agent(1)).unwrap().record.revision, 5_000);
}

#[test]
fn a_record_lives_ten_minutes_and_the_dead_keep_theirs_as_unreachable() {
    let mut registry = AgentRegistry::new(node(9));
    registry.member_changed(&member(1, MemberState::Alive));
    assert_eq!(registry.learn(at(1), record(1, 1, 0, 0)), Merge::Accepted);
    assert!(registry.locate(&agent(1)).unwrap().reachable);
    registry.member_changed(&member(1, MemberState::Suspect));
    assert!(registry.locate(&agent(1)).unwrap().reachable);
    while registry.poll_event().is_some() {}
    registry.member_changed(&member(1, MemberState::Dead));
    let changed = registry.poll_event();
    assert!(matches!(changed, Some(RegistryEvent::LocationChanged(l)) if !l.reachable));
    registry.handle_timeout(at(600));
    assert!(registry.locate(&agent(1)).is_some());
    registry.handle_timeout(at(601));
    let expired = RegistryEvent::LocationExpired(record(1, 1, 0, 0));
    assert_eq!(registry.poll_event(), Some(expired));
    assert!(registry.locate(&agent(1)).is_none());
}

#[test]
fn a_restart_with_a_slow_clock_outbids_its_former_self() {
    let mut registry = AgentRegistry::new(node(1));
    registry.announce(at(0), record(1, 1, 4, 1_000)).unwrap();
    let revision = |registry: &AgentRegistry| registry.locate(&agent(1)).unwrap().record.revision;
    assert_eq!(registry.learn(at(1), record(1, 1, 4, 999)), Merge::Stale);
    assert_eq!(revision(&registry), 1_000);
    assert_eq!(registry.learn(at(1), record(1, 1, 4, 7_000)), Merge::Stale);
    assert_eq!(revision(&registry), 7_001);
    // An epoch that this node does not hold is none of its own, whoever says so.
    let refused = Merge::Refused(MergeRefusal::NotHolder);
    assert_eq!(registry.learn(at(1), record(1, 1, 5, 1)), refused);
}

#[test]
fn one_node_cannot_fill_the_registry() {
    let mut registry = AgentRegistry::new(node(9));
    for index in 0..=REGISTRY_RECORDS_PER_NODE_MAX {
        let mut record = record(1, 1, 0, 0);
        record.agent.0[..8].copy_from_slice(&index.to_le_bytes());
        let expected = if index < REGISTRY_RECORDS_PER_NODE_MAX {
            Merge::Accepted
        } else {
            Merge::Refused(MergeRefusal::TooMany)
        };
        assert_eq!(registry.learn(at(1), record), expected);
    }
    assert_eq!(registry.learn(at(1), record(7, 2, 0, 0)), Merge::Accepted);
}

#[test]
fn a_full_registry_forgets_found_records_and_never_its_own() {
    let mut registry = AgentRegistry::new(node(250));
    registry.announce(at(0), record(255, 250, 1, 1)).unwrap();
    for index in 0..REGISTRY_RECORDS_MAX {
        let mut record = record(1, (index / REGISTRY_RECORDS_PER_NODE_MAX) as u8, 0, 0);
        record.agent.0[..8].copy_from_slice(&index.to_be_bytes());
        assert_eq!(registry.learn(at(1), record), Merge::Accepted);
    }
    assert_eq!(registry.iter().count(), REGISTRY_RECORDS_MAX);
    assert!(registry.locate(&agent(255)).is_some());
}

#[test]
fn a_withdrawn_agent_is_listed_nowhere_and_old_news_do_not_bring_it_back() {
    let mut holder = AgentRegistry::new(node(1));
    let mut peer = AgentRegistry::new(node(2));
    holder.announce(at(0), record(7, 1, 3, 0)).unwrap();
    let said = |holder: &mut AgentRegistry| match holder.poll_event().unwrap() {
        RegistryEvent::LocationChanged(location) => location.record,
        other => panic!("{other:?}"),
    };
    let first = said(&mut holder);
    peer.learn(at(0), first.clone());
    holder.withdraw(at(1), &agent(7));
    assert_eq!(peer.learn(at(1), said(&mut holder)), Merge::Accepted);
    for registry in [&holder, &peer] {
        assert_eq!(registry.locate(&agent(7)), None);
        assert_eq!(registry.iter().count(), 0);
    }
    assert_eq!(peer.learn(at(1), first), Merge::Stale);
    assert_eq!(
        holder.announce(at(1), record(7, 1, 3, 0)),
        Err(RegistryError::Removed)
    );
    // Nobody can withdraw what another node holds.
    peer.withdraw(at(1), &agent(7));
    holder.handle_timeout(at(1) + REGISTRY_TTL);
    assert_eq!((holder.locations.len(), peer.locations.len()), (0, 1));
}

#[test]
fn an_agent_that_left_is_not_listed_here_and_comes_back_with_a_higher_epoch() {
    let mut registry = AgentRegistry::new(node(1));
    registry.announce(at(0), record(1, 1, 3, 0)).unwrap();
    registry.release(&agent(1));
    let page: AgentPage<Anyone> = registry.page(&AgentQuery::default(), [].into_iter());
    assert_eq!(page.records(), 0);
    while registry.poll_event().is_some() {}
    registry.learn(at(1), record(1, 2, 4, 0));
    let news = registry.poll_event();
    assert!(matches!(news, Some(RegistryEvent::LocationChanged(l)) if l.record.node == node(2)));
    assert_eq!(registry.poll_event(), None, "nothing is stale here");
    registry.announce(at(2), record(1, 1, 5, 0)).unwrap();
    // Unless somebody takes over, what this node once said expires.
    registry.release(&agent(1));
    registry.handle_timeout(at(2) + REGISTRY_TTL);
    assert_eq!(registry.locate(&agent(1)), None);
}

#[test]
fn removed_agents_give_way_to_new_ones() {
    let mut registry = AgentRegistry::new(node(1));
    let numbered = |index: usize| {
        let mut who = record(0, 1, 1, 0);
        who.agent.0[..8].copy_from_slice(&index.to_le_bytes());
        who
    };
    for index in 0..REGISTRY_RECORDS_PER_NODE_MAX {
        registry.announce(at(0), numbered(index)).unwrap();
    }
    let next = numbered(REGISTRY_RECORDS_PER_NODE_MAX);
    assert_eq!(
        registry.announce(at(1), next.clone()),
        Err(RegistryError::TooMany)
    );
    registry.withdraw(at(1), &numbered(5).agent);
    registry.announce(at(1), next).unwrap();
    assert_eq!(registry.iter().count(), REGISTRY_RECORDS_PER_NODE_MAX);
}

#[test]
fn a_node_that_comes_back_without_its_agents_leaves_no_ghosts() {
    let mut registry = AgentRegistry::new(node(9));
    registry.member_changed(&member(1, MemberState::Alive));
    registry.learn(at(1), record(1, 1, 0, 0));
    // The same member again is no news; a new generation of it is.
    registry.member_changed(&member(1, MemberState::Suspect));
    assert!(registry.locate(&agent(1)).is_some());
    let mut reborn = member(1, MemberState::Alive);
    reborn.identity.generation = 2;
    registry.member_changed(&reborn);
    assert!(registry.locate(&agent(1)).is_none());
    while let Some(event) = registry.poll_event() {
        if event == RegistryEvent::LocationExpired(record(1, 1, 0, 0)) {
            return;
        }
    }
    panic!("nobody was told");
}

/// Takes every signature that repeats the key.
#[derive(Debug, PartialEq)]
enum Anyone {}

impl Verify for Anyone {
    fn verify(key: &[u8; 32], _: &[u8], signature: &[u8; 64]) -> bool {
        signature[..32] == key[..]
    }
}

/// A record of the node that has this key, with this signature.
fn signed(who: u8, key: u8, signature: u8) -> SignedLocation<Anyone> {
    let spki: vec::Vec<u8> = [
        &[
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0,
        ][..],
        &[key; 32],
    ]
    .concat();
    let mut record = record(who, 0, 1, 0);
    record.node = NodeId::of_public_key(&spki);
    let sign = |_: &[u8]| Ok::<_, ()>([signature; 64]);
    SignedLocation::sign(record, [key; 32], sign).unwrap()
}

type Kept = vec::Vec<(Key, SignedLocation<Anyone>)>;

/// Asks a member until it has said all.
fn ask(
    listing: &mut AgentListing,
    of: &AgentRegistry,
    kept: &Kept,
    prefix: &str,
) -> vec::Vec<usize> {
    let prefix = Prefix::new(prefix).unwrap();
    let mut query = Some(AgentQuery {
        prefix,
        after: None,
    });
    let mut sizes = vec![];
    while let Some(asked) = query {
        let asked = AgentQuery::decode(&asked.encode()).unwrap();
        let page = of.page(&asked, kept.iter().map(|(key, signed)| (key, signed)));
        let page: AgentPage<Anyone> = AgentPage::decode(&asked, &page.encode()).unwrap();
        sizes.push(page.records());
        query = page.next(&asked);
        listing.add(of.local, page);
    }
    sizes
}

fn ids(listed: vec::Vec<Location>) -> vec::Vec<(u8, bool)> {
    let ids = listed.into_iter();
    ids.map(|l| (l.record.agent.0[0], l.reachable)).collect()
}

#[test]
fn a_listing_has_what_members_hold_and_keep_of_the_dead() {
    let mut asker = AgentRegistry::new(node(1));
    let mut holder = AgentRegistry::new(node(2));
    for registry in [&mut asker, &mut holder] {
        registry.member_changed(&member(1, MemberState::Alive));
        registry.member_changed(&member(2, MemberState::Alive));
    }
    asker.announce(at(0), record(1, 1, 0, 0)).unwrap();
    holder.announce(at(0), record(2, 2, 0, 0)).unwrap();
    // Nobody told the asker that this one has been removed.
    asker.learn(at(0), record(3, 2, 0, 0));
    // What was found of a node that does not answer is better than nothing.
    asker.learn(at(0), record(4, 3, 0, 0));
    let keep = |who, signature| (Key::of_agent(&agent(who)), signed(who, 77, signature));
    let kept = vec![keep(5, 77), keep(6, 78)];
    let mut listing = AgentListing::default();
    assert_eq!(ask(&mut listing, &holder, &kept, ""), [3]);
    let all = ids(listing.finish(&asker, &Prefix::default()));
    assert_eq!(all, [(1, true), (2, true), (4, false), (5, false)]);

    let mut listing = AgentListing::default();
    assert_eq!(ask(&mut listing, &holder, &kept, "05"), [1]);
    let some = ids(listing.finish(&asker, &Prefix::new("05").unwrap()));
    assert_eq!(some, [(5, false)]);
}

#[test]
fn a_member_speaks_in_a_listing_for_itself_only() {
    let asker = AgentRegistry::new(node(1));
    let mut liar = AgentRegistry::new(node(2));
    liar.announce(at(0), record(2, 2, 0, 0)).unwrap();
    let mut page: AgentPage<Anyone> = liar.page(&AgentQuery::default(), [].into_iter());
    page.put(record(3, 8, 0, 0));
    let mut listing = AgentListing::default();
    listing.add(node(2), page);
    assert_eq!(
        ids(listing.finish(&asker, &Prefix::default())),
        [(2, false)]
    );
}

#[test]
fn a_listing_of_many_comes_in_pages_and_none_is_lost() {
    let mut holder = AgentRegistry::new(node(2));
    let numbered = |index: u16| {
        let mut record = record(0, 2, 1, 0);
        record.agent.0[..2].copy_from_slice(&index.to_be_bytes());
        record
    };
    for index in 0..2_000 {
        holder.announce(at(0), numbered(index)).unwrap();
    }
    let mut listing = AgentListing::default();
    let pages = ask(&mut listing, &holder, &vec![], "");
    assert!(pages.iter().all(|count| *count <= REGISTRY_PAGE_MAX));
    assert_eq!(pages.iter().sum::<usize>(), 2_000);
    let asker = AgentRegistry::new(node(1));
    assert_eq!(listing.finish(&asker, &Prefix::default()).len(), 2_000);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = AgentQuery::decode(&bytes);
        let query = AgentQuery::default();
        if let Ok(page) = AgentPage::<Anyone>::decode(&query, &bytes) {
            AgentListing::default().add(node(2), page);
        }
    }

    #[test]
    fn a_prefix_fits_what_begins_with_it(id in any::<[u8; 16]>(), len in 0..33_usize) {
        let agent = AgentId(id);
        let text = alloc::string::ToString::to_string(&agent);
        prop_assert!(Prefix::new(&text[..len].to_uppercase()).unwrap().fits(&agent));
        let other = AgentId([!id[0]; 16]);
        prop_assert!(len == 0 || !Prefix::new(&text[..len]).unwrap().fits(&other));
        let longer = format!("{text}0");
        prop_assert!(Prefix::new(&longer).is_err());
    }
}

#[test]
fn what_a_node_says_counts_for_nothing_once_it_is_shut_out() {
    let mut registry = AgentRegistry::new(node(9));
    assert_eq!(registry.learn(at(0), record(1, 1, 5, 0)), Merge::Accepted);
    registry.shut_out(&node(1));
    assert_eq!(registry.locate(&agent(1)), None);
    let refused = Merge::Refused(MergeRefusal::ShutOut);
    assert_eq!(registry.learn(at(1), record(1, 1, 8, 0)), refused);
    // Another may hold the agent, in any epoch.
    assert_eq!(registry.learn(at(1), record(1, 2, 1, 0)), Merge::Accepted);

    let mut peer = AgentRegistry::new(node(1));
    peer.announce(at(0), record(3, 1, 1, 0)).unwrap();
    let page: AgentPage<Anyone> = peer.page(&AgentQuery::default(), [].into_iter());
    let mut listing = AgentListing::default();
    listing.add(node(1), page);
    let listed = listing.finish(&registry, &Prefix::default());
    let agents: Vec<AgentId> = listed.iter().map(|l| l.record.agent).collect();
    assert_eq!(agents, [agent(1)]);
}
