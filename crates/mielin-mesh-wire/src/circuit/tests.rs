#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn a_number_has_an_address_and_no_other_address_has_a_number() {
    for number in [1, 0xffff, 0x1_0001, NUMBERS - 1] {
        let address = address_of(number);
        assert_eq!(number_of(&address), Some(number));
        let SocketAddr::V4(v4) = address else {
            panic!("{address}")
        };
        // As an endpoint on an IPv6 socket says it.
        let mapped = SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port());
        assert_eq!(number_of(&mapped), Some(number));
    }
    for other in ["127.0.0.1:1", "247.109.100.1:1", "[fd6d::1]:1", "[::1]:1"] {
        assert_eq!(number_of(&other.parse().unwrap()), None, "{other}");
    }
}

fn line() -> (mpsc::Sender<Bytes>, watch::Sender<bool>) {
    (mpsc::channel(1).0, watch::channel(false).0)
}

fn node(number: u32) -> NodeId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

fn add(table: &mut Table, to: u32, relay: u32, ours: bool) -> Result<(u32, u64), CircuitError> {
    let (leaving, closing) = line();
    table.add(node(to), node(relay), ours, leaving, closing)
}

#[test]
fn circuits_are_bounded_for_each_node_and_in_all() {
    let mut table = Table::default();
    add(&mut table, 0, 5000, true).unwrap();
    assert_eq!(add(&mut table, 0, 5000, true), Err(CircuitError::Exists));
    add(&mut table, 0, 5001, true).unwrap();
    let (number, last) = add(&mut table, 0, 5002, true).unwrap();
    assert_eq!(
        add(&mut table, 0, 5003, true),
        Err(CircuitError::TooManyCircuits)
    );
    for to in 1..NODES_MAX as u32 {
        add(&mut table, to, 5000, true).unwrap();
    }
    let one_more = NODES_MAX as u32;
    assert_eq!(
        add(&mut table, one_more, 5000, true),
        Err(CircuitError::TooManyNodes)
    );
    // A place is free when the last circuit to a node has gone, and not before.
    table.remove(number, last);
    assert_eq!(
        add(&mut table, one_more, 5000, true),
        Err(CircuitError::TooManyNodes)
    );
    for line in std::mem::take(&mut table.paths.get_mut(&number).unwrap().lines) {
        table.remove(number, line.id);
    }
    add(&mut table, one_more, 5000, true).unwrap();
    assert_eq!(table.paths.len(), NODES_MAX);
}

#[test]
fn a_circuit_of_ones_own_is_preferred_to_one_that_a_relay_brought() {
    let mut table = Table::default();
    let (number, own) = add(&mut table, 0, 1, true).unwrap();
    let (same, _) = add(&mut table, 0, 2, false).unwrap();
    assert_eq!(number, same, "one address for a node");
    let preferred = |table: &Table| table.paths[&number].preferred().map(|line| line.relay);
    assert_eq!(preferred(&table), Some(node(1)));
    table.remove(number, own);
    assert_eq!(preferred(&table), Some(node(2)));
}
