//! Agents on leaves, which are here in software and hold on to a node over UDP.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use mielin_cells::{Cells, CellsConfig, CellsError, EXIT_LOST, MoveOptions};
use mielin_mesh::{LeafConfig, LeafPresence, LineSource, WayEnd};
use mielin_mesh_core::leaf::Admission;
use mielin_mesh_core::{AgentId, MigrationStrategy, Name, NodeId};
use tokio::task::JoinSet;

use crate::nodes::{Node, PATIENCE, ask, copy, mesh, shut_down, within};
use crate::programs;
use crate::soft_leaf::{SERIES, SoftLeaf, over_udp};

/// Moves over a line that is cut are given up after so long.
const MOVE_TIMEOUT: Duration = Duration::from_secs(3);

/// The serial line of the one leaf.
fn line(node: &Node) -> PathBuf {
    node.directory.path().join("line")
}

fn on_line(node: &Node) -> LeafConfig {
    LeafConfig {
        udp: None,
        lines: vec![LineSource::Socket(line(node))],
    }
}

/// Looks again and again until it is so.
async fn until(what: impl Fn() -> bool) {
    within(async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while !what() {
            look.tick().await;
        }
    })
    .await;
}

/// A mesh whose first node hosts a leaf that is there.
async fn with_leaf(nodes: usize) -> (Vec<Node>, Admission, SoftLeaf) {
    with_leaf_on(on_line, nodes).await
}

async fn with_leaf_on(
    config: fn(&Node) -> LeafConfig,
    nodes: usize,
) -> (Vec<Node>, Admission, SoftLeaf) {
    let nodes = mesh(nodes, |_, config| config.move_timeout = MOVE_TIMEOUT).await;
    let hosting = nodes[0].mesh.host_leaves(config(&nodes[0])).await;
    let (leaves, news) = hosting.unwrap();
    nodes[0].cells.host_leaves(leaves, news).await.unwrap();
    let links = nodes[0].cells.leaf_links().unwrap();
    let admission = links.admit(Name::new("meter").unwrap()).unwrap();
    let leaf = SoftLeaf::start(&admission, 7, &line(&nodes[0]));
    if let WayEnd::Udp(host) = links.ways()[0].end {
        tokio::spawn(over_udp(line(&nodes[0]), host));
    }
    is_ready(&nodes[0]).await;
    (nodes, admission, leaf)
}

async fn is_ready(node: &Node) {
    until(|| {
        let leaves = node.cells.leaves();
        leaves.iter().any(|leaf| {
            let ready = leaf.profile.as_ref().is_some_and(|p| p.status.ready);
            leaf.entry.state == LeafPresence::Connected && ready
        })
    })
    .await;
}

async fn to_leaf(node: &Node, agent: AgentId, leaf: &SoftLeaf) {
    let moved = node
        .cells
        .migrate(agent, leaf.id, MoveOptions::default(), None);
    let report = within(moved).await.unwrap();
    assert_eq!(report.to, leaf.id);
    assert_eq!(report.strategy, MigrationStrategy::StopCopy);
}

/// Kills the node with its leaf links as far as its disk and its leaves can tell, and starts it again.
async fn killed_and_restarted(node: Node, leaf: &SoftLeaf) -> Node {
    let config = on_line(&node);
    // What is acknowledged after this is on no disk that is found again.
    let frames = leaf.with(|leaf| leaf.frames_left.replace(0));
    let aside = node.directory.path().join("aside");
    copy(&node.directory.path().join("cells"), &aside);
    node.cells.shutdown().await;
    leaf.with(|leaf| leaf.frames_left = frames);
    let cells = node.directory.path().join("cells");
    std::fs::remove_dir_all(&cells).unwrap();
    std::fs::rename(aside, &cells).unwrap();
    let config_of_cells = CellsConfig {
        data_dir: Some(cells),
        move_timeout: MOVE_TIMEOUT,
        ..CellsConfig::default()
    };
    let cells = Cells::start(config_of_cells, node.mesh.clone())
        .await
        .unwrap();
    let (leaves, news) = node.mesh.host_leaves(config).await.unwrap();
    cells.host_leaves(leaves, news).await.unwrap();
    Node { cells, ..node }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_to_a_leaf_and_back_in_mid_loop() {
    let (nodes, _, leaf) = with_leaf(2).await;
    let agent = nodes[0].spawn(&programs::compute(64, 0), "digest").await;
    nodes[0].lines(agent, 2).await;
    for round in 1..=3 {
        to_leaf(&nodes[0], agent, &leaf).await;
        until(|| leaf.arrivals() == round).await;
        let summary = nodes[0].cells.residents();
        assert_eq!(summary[0].node, leaf.id);
        assert_eq!(nodes[0].cells.leaves()[0].agents, [agent]);
        let lines = nodes[0].stdout(agent).await.lines().count();
        nodes[0].lines(agent, lines + 2).await;
        // To its host, and past it to another node.
        let target = &nodes[usize::from(round % 2 == 0)];
        let back = nodes[0]
            .cells
            .migrate(agent, target.id(), MoveOptions::default(), None);
        within(back).await.unwrap();
        until(|| leaf.with(|leaf| leaf.guests.is_empty())).await;
        let lines = target.stdout(agent).await.lines().count();
        target.lines(agent, lines + 2).await;
        if target.id() != nodes[0].id() {
            let home = target
                .cells
                .migrate(agent, nodes[0].id(), MoveOptions::default(), None);
            within(home).await.unwrap();
        }
    }
    nodes[0]
        .cells
        .send(agent, Bytes::from_static(b"end"))
        .await
        .unwrap();
    let text = nodes[0].whole_stdout(agent).await;
    let lines = text.lines().count();
    assert_eq!(text, programs::computed(64, lines));
    shut_down(nodes).await;
}

/// The leaf's name and the agents on it, as a node knows them, and where it says that an agent is.
async fn seen_from(node: &Node, agent: AgentId) -> (Vec<(String, Vec<AgentId>)>, NodeId) {
    let leaves = node.cells.mesh_leaves().await;
    assert!(leaves.silent.is_empty());
    let lines = leaves.leaves.into_iter();
    let lines = lines.map(|leaf| (leaf.name.to_string(), leaf.agents));
    let agents = node.cells.agents().await.unwrap().agents;
    let place = agents.iter().find(|line| line.agent == agent).unwrap().node;
    (lines.collect(), place)
}

/// Datagrams, each a packet, for a leaf that has a line.
#[tokio::test(flavor = "multi_thread")]
async fn agents_go_to_a_leaf_over_udp_and_back() {
    let any = |_: &Node| LeafConfig {
        udp: Some(([127, 0, 0, 1], 0).into()),
        lines: Vec::new(),
    };
    let (nodes, _, leaf) = with_leaf_on(any, 1).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    for round in 1..=3 {
        to_leaf(&nodes[0], agent, &leaf).await;
        until(|| leaf.arrivals() == round).await;
        assert_eq!(ask(&nodes[0], agent, "there").await, "there");
        let home = nodes[0].id();
        let back = nodes[0]
            .cells
            .migrate(agent, home, MoveOptions::default(), None);
        within(back).await.unwrap();
        assert_eq!(ask(&nodes[0], agent, "back").await, "back");
    }
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_members_know_a_leaf_and_move_agents_to_it() {
    let (nodes, _, leaf) = with_leaf(2).await;
    let agent = nodes[1].spawn(&programs::echo(), "echo").await;
    nodes[0].until(agent, |_, _| true).await;
    let id = leaf.id.to_string();
    for query in ["meter", &id[..8]] {
        let found = nodes[1].cells.resolve_leaf(query).await;
        assert_eq!(found.unwrap(), leaf.id);
    }
    assert!(nodes[1].cells.resolve_leaf("metre").await.is_err());
    assert!(nodes[1].cells.resolve_node("meter").is_err());
    // From the other node, by way of the host; and back, from where the agent is not.
    for asked in [&nodes[1], &nodes[0]] {
        let cells = &asked.cells;
        let moved = cells.migrate(agent, leaf.id, MoveOptions::default(), None);
        let report = within(moved).await.unwrap();
        assert_eq!((report.from, report.to), (nodes[1].id(), leaf.id));
        for node in &nodes {
            let there = (vec![("meter".to_owned(), vec![agent])], leaf.id);
            within(async { while seen_from(node, agent).await != there {} }).await;
        }
        assert_eq!(ask(&nodes[1], agent, "there").await, "there");
        assert_eq!(cells.inspect(agent).await.unwrap().node, leaf.id);
        let again = cells.migrate(agent, leaf.id, MoveOptions::default(), None);
        let again = within(again).await.unwrap_err();
        assert!(matches!(again, CellsError::SameNode { .. }), "{again}");
        let back = cells.migrate(agent, nodes[1].id(), MoveOptions::default(), None);
        let report = within(back).await.unwrap();
        assert_eq!((report.from, report.to), (leaf.id, nodes[1].id()));
        let back = (vec![("meter".to_owned(), Vec::new())], nodes[1].id());
        within(async { while seen_from(&nodes[0], agent).await != back {} }).await;
    }
    // One that is too large for it comes as far as its host, which is said.
    let large = nodes[1].spawn(&programs::compute(64, 1), "large").await;
    nodes[0].until(large, |_, _| true).await;
    let cells = &nodes[1].cells;
    let moved = within(cells.migrate(large, leaf.id, MoveOptions::default(), None)).await;
    let Err(CellsError::AtHost { host, error, .. }) = moved else {
        panic!("{moved:?}");
    };
    assert_eq!(host, nodes[0].id());
    assert!(matches!(*error, CellsError::Remote { .. }), "{error:?}");
    assert_eq!(cells.inspect(large).await.unwrap().node, host);
    cells.terminate(large).await.unwrap();
    // To the host, to the leaf, to the host and to the other node, twice.
    let moves = nodes[0].cells.inspect(agent).await.unwrap().counters.moves;
    assert_eq!(moves, 8);
    // One that a leaf does not take stays where it is.
    nodes[0].cells.pause(agent).await.unwrap();
    let options = MoveOptions::default();
    let moved = within(nodes[0].cells.migrate(agent, leaf.id, options, None)).await;
    assert!(matches!(moved, Err(CellsError::Busy { .. })), "{moved:?}");
    let place = nodes[0].cells.inspect(agent).await.unwrap().node;
    assert_eq!(place, nodes[1].id());
    nodes[0].cells.resume(agent).await.unwrap();
    leaf.with(|leaf| leaf.drain = 85);
    until(|| {
        let leaves = nodes[0].cells.leaves();
        let status = leaves[0].profile.as_ref().map(|profile| profile.status);
        status.is_some_and(|status| !status.ready)
    })
    .await;
    let moved = within(nodes[1].cells.migrate(agent, leaf.id, options, None)).await;
    let refused = matches!(moved, Err(CellsError::LeafNotReady { .. }));
    assert!(refused, "{moved:?}");
    let place = nodes[0].cells.inspect(agent).await.unwrap().node;
    assert_eq!(place, nodes[1].id());
    let nobody = NodeId([7; 32]);
    let moved = nodes[1]
        .cells
        .migrate(agent, nobody, MoveOptions::default(), None);
    let error = within(moved).await.unwrap_err();
    assert!(matches!(error, CellsError::NodeNotFound(_)), "{error}");
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_reach_an_agent_on_a_leaf_and_come_from_it() {
    let (nodes, _, leaf) = with_leaf(2).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    nodes[1].until(agent, |_, _| true).await;
    assert_eq!(ask(&nodes[1], agent, "here").await, "here");
    to_leaf(&nodes[0], agent, &leaf).await;
    for words in ["one", "two", "three"] {
        assert_eq!(ask(&nodes[1], agent, words).await, words);
    }
    // What it takes there and what it cannot do there.
    let error = nodes[0].cells.pause(agent).await.unwrap_err();
    assert!(matches!(error, CellsError::OnLeaf { .. }), "{error}");
    let error = nodes[0].cells.hibernate(agent).await.unwrap_err();
    assert!(matches!(error, CellsError::OnLeaf { .. }), "{error}");
    within(nodes[1].cells.terminate(agent)).await.unwrap();
    assert_eq!(leaf.arrivals(), 1);
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_flees_hands_its_agents_over_and_gets_them_back() {
    let (nodes, _, leaf) = with_leaf(1).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    to_leaf(&nodes[0], agent, &leaf).await;
    leaf.with(|leaf| leaf.drain = 85);
    until(|| leaf.with(|leaf| leaf.guests.is_empty())).await;
    assert_eq!(ask(&nodes[0], agent, "at the host").await, "at the host");
    let moved = nodes[0]
        .cells
        .migrate(agent, leaf.id, MoveOptions::default(), None);
    let error = within(moved).await.unwrap_err();
    assert!(matches!(error, CellsError::LeafNotReady { .. }), "{error}");
    // The charger comes at 10 %.
    leaf.with(|leaf| leaf.drain = 6);
    until(|| leaf.with(|leaf| leaf.drain == 0)).await;
    leaf.with(|leaf| leaf.charge = 70);
    until(|| leaf.arrivals() == 2).await;
    assert_eq!(ask(&nodes[0], agent, "at the leaf").await, "at the leaf");
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_starts_anew_has_lost_its_agents() {
    let (nodes, admission, leaf) = with_leaf(1).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    to_leaf(&nodes[0], agent, &leaf).await;
    until(|| leaf.arrivals() == 1).await;
    drop(leaf);
    let _leaf = SoftLeaf::start(&admission, 7, &line(&nodes[0]));
    let end = within(nodes[0].cells.wait(agent)).await.unwrap();
    assert_eq!(end.exit_code, EXIT_LOST);
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_is_removed_takes_its_agents_with_it() {
    let (nodes, _, leaf) = with_leaf(1).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    nodes[0].cells.pause(agent).await.unwrap();
    let moved = nodes[0]
        .cells
        .migrate(agent, leaf.id, MoveOptions::default(), None);
    let error = within(moved).await.unwrap_err();
    assert!(matches!(error, CellsError::Busy { .. }), "{error}");
    nodes[0].cells.resume(agent).await.unwrap();
    to_leaf(&nodes[0], agent, &leaf).await;
    let links = nodes[0].cells.leaf_links().unwrap();
    let removed = tokio::task::block_in_place(|| links.dismiss("meter"));
    assert_eq!(removed.unwrap().node, Some(leaf.id));
    let end = within(nodes[0].cells.wait(agent)).await.unwrap();
    assert_eq!(end.exit_code, EXIT_LOST);
    let moved = nodes[0]
        .cells
        .migrate(agent, leaf.id, MoveOptions::default(), None);
    assert!(within(moved).await.is_err());
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_finds_its_agents_on_leaves_again() {
    let (mut nodes, _, leaf) = with_leaf(2).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    nodes[1].until(agent, |_, _| true).await;
    to_leaf(&nodes[0], agent, &leaf).await;
    assert_eq!(ask(&nodes[1], agent, "before").await, "before");
    let other = nodes.pop().unwrap();
    let host = nodes.pop().unwrap();
    let host = killed_and_restarted(host, &leaf).await;
    is_ready(&host).await;
    assert_eq!(ask(&other, agent, "after").await, "after");
    assert_eq!(leaf.arrivals(), 1);
    let back = host
        .cells
        .migrate(agent, host.id(), MoveOptions::default(), None);
    within(back).await.unwrap();
    assert_eq!(ask(&other, agent, "home").await, "home");
    until(|| leaf.with(|leaf| leaf.guests.is_empty())).await;
    shut_down(vec![other, host]).await;
}

/// The figures that the sample agent `sensor` answers with.
async fn figures(node: &Node, agent: AgentId) -> [u64; 8] {
    let answer = within(node.cells.request(agent, Bytes::new(), PATIENCE)).await;
    let answer = answer.unwrap();
    let (words, rest) = answer.as_chunks::<8>();
    assert!(rest.is_empty());
    let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    words.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_is_read_on_its_leaf_and_from_the_host_without_a_gap() {
    let (nodes, _, leaf) = with_leaf(1).await;
    let module = include_bytes!("../../../../agents/prebuilt/sensor.wasm");
    let grants = ["sensor:0", "actuator:0"];
    let agent = nodes[0].spawn_granted(module, "sensor", &grants).await;
    let mut counts = vec![0];
    for round in 1..=2 {
        to_leaf(&nodes[0], agent, &leaf).await;
        until(|| leaf.arrivals() == round).await;
        counts.push(more(&nodes[0], agent, counts[counts.len() - 1]).await);
        let back = nodes[0]
            .cells
            .migrate(agent, nodes[0].id(), MoveOptions::default(), None);
        within(back).await.unwrap();
        counts.push(more(&nodes[0], agent, counts[counts.len() - 1]).await);
    }
    // The sensor is switched on when it is first asked for, so that its first reading is the agent's, too.
    let [last, count, lost, doubled, sum, ..] = figures(&nodes[0], agent).await;
    assert_eq!((count, lost, doubled), (last, 0, 0));
    let value = |number: u64| SERIES[(number as usize - 1) % SERIES.len()];
    let expected: i64 = (1..=last).map(|number| i64::from(value(number))).sum();
    assert_eq!(sum.cast_signed(), expected);
    let handovers = nodes[0].cells.leaves().remove(0).handovers;
    let ways: Vec<bool> = handovers.iter().map(|one| one.to_leaf).collect();
    assert_eq!(ways, [true, false, true, false]);
    shut_down(nodes).await;
}

/// Waits until the agent has read ten more than `before`.
async fn more(node: &Node, agent: AgentId, before: u64) -> u64 {
    loop {
        let [_, count, _, doubled, ..] = figures(node, agent).await;
        assert_eq!(doubled, 0);
        if count >= before + 10 {
            return count;
        }
    }
}

/// Whether exactly one of both has the agent, and it does what it is asked.
async fn is_one(node: &Node, agent: AgentId, leaf: &SoftLeaf) {
    assert_eq!(ask(node, agent, "still there?").await, "still there?");
    until(|| {
        let residents = node.cells.residents();
        let guests = leaf.with(|leaf| leaf.guests.clone());
        match residents.iter().find(|resident| resident.agent == agent) {
            Some(resident) if resident.node == leaf.id => guests == [agent],
            Some(resident) => !resident.state.is_final() && guests.is_empty(),
            None => false,
        }
    })
    .await;
}

/// Where the agent is when nothing changes any more, with a line that is cut.
async fn at_rest(node: &Node, leaf: &SoftLeaf) -> NodeId {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let (mut seen, mut times) = (None, 0);
    while times < 40 {
        look.tick().await;
        let now = node.cells.residents().first().map(|one| one.node);
        let lines = leaf.with(|leaf| leaf.console.len());
        times = if seen == Some((now, lines)) {
            times + 1
        } else {
            0
        };
        seen = Some((now, lines));
    }
    seen.and_then(|(at, _)| at).unwrap()
}

/// Begins a move over a line that carries so many frames more, and waits until it is over or the line is cut.
async fn move_over(node: &Node, agent: AgentId, to: NodeId, leaf: &SoftLeaf, frames: u64) {
    leaf.with(|leaf| leaf.frames_left = Some(frames));
    let cells = node.cells.clone();
    let moving = async move {
        // It may be given up, and that is well.
        let _ = cells.migrate(agent, to, MoveOptions::default(), None).await;
    };
    let cut = until(|| leaf.with(|leaf| leaf.frames_left == Some(0)));
    tokio::select! {
        () = moving => {}
        () = cut => {}
    }
}

/// It goes on, and does not stand still for as long as the line carries another.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_runs_until_the_line_is_free_for_it() {
    let (nodes, _, leaf) = with_leaf(1).await;
    let first = nodes[0].spawn(&programs::echo(), "first").await;
    let second = nodes[0].spawn(&programs::echo(), "second").await;
    let going = |agent| {
        let (cells, leaf) = (nodes[0].cells.clone(), leaf.id);
        let options = MoveOptions::default();
        tokio::spawn(async move { cells.migrate(agent, leaf, options, None).await })
    };
    // The line is cut in the middle of the first one.
    leaf.with(|leaf| leaf.frames_left = Some(5));
    let before = going(first);
    until(|| leaf.with(|leaf| leaf.frames_left == Some(0))).await;
    let after = going(second);
    for _ in 0..20 {
        assert_eq!(ask(&nodes[0], second, "here").await, "here");
    }
    assert!(!before.is_finished());
    leaf.with(|leaf| leaf.frames_left = None);
    for moved in [before, after] {
        // The first one may have been given up.
        let _ = within(moved).await.unwrap();
    }
    for agent in [first, second] {
        assert_eq!(ask(&nodes[0], agent, "after").await, "after");
    }
    shut_down(nodes).await;
}

/// Hosts with a leaf at which lines are cut at once: most of the time they wait for what is repeated.
const CUT_AT_ONCE: u64 = 9;

/// The line is cut after each number of frames of a move, there and back, and the host goes on or is killed at that point.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_line_and_a_killed_host_leave_one_copy_at_every_step() {
    let mut cutting: JoinSet<()> = (0..CUT_AT_ONCE).map(cut_lines).collect();
    while let Some(done) = cutting.join_next().await {
        done.unwrap();
    }
}

/// Four moves, after the first frames and after some more.
async fn cut_lines(first: u64) {
    let (mut nodes, _, leaf) = with_leaf(1).await;
    let mut host = nodes.remove(0);
    let agent = host.spawn(&programs::echo(), "echo").await;
    for step in 0..4 {
        let round = step / 2;
        let kills = (first + round).is_multiple_of(2);
        let frames = first + CUT_AT_ONCE * round;
        let away = host.cells.residents()[0].node == leaf.id;
        // A move there takes about a dozen frames, one back about thirty, most of them pieces of the agent.
        let (target, frames) = if away {
            (host.id(), 20 + frames)
        } else {
            (leaf.id, frames)
        };
        move_over(&host, agent, target, &leaf, frames).await;
        // Of agents that run on a node those are lost that it has when it is killed, wherever they have been.
        if kills && at_rest(&host, &leaf).await == leaf.id {
            host = killed_and_restarted(host, &leaf).await;
        }
        leaf.with(|leaf| leaf.frames_left = None);
        is_ready(&host).await;
        is_one(&host, agent, &leaf).await;
    }
    shut_down(vec![host]).await;
}

/// Its battery is well again before the host has it, or after: the stay goes on, and so do the numbers of its messages.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stays_after_all_loses_no_message() {
    let (nodes, _, leaf) = with_leaf(1).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    to_leaf(&nodes[0], agent, &leaf).await;
    // The host has all of it after about thirty frames.
    for frames in (0..4).chain(22..42) {
        assert_eq!(ask(&nodes[0], agent, "before").await, "before");
        leaf.with(|leaf| (leaf.frames_of_offer, leaf.drain) = (Some(frames), 85));
        let cut = || leaf.with(|leaf| leaf.frames_left == Some(0));
        let gone = || leaf.with(|leaf| leaf.guests.is_empty());
        until(|| cut() || gone()).await;
        leaf.with(|leaf| leaf.drain = 6);
        until(|| leaf.with(|leaf| leaf.drain == 0)).await;
        // Full again, and without the charger.
        leaf.with(|leaf| leaf.charge = 95);
        until(|| leaf.with(|leaf| leaf.charge == 0)).await;
        leaf.with(|leaf| leaf.frames_left = None);
        assert_eq!(ask(&nodes[0], agent, "after").await, "after");
        is_ready(&nodes[0]).await;
        until(|| leaf.with(|leaf| leaf.guests == [agent])).await;
    }
    shut_down(nodes).await;
}
