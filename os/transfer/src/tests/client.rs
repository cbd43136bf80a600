//! What a client sends and takes, packet by packet.

use super::*;
use crate::{Client, ClientError, Wanted};

/// A client that asks for no options.
fn plain() -> Wanted {
    Wanted {
        block_bytes: None,
        length: false,
        ..Wanted::default()
    }
}

fn get(wanted: Wanted, limit: u64) -> Client {
    let mut client = Client::get(server_address(), "file", wanted, limit).unwrap();
    client.start(0);
    client
}

fn put(wanted: Wanted, content: &[u8]) -> Client {
    let mut client = Client::put(server_address(), "file", content.to_vec(), wanted).unwrap();
    client.start(0);
    client
}

/// Where the server answers from.
fn transfer() -> SocketAddr {
    SocketAddr::from(([10, 0, 2, 15], 4_000))
}

fn say(client: &mut Client, from: SocketAddr, datagram: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    bytes(client.handle_datagram(1, from, datagram.as_ref()))
}

#[test]
fn requests_are_written_as_the_rfcs_draw_them() {
    let all = Wanted {
        block_bytes: Some(1_024),
        timeout_s: Some(3),
        ..Wanted::default()
    };
    let (at, some) = (server_address(), vec![0; 300]);
    let check = |client: Result<Client, ClientError>, expected: &[u8]| {
        let mut client = client.unwrap();
        let request = client.start(0);
        assert_eq!((request.to, request.bytes), (at, expected));
    };
    check(Client::get(at, "a", plain(), 9), b"\0\x01a\0octet\0");
    check(
        Client::put(at, "a", some.clone(), plain()),
        b"\0\x02a\0octet\0",
    );
    check(
        Client::get(at, "a", all, 9),
        b"\0\x01a\0octet\0blksize\x001024\0timeout\x003\0tsize\x000\0",
    );
    check(
        Client::put(at, "a", some, all),
        b"\0\x02a\0octet\0blksize\x001024\0timeout\x003\0tsize\x00300\0",
    );
    for name in ["", "a\0b", &"a".repeat(504)] {
        let refused = Client::get(at, name, plain(), 9).err();
        assert_eq!(refused, Some(ClientError::Name(name.to_owned())));
    }
    assert!(Client::get(at, &"a".repeat(503), plain(), 9).is_ok());
}

#[test]
fn the_first_answer_says_where_the_server_is() {
    let mut client = get(plain(), 600);
    // Somebody else, before and after.
    let other = SocketAddr::from(([10, 0, 2, 16], 4_000));
    assert_eq!(say(&mut client, other, data(1, &[9; 512])), None);
    let datagram = data(1, &[1; 512]);
    let answer = client.handle_datagram(1, transfer(), &datagram).unwrap();
    assert_eq!((answer.to, answer.bytes), (transfer(), &ack(1)[..]));
    for stray in [other, server_address()] {
        let answer = client.handle_datagram(1, stray, &data(2, b"evil"));
        let answer = answer.map(|answer| (answer.to, answer.bytes.to_vec()));
        assert_eq!(answer, Some((stray, error(5, ""))));
        assert_eq!(say(&mut client, stray, error(0, "evil")), None);
    }
    assert_eq!(say(&mut client, transfer(), data(2, b"end")), Some(ack(2)));
    assert_eq!(client.outcome(), Some(&Ok(())));
    assert_eq!(client.content(), [&[1; 512][..], b"end"].concat());
    assert_eq!(client.poll_timeout(), None);
    // The acknowledgement was lost.
    assert_eq!(say(&mut client, transfer(), data(2, b"end")), Some(ack(2)));
    assert_eq!(client.into_content().len(), 515);
}

#[test]
fn a_block_that_comes_twice_is_acknowledged_twice_and_kept_once() {
    let mut client = get(plain(), 600);
    assert_eq!(say(&mut client, transfer(), data(0, &[9; 512])), None);
    for at_ms in [100, 200] {
        let answer = client.handle_datagram(at_ms, transfer(), &data(1, &[1; 512]));
        assert_eq!(bytes(answer), Some(ack(1)));
    }
    assert_eq!(client.poll_timeout(), Some(1_100));
    assert_eq!(say(&mut client, transfer(), data(2, b"")), Some(ack(2)));
    assert_eq!(client.content(), [1; 512]);
}

#[test]
fn a_server_that_knows_no_options_is_understood() {
    let mut client = get(Wanted::default(), 600);
    assert_eq!(
        say(&mut client, transfer(), data(1, &[1; 512])),
        Some(ack(1))
    );
    assert_eq!(say(&mut client, transfer(), data(2, b"")), Some(ack(2)));
    assert_eq!(
        (client.content().len(), client.announced_bytes()),
        (512, None)
    );
    let mut client = put(Wanted::default(), &[1; 512]);
    let first = say(&mut client, transfer(), ack(0));
    assert_eq!(first, Some(data(1, &[1; 512])));
    assert_eq!(say(&mut client, transfer(), ack(1)), Some(data(2, b"")));
    assert_eq!(say(&mut client, transfer(), ack(2)), None);
    assert_eq!(client.outcome(), Some(&Ok(())));
}

#[test]
fn what_was_agreed_on_is_kept_to() {
    let mut client = get(Wanted::default(), 600);
    let agreed = b"\0\x06tsize\x00100\0BLKSIZE\x0064\0";
    assert_eq!(say(&mut client, transfer(), agreed), Some(ack(0)));
    assert_eq!(say(&mut client, transfer(), agreed), Some(ack(0)));
    assert_eq!(client.announced_bytes(), Some(100));
    assert_eq!(
        say(&mut client, transfer(), data(1, &[1; 64])),
        Some(ack(1))
    );
    assert_eq!(say(&mut client, transfer(), agreed), None);
    assert_eq!(say(&mut client, transfer(), data(3, &[1; 64])), None);
    let too_long = say(&mut client, transfer(), data(2, &[1; 65]));
    assert_eq!(too_long, Some(error(4, "")));
    assert!(matches!(
        client.outcome(),
        Some(Err(ClientError::Protocol(_)))
    ));
}

#[test]
fn options_that_were_not_asked_for_end_it() {
    let all = Wanted {
        timeout_s: Some(3),
        ..Wanted::default()
    };
    for (wanted, agreed) in [
        (plain(), "blksize\x0064\0"),
        (plain(), "tsize\x005\0"),
        (plain(), "timeout\x003\0"),
        (all, "blksize\x00897\0"),
        (all, "timeout\x004\0"),
    ] {
        let mut client = get(wanted, 600);
        let answer = say(&mut client, transfer(), format!("\0\x06{agreed}"));
        assert_eq!(answer, Some(error(8, "")), "{agreed:?}");
        assert!(matches!(
            client.outcome(),
            Some(Err(ClientError::Protocol(_)))
        ));
    }
    let answer = say(&mut put(all, b"12345"), transfer(), b"\0\x06tsize\x006\0");
    assert_eq!(answer, Some(error(8, "")));
}

#[test]
fn no_more_is_taken_than_the_caller_takes() {
    let too_large = ClientError::TooLarge { limit: 600 };
    let mut client = get(Wanted::default(), 600);
    let answer = say(&mut client, transfer(), b"\0\x06tsize\x00601\0");
    assert_eq!(answer, Some(error(3, "")));
    assert_eq!(client.outcome(), Some(&Err(too_large.clone())));
    let mut client = get(Wanted::default(), 600);
    say(&mut client, transfer(), data(1, &[1; 512]));
    let answer = say(&mut client, transfer(), data(2, &[1; 89]));
    assert_eq!(answer, Some(error(3, "")));
    assert_eq!(client.outcome(), Some(&Err(too_large)));
    assert_eq!(client.content().len(), 512);
}

#[test]
fn errors_and_silence_end_it() {
    let mut client = get(plain(), 9);
    assert_eq!(
        say(&mut client, transfer(), b"\0\x05\0\x01no\xff such\0rest"),
        None
    );
    let refused = ClientError::Refused {
        code: ErrorCode::NOT_FOUND,
        message: "no\u{fffd} such".to_owned(),
    };
    assert_eq!(client.outcome(), Some(&Err(refused)));
    let mut client = get(
        Wanted {
            timeout_ms: 300,
            tries: 3,
            ..plain()
        },
        9,
    );
    assert_eq!(client.handle_timeout(299), None);
    for again in [300, 600] {
        assert_eq!(client.poll_timeout(), Some(again));
        let request = client.handle_timeout(again).unwrap();
        assert_eq!(request.bytes, b"\0\x01file\0octet\0");
    }
    assert_eq!(client.handle_timeout(900), None);
    assert_eq!(client.outcome(), Some(&Err(ClientError::Silence)));
    assert_eq!(client.poll_timeout(), None);
}
