//! Two processes with the key of one node.

use tokio::net::UdpSocket;

use super::*;

/// Hands packets on between whoever sends first and an address.
async fn between(to: SocketAddr) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let here = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let outer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        let mut dialler = None;
        loop {
            tokio::select! {
                Ok((len, from)) = socket.recv_from(&mut there) => {
                    dialler = Some(from);
                    let _ = outer.send_to(&there[..len], to).await;
                }
                Ok((len, _)) = outer.recv_from(&mut back) => {
                    if let Some(dialler) = dialler {
                        let _ = socket.send_to(&back[..len], dialler).await;
                    }
                }
                else => return,
            }
        }
    });
    here
}

/// What is reported of another process, if that is the next thing.
async fn copy(events: &mut Events) -> (SocketAddr, bool) {
    match next(events).await {
        WireEvent::Copy { address, elder } => (address, elder),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_second_process_with_the_key_is_found_by_both_and_nothing_else_passes_for_one() {
    let mesh = Mesh::new();
    let credentials = mesh.member();
    let (first, mut of_first) = bind(&credentials).await;
    // Started in another millisecond.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2) {
        tokio::task::yield_now().await;
    }
    let (second, mut of_second) = bind(&credentials).await;
    let (other, _of_other, _) = mesh.endpoint().await;
    let (here, there) = (first.local_address(), second.local_address());

    let back = between(here).await;
    for address in [here, back, other.local_address()] {
        assert!(!first.finds_copy(address).await, "{address}");
    }
    // Also when the host's address has changed meanwhile.
    first.has_moved();
    assert!(!first.finds_copy(back).await);
    assert!(of_first.is_empty());

    assert!(first.finds_copy(there).await);
    assert_eq!(copy(&mut of_first).await, (there, false));
    assert_eq!(copy(&mut of_second).await, (here, true));
    assert!(second.finds_copy(here).await);
    assert_eq!(copy(&mut of_second).await, (here, true));
    assert_eq!(copy(&mut of_first).await, (there, false));
}

#[tokio::test]
async fn who_gives_way_keeps_out_until_it_does_no_more() {
    let mesh = Mesh::new();
    let credentials = mesh.member();
    let (node, mut events) = bind(&credentials).await;
    let (copy, _) = bind(&credentials).await;
    let (member, mut of_member, member_id) = mesh.endpoint().await;
    let at = member.local_address();
    node.connect(&member_id, at).await.unwrap();
    assert!(matches!(next(&mut events).await, WireEvent::Connected(_)));
    assert!(matches!(
        next(&mut of_member).await,
        WireEvent::Connected(_)
    ));

    node.give_way(true);
    // To the member it is no loss, so it suspects nobody.
    let ended = next(&mut of_member).await;
    assert!(matches!(ended, WireEvent::Released { .. }), "{ended:?}");
    let refused = node.connect(&member_id, at).await;
    assert!(matches!(refused, Err(WireError::GivesWay)), "{refused:?}");
    let refused = node.connect_any(at).await;
    assert!(matches!(refused, Err(WireError::GivesWay)), "{refused:?}");
    let refused = member
        .connect(&credentials.id(), node.local_address())
        .await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(copy.finds_copy(node.local_address()).await);
    assert!(node.finds_copy(copy.local_address()).await);

    node.give_way(false);
    node.connect(&member_id, at).await.unwrap();
}
