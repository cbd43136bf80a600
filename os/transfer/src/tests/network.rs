//! Transfers over networks that lose, repeat and reorder. What a seed gives, it gives again.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::{Client, ClientError, Server, ServerLimits, Wanted};

/// What a network does to each datagram.
#[derive(Clone, Copy)]
struct Weather {
    lost: f64,
    twice: f64,
    /// At most so long; what is sent later can come earlier.
    delay_ms: u64,
}

/// Datagrams under way, in the order in which they arrive: whether the server gets it, and its bytes.
struct Network {
    chance: StdRng,
    weather: Weather,
    under_way: BTreeMap<(u64, u64), (bool, Vec<u8>)>,
    sent: u64,
    /// How often each block or acknowledgement was sent.
    counts: BTreeMap<Vec<u8>, u32>,
}

impl Network {
    fn send(&mut self, now_ms: u64, to_server: bool, datagram: &[u8]) {
        let head = datagram[..datagram.len().min(4)].to_vec();
        *self.counts.entry(head).or_default() += 1;
        let copies = 1 + u32::from(self.chance.random_bool(self.weather.twice));
        for _ in 0..copies {
            if self.chance.random_bool(self.weather.lost) {
                continue;
            }
            let delay = 1 + self.chance.random_range(0..=self.weather.delay_ms);
            self.sent += 1;
            let arrival = (now_ms + delay, self.sent);
            self.under_way
                .insert(arrival, (to_server, datagram.to_vec()));
        }
    }
}

/// Runs one transfer until nothing happens any more.
fn run(
    seed: u64,
    weather: Weather,
    mut client: Client,
    mut shelf: Shelf,
) -> (Client, Shelf, Network) {
    let mut network = Network {
        chance: StdRng::seed_from_u64(seed),
        weather,
        under_way: BTreeMap::new(),
        sent: 0,
        counts: BTreeMap::new(),
    };
    let (here, there) = (server_address(), client_address(7));
    let mut server = Server::new(ServerLimits::default());
    network.send(0, true, client.start(0).bytes);
    loop {
        let arrival = network.under_way.first_key_value().map(|((at, _), _)| *at);
        let times = [arrival, server.poll_timeout(), client.poll_timeout()];
        let Some(now) = times.into_iter().flatten().min() else {
            break;
        };
        assert!(now < 3_600_000, "seed {seed}: it does not end");
        if arrival == Some(now) {
            let (_, (to_server, datagram)) = network.under_way.pop_first().unwrap();
            let answer = match to_server {
                true => bytes(server.handle_datagram(now, there, &datagram, &mut shelf)),
                false => bytes(client.handle_datagram(now, here, &datagram)),
            };
            if let Some(answer) = answer {
                network.send(now, !to_server, &answer);
            }
            continue;
        }
        while let Some(again) = bytes(server.handle_timeout(now, &mut shelf)) {
            network.send(now, false, &again);
        }
        if let Some(again) = bytes(client.handle_timeout(now)) {
            network.send(now, true, &again);
        }
    }
    assert_eq!(server.active(), 0, "seed {seed}");
    (client, shelf, network)
}

const LENGTHS: [usize; 9] = [0, 1, 511, 512, 513, 895, 896, 1_792, 9_000];

fn wanted(seed: u64) -> Wanted {
    Wanted {
        block_bytes: [None, Some(896), Some(128)][seed as usize % 3],
        timeout_s: [None, Some(2)][seed as usize / 3 % 2],
        length: seed.is_multiple_of(5),
        ..Wanted::default()
    }
}

fn read(seed: u64, weather: Weather, len: usize) -> Option<ClientError> {
    let client = Client::get(server_address(), "file", wanted(seed), 10_000).unwrap();
    let (client, ..) = run(seed, weather, client, Shelf::with("file", pattern(len)));
    let outcome = client.outcome().unwrap().clone();
    if outcome.is_ok() {
        assert!(client.content() == pattern(len), "seed {seed}");
    }
    outcome.err()
}

fn write(seed: u64, weather: Weather, len: usize) -> Option<ClientError> {
    let at = server_address();
    let client = Client::put(at, "file", pattern(len), wanted(seed)).unwrap();
    let (client, shelf, _) = run(seed, weather, client, Shelf::default());
    let outcome = client.outcome().unwrap().clone();
    match (&outcome, shelf.files.get("file")) {
        (Ok(()), content) => assert!(content == Some(&pattern(len)), "seed {seed}"),
        (Err(_), Some(content)) => assert!(*content == pattern(len), "seed {seed}"),
        (Err(_), None) => {}
    }
    assert!(shelf.commits.len() <= 1, "seed {seed}");
    outcome.err()
}

/// Runs reads and writes of all lengths with many seeds; gives how many of how many failed.
fn failures(weather: Weather) -> (usize, usize) {
    let mut errors = Vec::new();
    for seed in 0..40 {
        for len in LENGTHS {
            errors.push(read(seed, weather, len));
            errors.push(write(seed, weather, len));
        }
    }
    let failed = errors.iter().filter(|error| error.is_some()).count();
    (failed, errors.len())
}

#[test]
fn files_arrive_whole_over_a_network_that_repeats_and_reorders() {
    let weather = Weather {
        lost: 0.0,
        twice: 0.5,
        delay_ms: 400,
    };
    assert_eq!(failures(weather).0, 0);
}

#[test]
fn files_arrive_whole_or_not_at_all_over_a_network_that_loses_too() {
    let weather = Weather {
        lost: 0.2,
        twice: 0.2,
        delay_ms: 1_500,
    };
    let (failed, of) = failures(weather);
    // A fifth is lost: that five tries in a row have no answer is rare.
    assert!(failed * 10 < of, "{failed} of {of} failed");
}

#[test]
fn a_network_that_is_down_ends_everything() {
    let weather = Weather {
        lost: 1.0,
        twice: 0.0,
        delay_ms: 0,
    };
    assert_eq!(read(1, weather, 9), Some(ClientError::Silence));
    assert_eq!(write(1, weather, 9), Some(ClientError::Silence));
}

#[test]
fn the_sorcerer_has_no_apprentice() {
    let weather = Weather {
        lost: 0.0,
        twice: 1.0,
        delay_ms: 0,
    };
    let blocks = |network: &Network| {
        let blocks = network.counts.iter();
        let mut counts = blocks
            .filter(|(head, _)| head[1] == 3)
            .map(|(_, count)| *count);
        (counts.clone().count(), counts.all(|count| count == 1))
    };
    let none = Wanted {
        block_bytes: None,
        length: false,
        ..Wanted::default()
    };
    let at = server_address();
    let client = Client::put(at, "file", pattern(5_000), none).unwrap();
    let (client, _, network) = run(1, weather, client, Shelf::default());
    assert_eq!(client.outcome(), Some(&Ok(())));
    assert_eq!(blocks(&network), (10, true));
    // The request arrives twice, and its answer is the first block: that one is sent twice, and no other.
    let client = Client::get(at, "file", none, 5_000).unwrap();
    let (client, _, mut network) = run(1, weather, client, Shelf::with("file", pattern(5_000)));
    assert_eq!(client.outcome(), Some(&Ok(())));
    assert_eq!(network.counts.remove(&[0, 3, 0, 1][..]), Some(2));
    assert_eq!(blocks(&network), (9, true));
}

#[test]
fn numbers_of_blocks_begin_again() {
    let weather = Weather {
        lost: 0.0,
        twice: 0.01,
        delay_ms: 2,
    };
    let small = Wanted {
        block_bytes: Some(8),
        ..Wanted::default()
    };
    let (at, len) = (server_address(), 8 * 65_600);
    let client = Client::get(at, "file", small, 1 << 20).unwrap();
    let (client, ..) = run(1, weather, client, Shelf::with("file", pattern(len)));
    assert_eq!(client.outcome(), Some(&Ok(())));
    assert!(client.content() == pattern(len));
    let client = Client::put(at, "file", pattern(len), small).unwrap();
    let (client, shelf, _) = run(1, weather, client, Shelf::default());
    assert_eq!(client.outcome(), Some(&Ok(())));
    assert!(shelf.files["file"] == pattern(len));
}
