//! Old and new versions of the protocol understand each other.

use super::*;

/// A connection of a member that has said nothing yet.
async fn connection(mesh: &Mesh, to: &Endpoint) -> (quinn::Endpoint, quinn::Connection) {
    let config = client_config(&mesh.member(), LIVENESS).unwrap();
    let client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = client.connect_with(config, to.local_address(), MEMBER_NAME);
    let connection = connecting.unwrap().await.unwrap();
    (client, connection)
}

async fn say(connection: &quinn::Connection, bytes: &[u8]) {
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.finish().unwrap();
}

#[tokio::test]
async fn both_ends_know_what_both_serve() {
    let mesh = Mesh::new();
    let (first, second) = (mesh.member(), mesh.member());
    let offered = Features::TABLE | Features::MIGRATION;
    let (a, _a_events) = bind_serving(&first, offered).await;
    let taken = Features::TABLE | Features::ROUTED;
    let (b, mut b_events) = bind_serving(&second, taken).await;
    let there = a.connect(&second.id(), b.local_address()).await.unwrap();
    let WireEvent::Connected(here) = next(&mut b_events).await else {
        panic!("nothing comes before the connection");
    };
    for peer in [there, here] {
        assert_eq!(peer.features(), Features::TABLE);
        assert_eq!(peer.version(), env!("CARGO_PKG_VERSION"));
    }
}

#[tokio::test]
async fn a_peer_of_a_later_version_is_let_in_and_served() {
    let mesh = Mesh::new();
    let (home, mut events, _) = mesh.endpoint().await;
    let (_client, later) = connection(&mesh, &home).await;
    // Version 1.700, every feature that there may ever be, and something behind it.
    let version = b"7.0.0-later";
    let said = [
        &700_u16.to_be_bytes()[..],
        &u64::MAX.to_be_bytes(),
        b"instance",
        &1_u64.to_be_bytes(),
        &[version.len() as u8],
        version,
        &[9; 100],
    ];
    say(&later, &said.concat()).await;
    let WireEvent::Connected(peer) = next(&mut events).await else {
        panic!("nothing comes before the connection");
    };
    assert_eq!(peer.features(), Features::all());
    assert_eq!(peer.version(), "7.0.0-later");
    let heard = Hello::receive(&later).await.unwrap();
    assert_eq!(heard.minor, Hello::MINOR);
    let (mut send, _recv) = later.open_bi().await.unwrap();
    send.write_all(&PROTOCOL.to_be_bytes()).await.unwrap();
    assert_eq!(next_stream(&mut events).await.stream.protocol(), PROTOCOL);
}

#[tokio::test]
async fn who_says_something_else_than_hello_is_not_let_in() {
    let mesh = Mesh::new();
    let (home, mut events, _) = mesh.endpoint().await;
    for said in [&b""[..], b"hello", &[0xff; 64], &[0; 2 * Hello::BYTES_MAX]] {
        let (_client, connection) = connection(&mesh, &home).await;
        say(&connection, said).await;
        let closed = timeout(DEADLINE, connection.closed()).await.unwrap();
        assert!(
            matches!(&closed, ConnectionError::ApplicationClosed(c) if c.error_code == CLOSE_NO_HELLO),
            "{closed}"
        );
    }
    assert!(events.try_recv().is_err(), "nobody was let in");
}
