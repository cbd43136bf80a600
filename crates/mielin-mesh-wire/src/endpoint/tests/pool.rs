//! One connection for each peer, for as long as it is used.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::*;

/// More than it takes for a connection that has been replaced to be closed.
const A_WHILE: Duration = Duration::from_secs(5);

/// An endpoint that answers what it is asked and counts what it hears of its peers.
struct Echo {
    endpoint: Endpoint,
    id: NodeId,
    connected: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
    /// When the pool has looked last; ahead of the time.
    clock: Mutex<Instant>,
}

impl Echo {
    async fn new(mesh: &Mesh) -> Echo {
        let (endpoint, mut events, id) = mesh.endpoint().await;
        let (connected, gone) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let counts = (Arc::clone(&connected), Arc::clone(&gone));
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                match event {
                    WireEvent::Connected(_) => counts.0.fetch_add(1, Ordering::SeqCst),
                    WireEvent::Lost { .. } | WireEvent::Released { .. } => {
                        counts.1.fetch_add(1, Ordering::SeqCst)
                    }
                    WireEvent::Datagram { .. }
                    | WireEvent::Copy { .. }
                    | WireEvent::SaidRevoked(_) => continue,
                    WireEvent::Stream(incoming) => {
                        tokio::spawn(answer(*incoming));
                        continue;
                    }
                };
            }
        });
        Echo {
            endpoint,
            id,
            connected,
            gone,
            clock: Mutex::new(Instant::now()),
        }
    }

    fn connections(&self, to: &Echo) -> Vec<Peer> {
        self.endpoint.shared.pool().of(&to.id)
    }

    /// Lets the pool look twice, with so much time between.
    fn look(&self, between: Duration) {
        let mut pool = self.endpoint.shared.pool();
        let mut clock = self.clock.lock().unwrap();
        pool.tend(*clock, LIVENESS.unused);
        *clock += between;
        pool.tend(*clock, LIVENESS.unused);
    }
}

async fn answer(incoming: Incoming) {
    let mut stream = incoming.stream;
    while let Ok(Some(frame)) = stream.recv_frame(FrameLimit::default()).await {
        stream.send_frame_bytes(&[], frame.payload).await.unwrap();
    }
    let _ = stream.finish();
}

async fn ask(peer: &Peer, question: u32) {
    let mut stream = peer.open(PROTOCOL).await.unwrap();
    let question = question.to_be_bytes();
    stream.send_frame(&[], &question).await.unwrap();
    stream.finish().unwrap();
    let answer = timeout(DEADLINE, stream.recv_frame(FrameLimit::default()));
    let answer = answer.await.unwrap().unwrap().unwrap();
    assert_eq!(answer.payload[..], question);
}

/// What only the two ends of a connection know.
fn secret(peer: &Peer) -> [u8; 32] {
    let mut secret = [0; 32];
    let connection = peer.connection();
    connection
        .export_keying_material(&mut secret, b"test", b"")
        .unwrap();
    secret
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, wait).await.expect(what);
}

/// Both dial in the same moment and ask each other; whether that made two connections.
async fn dial_each_other(a: Echo, b: Echo) -> bool {
    let (from_a, from_b) = tokio::join!(
        a.endpoint.connect(&b.id, b.endpoint.local_address()),
        b.endpoint.connect(&a.id, a.endpoint.local_address()),
    );
    let first = [from_a.unwrap(), from_b.unwrap()];
    for question in 0..50 {
        let now = [
            a.endpoint.peer(&b.id).unwrap(),
            b.endpoint.peer(&a.id).unwrap(),
        ];
        tokio::join!(
            ask(&first[0], question),
            ask(&first[1], question),
            ask(&now[0], question),
            ask(&now[1], question),
        );
    }
    until("one connection stays", || {
        a.connections(&b).len() == 1 && b.connections(&a).len() == 1
    })
    .await;
    let (at_a, at_b) = (&a.connections(&b)[0], &b.connections(&a)[0]);
    assert_eq!(secret(at_a), secret(at_b), "both have kept the same one");
    tokio::join!(ask(at_a, 100), ask(at_b, 101));
    let two = a.endpoint.traffic().connections == 2;
    assert_eq!(at_a.is_dialled(), !at_b.is_dialled());
    if two {
        assert_eq!(at_a.is_dialled(), a.id < b.id);
    }
    for end in [&a, &b] {
        assert_eq!(end.connected.load(Ordering::SeqCst), 1);
        assert_eq!(end.gone.load(Ordering::SeqCst), 0);
    }
    two
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_dial_each_other_in_the_same_moment_one_connection_stays() {
    let mesh = Mesh::new();
    let mut rounds = JoinSet::new();
    for _ in 0..12 {
        let (a, b) = (Echo::new(&mesh).await, Echo::new(&mesh).await);
        rounds.spawn(dial_each_other(a, b));
    }
    let two = rounds.join_all().await;
    assert!(two.contains(&true), "they never dialled in the same moment");
}

#[tokio::test]
async fn what_is_said_over_the_connection_that_goes_comes_to_its_end() {
    let mesh = Mesh::new();
    let (a, b) = (Echo::new(&mesh).await, Echo::new(&mesh).await);
    let address = b.endpoint.local_address();
    let older = a.endpoint.connect(&b.id, address).await.unwrap();
    let mut stream = older.open(PROTOCOL).await.unwrap();
    let newer = a.endpoint.connect_any(address).await.unwrap();
    assert_ne!(secret(&older), secret(&newer));
    assert_eq!(secret(&a.endpoint.peer(&b.id).unwrap()), secret(&newer));
    a.look(A_WHILE);
    assert!(older.is_usable(), "a stream is open on it");
    stream.send_frame(&[], b"still here").await.unwrap();
    let answer = stream.recv_frame(FrameLimit::default()).await;
    assert_eq!(&answer.unwrap().unwrap().payload[..], b"still here");
    drop(stream);
    until("the older one is closed", || {
        a.look(A_WHILE);
        !older.is_live()
    })
    .await;
    assert!(newer.is_usable());
    until("the other end has one too", || b.connections(&a).len() == 1).await;
    assert_eq!(secret(&b.connections(&a)[0]), secret(&newer));
    ask(&newer, 1).await;
}

#[tokio::test]
async fn of_two_that_one_has_dialled_both_ends_prefer_the_last_however_they_were_admitted() {
    let mesh = Mesh::new();
    let (a, b) = (Echo::new(&mesh).await, Echo::new(&mesh).await);
    let address = b.endpoint.local_address();
    a.endpoint.connect(&b.id, address).await.unwrap();
    let last = a.endpoint.connect_any(address).await.unwrap();
    until("both have arrived", || b.connections(&a).len() == 2).await;
    for (end, mut peers) in [(b.id, b.connections(&a)), (a.id, a.connections(&b))] {
        for _ in 0..2 {
            peers.reverse();
            let mut pool = Pool::new(end);
            for peer in &peers {
                pool.insert(Instant::now(), peer, 1);
            }
            let preferred = pool.preferred(&peers[0].node()).unwrap();
            assert_eq!(secret(&preferred), secret(&last));
        }
    }
}

#[tokio::test]
async fn a_peer_that_has_restarted_has_no_other_connections() {
    let mesh = Mesh::new();
    let a = Echo::new(&mesh).await;
    let credentials = mesh.member();
    let (before, _before_events) = bind(&credentials).await;
    let id = credentials.id();
    let old = a.endpoint.connect(&id, before.local_address()).await;
    let old = old.unwrap();
    let (after, mut events) = bind(&credentials).await;
    let new = after.connect_any(a.endpoint.local_address()).await.unwrap();
    assert!(matches!(next(&mut events).await, WireEvent::Connected(_)));
    let closed = timeout(DEADLINE, old.connection().closed()).await.unwrap();
    assert!(matches!(closed, ConnectionError::LocallyClosed), "{closed}");
    until("the new one is alone", || {
        a.endpoint.shared.pool().of(&id).len() == 1
    })
    .await;
    assert_eq!(secret(&a.endpoint.peer(&id).unwrap()), secret(&new));
    assert_eq!(a.connected.load(Ordering::SeqCst), 1);
    assert_eq!(a.gone.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_and_that_is_no_loss() {
    let liveness = Liveness {
        unused: Duration::from_millis(100),
        ..LIVENESS
    };
    let mesh = Mesh::new();
    let (first, second) = (mesh.member(), mesh.member());
    let (a, mut a_events) = bind_living(&first, liveness).await;
    let (b, mut b_events) = bind_living(&second, liveness).await;
    for round in 1..=2 {
        let peer = a.connect(&second.id(), b.local_address()).await.unwrap();
        let mut stream = peer.open(PROTOCOL).await.unwrap();
        for (events, node) in [(&mut a_events, second.id()), (&mut b_events, first.id())] {
            let event = next(events).await;
            assert!(
                matches!(&event, WireEvent::Connected(p) if p.node() == node),
                "{event:?}"
            );
        }
        let WireEvent::Stream(incoming) = next(&mut b_events).await else {
            panic!("the stream comes next");
        };
        stream.finish().unwrap();
        drop((stream, incoming));
        for (events, node) in [(&mut a_events, second.id()), (&mut b_events, first.id())] {
            let event = next(events).await;
            assert!(
                matches!(event, WireEvent::Released { node: n } if n == node),
                "{event:?}"
            );
        }
        assert!(a.peer(&second.id()).is_none() && b.peer(&first.id()).is_none());
        let closed = [&a, &b].map(|end| end.traffic().closed_idle);
        assert!(closed[0] >= round && closed[1] >= round, "{closed:?}");
    }
}

#[tokio::test]
async fn a_connection_with_an_open_stream_is_used_however_quiet_it_is() {
    let mesh = Mesh::new();
    let (a, b) = (Echo::new(&mesh).await, Echo::new(&mesh).await);
    let address = b.endpoint.local_address();
    let peer = a.endpoint.connect(&b.id, address).await.unwrap();
    let stream = peer.open(PROTOCOL).await.unwrap();
    a.look(10 * LIVENESS.unused);
    assert!(peer.is_usable());
    // One half is enough.
    let (send, recv) = stream.split();
    drop(send);
    a.look(10 * LIVENESS.unused);
    assert!(peer.is_usable());
    drop(recv);
    until("it is closed", || {
        a.look(10 * LIVENESS.unused);
        !peer.is_live()
    })
    .await;
}

#[tokio::test]
async fn who_opens_a_stream_while_the_peer_gives_the_connection_up_is_told_so() {
    let mesh = Mesh::new();
    let (home, mut events, home_id) = mesh.endpoint().await;
    let (away, _away_events, _) = mesh.endpoint().await;
    let there = away.connect(&home_id, home.local_address()).await.unwrap();
    let WireEvent::Connected(here) = next(&mut events).await else {
        panic!("nothing comes before the connection");
    };
    assert!(here.usage().give_up());
    let mut stream = there.open(PROTOCOL).await.unwrap();
    stream.send_frame(&[], b"anybody?").await.unwrap();
    here.connection().close(CLOSE_IDLE, b"nobody uses it");
    let told = timeout(DEADLINE, stream.recv_frame(FrameLimit::default())).await;
    let told = told.unwrap().unwrap_err();
    assert!(told.was_unheard(), "{told}");
    let refused = here.open(PROTOCOL).await;
    assert!(matches!(refused, Err(StreamError::ConnectionLost(_))));
    let event = next(&mut events).await;
    assert!(matches!(event, WireEvent::Released { .. }), "{event:?}");
}

/// Whoever of the two has the smaller id: by the rule for simultaneous dials the dead connection would stay in half of
/// the cases.
#[tokio::test]
async fn who_has_moved_is_reached_over_the_connection_that_it_makes_anew() {
    let mesh = Mesh::new();
    for round in 0..6 {
        let (dialled, _dialled_events, dialled_id) = mesh.endpoint().await;
        let (dialler, _events, dialler_id) = mesh.endpoint().await;
        let old = dialler.connect(&dialled_id, dialled.local_address()).await;
        let (old, at_dialled) = (old.unwrap(), connected(&dialled, &dialler_id).await);
        assert!(at_dialled.has_dialled(), "round {round}");
        dialled.has_moved();
        let replaced = dialled.replace(&at_dialled, dialler.local_address());
        replaced.await.unwrap();
        let ended = timeout(DEADLINE, old.connection().closed()).await;
        assert!(ended.is_ok(), "round {round}");
        let at_dialler = connected(&dialler, &dialled_id).await;
        assert!(at_dialler.has_dialled(), "round {round}");
        let mine = dialled.peer(&dialler_id).unwrap();
        assert!(!mine.has_dialled(), "round {round}");
    }
}
