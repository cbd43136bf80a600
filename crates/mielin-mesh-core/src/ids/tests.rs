#![allow(clippy::unwrap_used)]

use alloc::format;

use proptest::prelude::*;

use super::*;
use crate::codec;

#[test]
fn an_agents_id_depends_on_all_of_its_content() {
    let (module, owner, nonce) = ([1; 32], NodeId([2; 32]), [3; 16]);
    let id = AgentId::derive(&module, &owner, &nonce);
    assert_eq!(id, AgentId::derive(&module, &owner, &nonce));
    assert_ne!(id, AgentId::derive(&[9; 32], &owner, &nonce));
    assert_ne!(id, AgentId::derive(&module, &NodeId([9; 32]), &nonce));
    assert_ne!(id, AgentId::derive(&module, &owner, &[9; 16]));
    // The ids of agents that exist must not change with a version.
    assert_eq!(id.to_string(), "c106e2f5205db8e306b849425ae6ac3f");
}

#[test]
fn random_ids_differ() {
    assert_ne!(AgentId::new(), AgentId::new());
}

#[test]
fn a_server_name_is_one_label_and_a_suffix() {
    let name = NodeId([0xff; 32]).server_name();
    assert_eq!(name.find('.'), Some(52), "{name}");
    assert_eq!(NodeId::from_server_name(&name), Ok(NodeId([0xff; 32])));
    let upper = name.to_uppercase();
    let short = name.replacen('7', "", 1);
    let odd = name.replacen('q', "7", 1);
    for bad in [
        "",
        ".node.mielin",
        "a.node.mielin",
        &upper,
        &short,
        &odd,
        &name[..52],
    ] {
        assert_eq!(
            NodeId::from_server_name(bad),
            Err(IdError::NotServerName),
            "{bad}"
        );
    }
}

#[test]
fn words_parse_as_they_print() {
    for role in [NodeRole::Edge, NodeRole::Relay, NodeRole::Core] {
        assert_eq!(role.to_string().parse(), Ok(role));
    }
    for bad in ["Edge", "", "edge "] {
        assert_eq!(bad.parse::<NodeRole>(), Err(IdError::NotRole));
    }
    for bad in [
        "",
        "zz",
        "00",
        &"0".repeat(31),
        &"0".repeat(33),
        "0x000000000000000000000000000000",
    ] {
        assert_eq!(
            bad.parse::<AgentId>(),
            Err(IdError::NotHex { expected: 32 }),
            "{bad}"
        );
    }
    assert_eq!(format!("{:<8}|", NodeRole::Core), "core    |");
}

#[test]
fn names_are_short_and_visible() {
    let longest = "n".repeat(NAME_BYTES_MAX);
    for good in ["a", "digest-2", "räuber", "日本", &longest] {
        assert_eq!(Name::new(good).unwrap().as_str(), good);
    }
    assert_eq!(Name::new(""), Err(NameError::Empty));
    let long = Name::new("é".repeat(33));
    assert_eq!(long, Err(NameError::TooLong { len: 66 }));
    for (bad, character) in [
        ("a b", ' '),
        ("a\n", '\n'),
        ("\u{1b}[31m", '\u{1b}'),
        ("a\u{a0}", '\u{a0}'),
    ] {
        assert_eq!(Name::new(bad), Err(NameError::BadCharacter { character }));
        // A peer cannot smuggle one in either.
        let bytes = codec::encode(&String::from(bad));
        assert!(codec::decode::<Name>(&bytes).is_err());
    }
    for hyphen in ["-", "--help", "-1"] {
        assert_eq!(Name::new(hyphen), Err(NameError::Hyphen));
    }
    let too_long = codec::encode(&"n".repeat(NAME_BYTES_MAX + 1));
    assert!(codec::decode::<Name>(&too_long).is_err());
}

#[test]
fn states_travel() {
    let failed = AgentState::Failed {
        reason: "out of memory".into(),
    };
    for state in [
        AgentState::Waiting,
        AgentState::Ended { exit_code: -3 },
        failed,
    ] {
        assert_eq!(codec::decode(&codec::encode(&state)), Ok(state));
    }
}

/// What is said of a node in an error names it as every command shows it.
#[test]
fn errors_name_nodes_in_their_short_form() {
    use std::string::ToString;
    let (from, claimed) = (NodeId([1; 32]), NodeId([2; 32]));
    let said = [
        crate::MembershipError::Spoofed { from, claimed }.to_string(),
        crate::kademlia::DhtError::Spoofed { from, claimed }.to_string(),
        crate::revocation::RevocationError::Forged(from).to_string(),
        crate::registry::RegistryError::Superseded {
            node: from,
            epoch: Epoch(1),
        }
        .to_string(),
    ];
    for said in said {
        assert!(said.contains(&from.short()), "{said}");
        assert!(!said.contains("NodeId("), "{said}");
    }
}

proptest! {
    #[test]
    fn ids_parse_as_they_print(node: [u8; 32], agent: [u8; 16]) {
        let (node, agent) = (NodeId(node), AgentId(agent));
        prop_assert_eq!(node.to_string().parse(), Ok(node));
        prop_assert_eq!(agent.to_string().parse(), Ok(agent));
        prop_assert_eq!(agent.to_string().to_uppercase().parse(), Ok(agent));
        prop_assert_eq!(NodeId::from_server_name(&node.server_name()), Ok(node));
        prop_assert!(node.to_string().starts_with(&node.short()));
    }
}
