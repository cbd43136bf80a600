//! What a server answers and sends again, packet by packet.

use super::*;
use crate::{Server, ServerLimits};

/// A server, its files and the time.
struct Room {
    server: Server<Shelf>,
    shelf: Shelf,
    now_ms: u64,
}

impl Room {
    fn new(limits: ServerLimits, shelf: Shelf) -> Room {
        Room {
            server: Server::new(limits),
            shelf,
            now_ms: 5,
        }
    }

    fn with(name: &str, content: impl Into<Vec<u8>>) -> Room {
        Room::new(ServerLimits::default(), Shelf::with(name, content))
    }

    /// What the client at this port gets for a datagram.
    fn say(&mut self, port: u16, datagram: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let from = client_address(port);
        let (server, shelf) = (&mut self.server, &mut self.shelf);
        let answer = server.handle_datagram(self.now_ms, from, datagram.as_ref(), shelf)?;
        assert_eq!(answer.to, from);
        Some(answer.bytes.to_vec())
    }

    /// Lets the time come that the server waits for; gives what it sends then.
    fn wait(&mut self) -> Option<Vec<u8>> {
        self.now_ms = self.server.poll_timeout().unwrap();
        let sent = bytes(self.server.handle_timeout(self.now_ms, &mut self.shelf));
        assert_ne!(self.server.poll_timeout(), Some(self.now_ms));
        sent
    }
}

#[test]
fn a_file_is_read_as_the_rfc_draws_it() {
    let mut room = Room::with("a/b", pattern(700));
    let first = room.say(7, b"\0\x01a/b\0octet\0");
    assert_eq!(first, Some(data(1, &pattern(700)[..512])));
    assert_eq!(room.say(7, ack(1)), Some(data(2, &pattern(700)[512..])));
    assert_eq!(room.server.active(), 1);
    assert_eq!(room.say(7, ack(2)), None);
    assert_eq!(room.server.active(), 0);
    assert_eq!(room.shelf.endings, [("a/b".to_owned(), Ending::Whole)]);
    assert_eq!(room.server.poll_timeout(), None);
}

#[test]
fn a_file_is_written_as_the_rfc_draws_it() {
    let mut room = Room::with("other", "");
    assert_eq!(room.say(7, b"\0\x02new\0OCTET\0"), Some(ack(0)));
    assert_eq!(room.say(7, data(1, &[1; 512])), Some(ack(1)));
    assert_eq!(room.say(7, data(2, b"end")), Some(ack(2)));
    assert_eq!(room.shelf.files["new"], [&[1; 512][..], b"end"].concat());
    assert_eq!(room.shelf.announced, [None]);
}

#[test]
fn a_block_that_comes_twice_is_acknowledged_twice_and_kept_once() {
    let mut room = Room::with("other", "");
    room.say(7, b"\0\x02new\0octet\0");
    // Not the answer to a block that is none: blocks begin with 1.
    assert_eq!(room.say(7, data(0, &[9; 512])), None);
    for at_ms in [100, 200] {
        room.now_ms = at_ms;
        assert_eq!(room.say(7, data(1, &[1; 512])), Some(ack(1)));
    }
    assert_eq!(room.server.poll_timeout(), Some(1_100));
    assert_eq!(room.say(7, data(3, b"early")), None);
    assert_eq!(room.say(7, data(2, b"")), Some(ack(2)));
    assert_eq!(room.shelf.files["new"], [1; 512]);
}

#[test]
fn a_file_of_whole_blocks_ends_with_an_empty_one() {
    let mut room = Room::with("whole", [3; 512]);
    room.say(7, b"\0\x01whole\0octet\0");
    assert_eq!(room.say(7, ack(1)), Some(data(2, b"")));
    assert_eq!(room.say(7, ack(2)), None);
    assert_eq!(room.say(7, b"\0\x02copy\0octet\0"), Some(ack(0)));
    assert_eq!(room.say(7, data(1, &[3; 512])), Some(ack(1)));
    assert_eq!(room.shelf.commits.len(), 0);
    assert_eq!(room.say(7, data(2, b"")), Some(ack(2)));
    assert_eq!(room.shelf.commits, ["copy"]);
}

#[test]
fn options_are_agreed_on_within_limits() {
    let limits = ServerLimits {
        block_bytes: 600,
        ..ServerLimits::default()
    };
    let check = |asked: &str, agreed: &str| {
        let mut room = Room::new(limits, Shelf::with("file", pattern(700)));
        let answer = room.say(7, format!("\0\x01file\0octet\0{asked}"));
        assert_eq!(answer, Some(format!("\0\x06{agreed}").into()), "{asked:?}");
        room
    };
    check("tsize\x000\0", "tsize\x00700\0");
    check("BlkSize\x00600\0", "blksize\x00600\0");
    check("blksize\x00601\0", "blksize\x00600\0");
    check("blksize\x0065464\0", "blksize\x00600\0");
    check("timeout\x008\0", "timeout\x008\0");
    check("blksize\x0099\0blksize\x00100\0", "blksize\x0099\0");
    check("what\0ever\0timeout\x001\0", "timeout\x001\0");
    let mut room = check(
        "tsize\x000\0blksize\x00100\0",
        "blksize\x00100\0tsize\x00700\0",
    );
    assert_eq!(room.say(7, ack(0)), Some(data(1, &pattern(700)[..100])));
}

#[test]
fn options_that_are_none_are_left_out() {
    for options in [
        "blksize\x007\0",
        "blksize\x0065465\0",
        "blksize\x00+600\0",
        "blksize\0\0",
        "timeout\x009\0",
        "timeout\x00256\0",
        "timeout\x000\0",
        "tsize\x0018446744073709551616\0",
        "windowsize\x008\0",
    ] {
        let mut room = Room::with("file", "short");
        let answer = room.say(7, format!("\0\x01file\0octet\0{options}"));
        assert_eq!(answer, Some(data(1, b"short")), "{options:?}");
    }
}

#[test]
fn an_empty_file_is_read_without_its_length() {
    let mut room = Room::with("empty", "");
    let answer = room.say(7, b"\0\x01empty\0octet\0tsize\x000\0");
    assert_eq!(answer, Some(data(1, b"")));
}

#[test]
fn the_longest_block_is_1024_bytes_whatever_the_limits_say() {
    let limits = ServerLimits {
        block_bytes: u16::MAX,
        ..ServerLimits::default()
    };
    let mut room = Room::new(limits, Shelf::with("file", ""));
    let answer = room.say(7, b"\0\x01file\0octet\0blksize\x001428\0");
    assert_eq!(answer.unwrap(), b"\0\x06blksize\x001024\0");
}

#[test]
fn what_is_written_is_limited_whatever_was_announced() {
    let limits = ServerLimits {
        file_bytes: 600,
        ..ServerLimits::default()
    };
    let full = || Some(error(3, "the file is larger than files may be here"));
    let mut room = Room::new(limits, Shelf::default());
    let announced = room.say(7, b"\0\x02new\0octet\0tsize\x00601\0");
    assert_eq!(announced, full());
    let announced = room.say(7, b"\0\x02new\0octet\0tsize\x00600\0");
    assert_eq!(announced.unwrap(), b"\0\x06tsize\x00600\0");
    assert_eq!(room.shelf.announced, [Some(600)]);
    assert_eq!(room.say(7, data(1, &[1; 512])), Some(ack(1)));
    assert_eq!(room.say(7, data(2, &[1; 89])), full());
    assert!(room.shelf.commits.is_empty());
    // The answer was lost.
    assert_eq!(room.say(7, data(2, &[1; 89])), full());
    let long = room.say(8, b"\0\x02new\0octet\0");
    assert_eq!(long, Some(ack(0)));
    let answer = room.say(8, data(1, &[1; 513]));
    assert_eq!(
        answer,
        Some(error(4, "this block is longer than was agreed on"))
    );
}

#[test]
fn refused_content_is_an_error_in_place_of_the_last_acknowledgement() {
    let mut room = Room::with("other", "");
    room.say(7, b"\0\x02new\0octet\0");
    let refused = Some(error(2, "nobody wants this"));
    assert_eq!(room.say(7, data(1, UNWANTED)), refused);
    assert_eq!(room.say(7, data(1, UNWANTED)), refused);
    assert_eq!(room.server.active(), 0);
    assert!(room.shelf.commits.is_empty());
}

#[test]
fn what_cannot_be_read_is_an_error_and_stays_one() {
    let mut room = Room::with(TORN.0, [1; 900]);
    let first = room.say(7, b"\0\x01torn\0octet\0");
    assert_eq!(first, Some(data(1, &[1; 512])));
    assert_eq!(room.say(7, ack(1)), Some(error(0, "it is torn")));
    assert_eq!(room.say(7, ack(1)), Some(error(0, "it is torn")));
    assert_eq!(room.shelf.endings, [("torn".to_owned(), Ending::Broken)]);
    // The first block of a longer one.
    let answer = room.say(8, b"\0\x01torn\0octet\0blksize\x00800\0");
    assert_eq!(answer.unwrap(), b"\0\x06blksize\x00800\0");
    assert_eq!(room.say(8, ack(0)), Some(error(0, "it is torn")));
}

#[test]
fn requests_that_are_not_granted_say_why() {
    let check = |request: &[u8], code, message| {
        let answer = Room::with("file", "").say(7, request);
        assert_eq!(answer, Some(error(code, message)), "{request:?}");
    };
    check(b"\0\x01none\0octet\0", 1, "there is no such file");
    check(b"\0\x02file\0octet\0", 6, "it is there");
    let mode = "files go in mode octet alone";
    check(b"\0\x01file\0netascii\0", 4, mode);
    check(b"\0\x02file\0mail\0", 4, mode);
    let malformed = "this request is malformed";
    check(b"\0\x01file\0octet", 4, malformed);
    check(b"\0\x01file", 4, malformed);
    check(b"\0\x01", 4, malformed);
    check(b"\0\x01\0octet\0", 4, malformed);
    check(b"\0\x02\xff\0octet\0", 4, malformed);
    check(b"\0\x01file\0octet\0tsize\0", 4, malformed);
    check(
        &[b"\0\x01".as_slice(), &[b'a'; 504], b"\0octet\0"].concat(),
        4,
        malformed,
    );
    let none = "there is no transfer";
    check(&data(1, b"what"), 5, none);
    check(&ack(0), 5, none);
}

#[test]
fn noise_and_errors_have_no_answer() {
    for noise in [
        &b""[..],
        b"\0",
        b"\0\x04",
        b"\0\x03\0",
        b"\0\x07ab",
        b"\0\0",
        b"\0\x05\0\x01x\0",
        b"\0\x06tsize\x000\0",
    ] {
        assert_eq!(Room::with("file", "").say(7, noise), None, "{noise:?}");
    }
    // Nor do they disturb a transfer.
    let mut room = Room::with("file", [1; 512]);
    room.say(7, b"\0\x01file\0octet\0");
    for noise in [
        &b""[..],
        b"\0\x04",
        b"\0\x07ab",
        b"\0\x06tsize\x000\0",
        &ack(7),
        &ack(0),
        &data(1, b"x"),
    ] {
        assert_eq!(room.say(7, noise), None, "{noise:?}");
    }
    assert_eq!(room.say(7, ack(1)), Some(data(2, b"")));
}

#[test]
fn a_client_ends_its_own_transfer_and_no_other() {
    let mut room = Room::with("file", [1; 512]);
    for port in [7, 8] {
        room.say(port, b"\0\x01file\0octet\0");
    }
    assert_eq!(room.say(7, error(0, "enough")), None);
    assert_eq!(room.shelf.endings, [("file".to_owned(), Ending::Broken)]);
    assert_eq!(room.say(7, ack(1)), Some(error(5, "there is no transfer")));
    assert_eq!(room.say(8, ack(1)), Some(data(2, b"")));
}

#[test]
fn transfers_are_bounded_and_ended_ones_make_way() {
    let limits = ServerLimits {
        transfers: 2,
        ..ServerLimits::default()
    };
    let mut room = Room::new(limits, Shelf::with("file", "x"));
    assert_eq!(room.say(1, b"\0\x02new\0octet\0"), Some(ack(0)));
    assert_eq!(room.say(1, data(1, b"y")), Some(ack(1)));
    for port in [2, 3] {
        assert_eq!(room.say(port, b"\0\x01file\0octet\0"), Some(data(1, b"x")));
    }
    let full = "there are as many transfers as there can be at once";
    assert_eq!(room.say(4, b"\0\x01file\0octet\0"), Some(error(0, full)));
    assert_eq!(room.say(2, ack(1)), None);
    assert_eq!(room.say(4, b"\0\x01file\0octet\0"), Some(data(1, b"x")));
}

#[test]
fn what_has_no_answer_is_sent_again_and_given_up() {
    let mut room = Room::with("file", "x");
    let first = room.say(7, b"\0\x01file\0octet\0timeout\x002\0");
    for again in 1..5 {
        assert_eq!(room.wait(), first);
        assert_eq!(room.now_ms, 5 + again * 2_000);
    }
    assert_eq!(room.wait(), None);
    assert_eq!((room.now_ms, room.server.active()), (10_005, 0));
    assert_eq!(room.shelf.endings, [("file".to_owned(), Ending::Broken)]);
    // What was written by a client that is gone is not kept.
    room.say(7, b"\0\x02new\0octet\0");
    room.say(7, data(1, &[1; 512]));
    for _ in 1..5 {
        assert_eq!(room.wait(), Some(ack(1)));
    }
    assert_eq!(room.wait(), None);
    assert_eq!(
        room.say(7, data(2, b"")),
        Some(error(5, "there is no transfer"))
    );
    assert!(room.shelf.commits.is_empty());
}

#[test]
fn the_last_answer_is_kept_for_a_while() {
    let mut room = Room::with("other", "");
    room.say(7, b"\0\x02new\0octet\0");
    room.say(7, data(1, b"x"));
    room.now_ms += 2_999;
    assert_eq!(room.say(7, data(1, b"x")), Some(ack(1)));
    assert_eq!(room.wait(), None);
    assert_eq!(
        room.say(7, data(1, b"x")),
        Some(error(5, "there is no transfer"))
    );
    assert_eq!(room.shelf.commits, ["new"]);
}

#[test]
fn a_request_that_comes_again_begins_nothing_anew() {
    let mut room = Room::with("file", pattern(600));
    let request = b"\0\x01file\0octet\0";
    let first = room.say(7, request);
    assert_eq!(room.say(7, request), first);
    let second = room.say(7, ack(1));
    assert_eq!(second, Some(data(2, &pattern(600)[512..])));
    assert_eq!(room.say(7, request), None);
    // Another one does.
    assert_eq!(room.say(7, b"\0\x02new\0octet\0"), Some(ack(0)));
    assert_eq!(room.shelf.endings, [("file".to_owned(), Ending::Broken)]);
    assert_eq!(room.server.active(), 1);
}

#[test]
fn an_error_is_cut_off_between_characters() {
    struct Talker;
    impl Files for Talker {
        type Source = ();
        type Sink = ();
        fn open(&mut self, _: &str) -> Result<((), u64), Refusal> {
            let message = format!("x{}", "ü".repeat(300));
            Err(Refusal::new(ErrorCode::UNDEFINED, message))
        }
        fn read(&mut self, (): &mut (), _: u64, _: &mut [u8]) -> Result<(), Refusal> {
            unreachable!("nothing was opened")
        }
        fn create(&mut self, _: &str, _: Option<u64>) -> Result<(), Refusal> {
            Err(Refusal::new(ErrorCode::UNDEFINED, "before\0after"))
        }
        fn append(&mut self, (): &mut (), _: &[u8]) -> Result<(), Refusal> {
            unreachable!("nothing was created")
        }
        fn commit(&mut self, (): ()) -> Result<(), Refusal> {
            unreachable!("nothing was created")
        }
    }
    let mut server = Server::new(ServerLimits::default());
    let mut say = |request: &[u8]| {
        let answer = server.handle_datagram(0, client_address(7), request, &mut Talker);
        answer.unwrap().bytes.to_vec()
    };
    let message = format!("x{}", "ü".repeat(199));
    assert_eq!(say(b"\0\x01a\0octet\0"), error(0, &message));
    assert_eq!(say(b"\0\x02a\0octet\0"), error(0, "before"));
}
