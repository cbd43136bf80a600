use mielin_fuzz::{Seed, Target};
use mielin_mesh_core::limits::CODEC_BYTES_MAX;

use super::*;

const HOST: NodeId = NodeId([1; 32]);

fn leaf(number: u8, standing: LeafStanding, agents: usize) -> LeafSummary {
    LeafSummary {
        leaf: NodeId([number; 32]),
        name: Name::new(format!("leaf-{number}")).unwrap(),
        host: HOST,
        standing,
        is_ready: standing == LeafStanding::Connected,
        agents: (0..agents)
            .map(|index| AgentId([index as u8; 16]))
            .collect(),
    }
}

/// What a host answers who is asked for its leaves.
const LEAVES: Target = Target {
    name: "leaves",
    mutations: 20_000,
    // What the codec's limit lets a length claim.
    fixed_bytes: CODEC_BYTES_MAX + (64 << 10),
    bytes_per_byte: 8,
    run: |bytes| {
        let Some(leaves) = decode(HOST, bytes) else {
            return false;
        };
        assert!(leaves.len() <= LEAVES_MAX);
        assert_eq!(decode(HOST, &encode(&leaves)), Some(leaves));
        true
    },
    seeds: || {
        let some = [
            leaf(2, LeafStanding::Connected, 2),
            leaf(3, LeafStanding::Asleep, 0),
            leaf(4, LeafStanding::Gone, AGENTS_MAX),
        ];
        let host_itself = [leaf(1, LeafStanding::Connected, 0)];
        let mut too_many_agents = vec![1];
        too_many_agents.extend(codec::encode(&Line {
            leaf: NodeId([5; 32]),
            name: Name::new("crowd").unwrap(),
            standing: LeafStanding::Connected,
            is_ready: true,
            agents: vec![AgentId([0; 16]); AGENTS_MAX + 1],
        }));
        vec![
            Seed::good("none", &encode(&[])[..]),
            Seed::good("three", &encode(&some)[..]),
            Seed::bad("cut-off", &encode(&some)[..40]),
            Seed::bad("the-host-itself", &encode(&host_itself)[..]),
            Seed::bad("a-crowd-of-agents", too_many_agents),
            Seed::bad("claims-2-to-the-62", [253, 0, 0, 0, 0, 0, 0, 0, 64]),
        ]
    },
};

#[test]
fn leaves() {
    LEAVES.replay();
}

#[test]
fn all_that_a_host_may_have_fit_into_an_answer() {
    let most = vec![leaf(7, LeafStanding::Gone, 2 * AGENTS_MAX); LEAVES_MAX + 1];
    let told = decode(HOST, &encode(&most)).unwrap();
    assert_eq!(
        told,
        vec![leaf(7, LeafStanding::Gone, AGENTS_MAX); LEAVES_MAX]
    );
}

#[test]
fn an_agent_is_on_a_leaf_if_its_own_host_says_so() {
    let directory = LeafDirectory {
        leaves: vec![leaf(2, LeafStanding::Connected, 2)],
        silent: Vec::new(),
    };
    let agent = AgentId([1; 16]);
    assert_eq!(directory.leaf_with(&HOST, &agent), Some(NodeId([2; 32])));
    assert_eq!(directory.leaf_with(&NodeId([9; 32]), &agent), None);
    assert_eq!(directory.leaf_with(&HOST, &AgentId([7; 16])), None);
}
