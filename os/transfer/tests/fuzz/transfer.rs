//! Datagrams from anybody, and time, for a server and for clients: a server stays within its limits, reads within its files and
//! in order, and comes to rest; a client takes no more than it was to take. What is accepted comes to its end.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use mielin_fuzz::{Seed, Steps, Target};
use mielin_transfer::{Client, Ending, ErrorCode, Files, Refusal, Server, ServerLimits, Wanted};

pub(crate) const TARGET: Target = Target {
    name: "transfer",
    mutations: 30_000,
    fixed_bytes: 65_536,
    bytes_per_byte: 64,
    run,
    seeds,
};

const LIMITS: ServerLimits = ServerLimits {
    transfers: 2,
    file_bytes: 2_000,
    block_bytes: 1_024,
    timeout_ms: 1_000,
    tries: 3,
};
const LENGTH: u64 = 1_100;
const GET_BYTES_MAX: u64 = 1_500;

// Steps: whom a datagram is for, and from which address.
const TO_SERVER: u8 = 0;
const TO_SERVER_FROM_ANOTHER: u8 = 1;
const TO_SERVER_FROM_A_THIRD: u8 = 2;
const TO_GET: u8 = 3;
const TO_GET_FROM_ANOTHER: u8 = 4;
const TO_PUT: u8 = 5;
/// Milliseconds go by, as many as the first two bytes say.
const TIME: u8 = 6;
const KINDS: u8 = 7;

/// One file that can be read, and room for many.
#[derive(Default)]
struct Shelf {
    open: usize,
    whole: usize,
}

impl Files for Shelf {
    type Source = u64;
    type Sink = Vec<u8>;

    fn open(&mut self, name: &str) -> Result<(u64, u64), Refusal> {
        if name != "f" {
            return Err(Refusal::new(ErrorCode::NOT_FOUND, "there is no such file"));
        }
        self.open += 1;
        Ok((0, LENGTH))
    }

    fn read(&mut self, read: &mut u64, offset: u64, buffer: &mut [u8]) -> Result<(), Refusal> {
        assert_eq!(*read, offset);
        *read += buffer.len() as u64;
        assert!(*read <= LENGTH);
        buffer.fill(1);
        Ok(())
    }

    fn close(&mut self, read: u64, ending: Ending) {
        self.open -= 1;
        if ending == Ending::Whole {
            assert_eq!(read, LENGTH);
            self.whole += 1;
        }
    }

    fn create(&mut self, name: &str, announced: Option<u64>) -> Result<Vec<u8>, Refusal> {
        assert!(!name.is_empty() && !name.contains('\0'));
        assert!(announced <= Some(LIMITS.file_bytes));
        Ok(Vec::new())
    }

    fn append(&mut self, content: &mut Vec<u8>, data: &[u8]) -> Result<(), Refusal> {
        content.extend_from_slice(data);
        assert!(content.len() as u64 <= LIMITS.file_bytes);
        Ok(())
    }

    fn commit(&mut self, content: Vec<u8>) -> Result<(), Refusal> {
        if content.first() == Some(&b'!') {
            return Err(Refusal::new(ErrorCode::ACCESS, "it is refused"));
        }
        self.whole += 1;
        Ok(())
    }
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

fn run(input: &[u8]) -> bool {
    let (mut server, mut shelf) = (Server::new(LIMITS), Shelf::default());
    let at = address(1, 69);
    let mut get = Client::get(at, "f", Wanted::default(), GET_BYTES_MAX).unwrap();
    let mut put = Client::put(at, "f", vec![1; 1_000], Wanted::default()).unwrap();
    get.start(0);
    put.start(0);
    let mut now_ms = 0;
    for (kind, bytes) in Steps::new(input) {
        let kind = kind % KINDS;
        match kind {
            TO_SERVER | TO_SERVER_FROM_ANOTHER | TO_SERVER_FROM_A_THIRD => {
                let from = address(2, u16::from(kind));
                let answer = server.handle_datagram(now_ms, from, bytes, &mut shelf);
                if let Some(answer) = answer {
                    assert_eq!(answer.to, from);
                    assert!((4..=4 + 1_024).contains(&answer.bytes.len()));
                }
            }
            TO_GET | TO_GET_FROM_ANOTHER | TO_PUT => {
                let from = address(1, u16::from(kind));
                let client = if kind == TO_PUT { &mut put } else { &mut get };
                let before = client.outcome().cloned();
                let answer = client.handle_datagram(now_ms, from, bytes);
                assert!(answer.is_none_or(|answer| answer.to == from));
                if before.is_some() {
                    assert_eq!(client.outcome(), before.as_ref());
                }
            }
            _ => {
                let passed = bytes
                    .first_chunk()
                    .map_or(1, |two| u16::from_le_bytes(*two));
                now_ms += u64::from(passed);
                while server.handle_timeout(now_ms, &mut shelf).is_some() {}
                get.handle_timeout(now_ms);
                put.handle_timeout(now_ms);
            }
        }
        assert!(server.active() <= LIMITS.transfers);
        assert!(shelf.open <= LIMITS.transfers);
        assert!(get.content().len() as u64 <= GET_BYTES_MAX);
        assert!(
            [server.poll_timeout(), get.poll_timeout()]
                .into_iter()
                .flatten()
                .all(|due| due + 65_536 > now_ms)
        );
    }
    // Left alone, a server comes to rest.
    let mut waits = 0;
    while let Some(due) = server.poll_timeout() {
        while server.handle_timeout(due, &mut shelf).is_some() {}
        waits += 1;
        assert!(waits <= LIMITS.transfers * usize::from(LIMITS.tries));
    }
    assert_eq!((server.active(), shelf.open), (0, 0));
    let is_done = |client: &Client| client.outcome() == Some(&Ok(()));
    shelf.whole > 0 || is_done(&get) || is_done(&put)
}

fn data(block: u16, len: usize) -> Vec<u8> {
    [&[0, 3][..], &block.to_be_bytes(), &vec![7; len]].concat()
}

fn ack(block: u16) -> Vec<u8> {
    [[0, 4], block.to_be_bytes()].concat()
}

fn seeds() -> Vec<Seed> {
    let steps = |steps: &[(u8, &[u8])]| Steps::write(steps);
    vec![
        Seed::good(
            "read",
            steps(&[
                (TO_SERVER, b"\0\x01f\0octet\0"),
                (TO_SERVER, &ack(1)),
                (TO_SERVER, &ack(1)),
                (TIME, &1_000_u16.to_le_bytes()),
                (TO_SERVER, &ack(2)),
                (TO_SERVER, &ack(3)),
            ]),
        ),
        Seed::good(
            "written-with-options",
            steps(&[
                (
                    TO_SERVER,
                    b"\0\x02n\0octet\0blksize\x00600\0tsize\x00700\0timeout\x001\0",
                ),
                (TO_SERVER_FROM_ANOTHER, b"\0\x01f\0octet\0blksize\x008\0"),
                (TO_SERVER, &data(1, 600)),
                (TO_SERVER_FROM_ANOTHER, &ack(0)),
                (TO_SERVER_FROM_A_THIRD, &ack(0)),
                (TO_SERVER, &data(2, 100)),
                (TO_SERVER, &data(2, 100)),
            ]),
        ),
        Seed::good(
            "clients",
            steps(&[
                (TO_GET, b"\0\x06blksize\x00800\0tsize\x00900\0"),
                (TO_PUT, b"\0\x06blksize\x00800\0"),
                (TO_GET, &data(1, 800)),
                (TO_GET_FROM_ANOTHER, &data(2, 100)),
                (TO_PUT, &ack(1)),
                (TIME, &1_000_u16.to_le_bytes()),
                (TO_GET, &data(2, 100)),
                (TO_PUT, &ack(2)),
            ]),
        ),
        Seed::bad(
            "too-large",
            steps(&[
                (TO_SERVER, b"\0\x02n\0octet\0"),
                (TO_SERVER, &data(1, 512)),
                (TO_SERVER, &data(2, 512)),
                (TO_SERVER, &data(3, 512)),
                (TO_SERVER, &data(4, 512)),
            ]),
        ),
        Seed::bad(
            "claims-2-to-the-64",
            steps(&[
                (
                    TO_SERVER,
                    b"\0\x02n\0octet\0tsize\x0018446744073709551615\0",
                ),
                (TO_GET, b"\0\x06tsize\x0018446744073709551615\0"),
            ]),
        ),
        Seed::bad(
            "refused-content",
            steps(&[
                (TO_SERVER, b"\0\x02n\0octet\0"),
                (TO_SERVER, b"\0\x03\0\x01!"),
            ]),
        ),
        Seed::bad(
            "more-than-there-is-room-for",
            steps(&[
                (TO_SERVER, b"\0\x01f\0octet\0"),
                (TO_SERVER_FROM_ANOTHER, b"\0\x02n\0octet\0"),
                (TO_SERVER_FROM_A_THIRD, b"\0\x01f\0octet\0"),
            ]),
        ),
        Seed::bad(
            "no-end",
            steps(&[(TO_SERVER, b"\0\x01f\0octet\0blksize\x00800")]),
        ),
    ]
}
