//! Joining over loopback: tokens, approval, redirection, and hostile bytes.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mielin_mesh_core::{NodeId, NodeRole};
use mielin_mesh_wire::{
    CredentialsError, Endpoint, Features, JoinError, JoinProgress, JoinRequest, JoinToken,
    Liveness, NodeCredentials, TokenError, WireEvent, create_mesh, join, load_credentials,
    remembered_peers,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// The life of a token that has expired when it is made: tokens count seconds.
const PAST: Duration = Duration::from_nanos(1);
const LIVENESS: Liveness = Liveness {
    idle: Duration::from_secs(20),
    keep_alive: Duration::from_secs(2),
    unused: Duration::from_secs(300),
};

struct Node {
    credentials: NodeCredentials,
    endpoint: Endpoint,
    _events: mpsc::Receiver<WireEvent>,
    _dir: TempDir,
}

impl Node {
    async fn founder() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let credentials = create_mesh(dir.path(), "founder", NodeRole::Core).unwrap();
        Node::of(dir, credentials).await
    }

    async fn of(dir: TempDir, credentials: NodeCredentials) -> Node {
        let any = "127.0.0.1:0".parse().unwrap();
        let (endpoint, events) = Endpoint::bind(any, &credentials, LIVENESS, Features::NONE)
            .await
            .unwrap();
        Node {
            credentials,
            endpoint,
            _events: events,
            _dir: dir,
        }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_address()
    }

    fn token(&self) -> JoinToken {
        self.credentials
            .authority()
            .unwrap()
            .issue_token(None, HOUR)
            .unwrap()
    }
}

/// A request under a name that no other has.
fn request(address: SocketAddr, token: Option<JoinToken>) -> JoinRequest {
    static JOINERS: AtomicUsize = AtomicUsize::new(0);
    let number = JOINERS.fetch_add(1, Ordering::Relaxed);
    JoinRequest {
        address,
        token,
        name: format!("joiner-{number}"),
        role: NodeRole::Relay,
    }
}

async fn join_at(
    path: &Path,
    address: SocketAddr,
    token: Option<JoinToken>,
) -> Result<NodeCredentials, JoinError> {
    timeout(DEADLINE, join(path, request(address, token), |_| {}))
        .await
        .expect("an answer in time")
}

#[tokio::test]
async fn a_token_makes_a_member_that_others_accept() {
    let founder = Node::founder().await;
    let dir = tempfile::tempdir().unwrap();
    // What travels is text.
    let token = founder.token().to_string().parse().unwrap();
    let joined = join_at(dir.path(), founder.address(), Some(token))
        .await
        .unwrap();
    assert_eq!(joined.role(), NodeRole::Relay);
    assert_eq!(joined.mesh_id(), founder.credentials.mesh_id());
    assert!(joined.authority().is_none());
    let known = remembered_peers(joined.directory()).unwrap();
    assert_eq!(known, [(founder.credentials.id(), founder.address())]);
    assert_eq!(
        load_credentials(dir.path()).unwrap().unwrap().id(),
        joined.id()
    );

    let id = joined.id();
    let second = join_at(dir.path(), founder.address(), Some(founder.token())).await;
    assert!(
        matches!(second, Err(JoinError::Credentials(CredentialsError::Exists { node, .. })) if node == id)
    );

    let member = Node::of(dir, joined).await;
    let peer = member
        .endpoint
        .connect_any(founder.address())
        .await
        .unwrap();
    assert_eq!(
        (peer.node(), peer.role()),
        (founder.credentials.id(), NodeRole::Core)
    );
    assert!(peer.is_issuer());
    // A renewed certificate serves new connections, old ones stay.
    let mut renewed = member.credentials.clone();
    let ask = renewed.renewal_request().unwrap();
    let authority = founder.credentials.authority().unwrap();
    renewed
        .replace(authority.renew(&id, NodeRole::Relay, &ask).unwrap())
        .unwrap();
    member.endpoint.renew(&renewed).unwrap();
    assert!(peer.is_live());
    member
        .endpoint
        .connect_any(founder.address())
        .await
        .unwrap();
    // Nobody gets a certificate for another's id.
    assert!(
        authority
            .renew(&NodeId([9; 32]), NodeRole::Core, &ask)
            .is_err()
    );
}

#[tokio::test]
async fn used_expired_foreign_and_damaged_tokens_are_told_apart() {
    let (founder, stranger) = (Node::founder().await, Node::founder().await);
    let authority = founder.credentials.authority().unwrap();
    let dirs: Vec<TempDir> = (0..6).map(|_| tempfile::tempdir().unwrap()).collect();
    let token_error = |outcome: Result<NodeCredentials, JoinError>| match outcome {
        Err(JoinError::Token(error)) => error,
        other => panic!("{other:?}"),
    };

    let token = founder.token();
    join_at(dirs[0].path(), founder.address(), Some(token.clone()))
        .await
        .unwrap();
    let used = join_at(dirs[1].path(), founder.address(), Some(token)).await;
    assert_eq!(token_error(used), TokenError::Used);

    let expired = authority.issue_token(None, PAST).unwrap();
    let expired = join_at(dirs[2].path(), founder.address(), Some(expired)).await;
    assert_eq!(token_error(expired), TokenError::Expired);

    let foreign = join_at(dirs[3].path(), founder.address(), Some(stranger.token())).await;
    assert_eq!(token_error(foreign), TokenError::WrongMesh);

    let role = authority.issue_token(Some(NodeRole::Core), HOUR).unwrap();
    let role = join_at(dirs[4].path(), founder.address(), Some(role)).await;
    assert!(matches!(
        role,
        Err(JoinError::Role {
            granted: NodeRole::Core,
            ..
        })
    ));

    assert_eq!(
        "mielin1abc".parse::<JoinToken>(),
        Err(TokenError::Malformed)
    );
    // Every refused directory can still be used to join.
    for dir in &dirs[1..5] {
        assert!(load_credentials(dir.path()).unwrap().is_none());
        join_at(dir.path(), founder.address(), Some(founder.token()))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn whoever_shows_many_wrong_tokens_has_to_wait() {
    let founder = Node::founder().await;
    let authority = founder.credentials.authority().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut guesses = 0;
    let retry_after = loop {
        let wrong = authority.issue_token(None, PAST).unwrap();
        match join_at(dir.path(), founder.address(), Some(wrong)).await {
            Err(JoinError::Token(TokenError::Expired)) => guesses += 1,
            Err(JoinError::TooManyAttempts { retry_after }) => break retry_after,
            other => panic!("{other:?}"),
        }
        assert!(guesses <= 100, "nobody stops it");
    };
    assert!(guesses >= 10, "people mistype: {guesses}");
    assert!((1..=11).contains(&retry_after.as_secs()), "{retry_after:?}");
    // Now not even a good one helps, or the refusals would tell which is good.
    let good = join_at(dir.path(), founder.address(), Some(founder.token())).await;
    assert!(
        matches!(good, Err(JoinError::TooManyAttempts { .. })),
        "{good:?}"
    );
}

#[tokio::test]
async fn without_a_token_somebody_has_to_approve() {
    let founder = Node::founder().await;
    let authority = founder.credentials.authority().unwrap().clone();
    let dir = tempfile::tempdir().unwrap();
    let (waiting, mut reports) = mpsc::unbounded_channel();
    let seen = Mutex::new(Vec::new());
    let joining = join(dir.path(), request(founder.address(), None), |progress| {
        seen.lock().unwrap().push(progress.clone());
        if let JoinProgress::WaitingForApproval { node, .. } = progress {
            waiting.send(node).unwrap();
        }
    });
    let approving = async {
        let node = reports.recv().await.unwrap();
        let pending = authority.pending();
        assert_eq!(pending.len(), 1);
        assert_eq!(pending[0].node, node);
        assert!(pending[0].name.as_str().starts_with("joiner-"));
        authority.approve(&node).unwrap();
        node
    };
    let (joined, node) = timeout(DEADLINE, async { tokio::join!(joining, approving) })
        .await
        .unwrap();
    let joined = joined.unwrap();
    assert_eq!((joined.id(), joined.role()), (node, NodeRole::Relay));
    let seen = seen.into_inner().unwrap();
    let mesh = founder.credentials.mesh_id();
    assert_eq!(seen[0], JoinProgress::Introduced { mesh, node });
    assert!(matches!(seen.last(), Some(JoinProgress::Admitted { .. })));
    assert!(authority.pending().is_empty());

    // One that is rejected, and one that gives up.
    let dir = tempfile::tempdir().unwrap();
    let joining = join(dir.path(), request(founder.address(), None), |progress| {
        if let JoinProgress::WaitingForApproval { node, .. } = progress {
            authority.reject(&node).unwrap();
        }
    });
    let rejected = timeout(DEADLINE, joining).await.unwrap();
    assert!(matches!(rejected, Err(JoinError::Rejected)), "{rejected:?}");
    {
        let joining = join(dir.path(), request(founder.address(), None), |progress| {
            if let JoinProgress::WaitingForApproval { node, .. } = progress {
                waiting.send(node).unwrap();
            }
        });
        tokio::select! {
            outcome = joining => panic!("{outcome:?}"),
            _ = reports.recv() => assert_eq!(authority.pending().len(), 1),
        }
    }
    let gone = async {
        while !authority.pending().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, gone)
        .await
        .expect("the list forgets who has given up");
}

/// Of those who wait for approval from one host there may be eight. They were killed, all but one.
#[tokio::test]
async fn the_dead_who_wait_for_approval_make_room_and_the_living_stay() {
    let founder = Node::founder().await;
    let authority = founder.credentials.authority().unwrap();
    let address = founder.address();
    let waiting = async |count: usize| {
        let wait = async {
            while authority.pending().len() != count {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, wait).await.expect("they wait");
    };
    let ask = move || async move {
        let dir = tempfile::tempdir().unwrap();
        let joined = join_at(dir.path(), address, None).await;
        joined.map(|credentials| credentials.id())
    };
    let lives = tokio::spawn(ask());
    waiting(1).await;
    let living = authority.pending()[0].node;
    let doomed = tokio::runtime::Runtime::new().unwrap();
    for count in 2..=8 {
        doomed.spawn(ask());
        waiting(count).await;
    }
    // No task of theirs runs any more, so nobody says goodbye.
    doomed.shutdown_background();

    let full: Vec<_> = authority
        .pending()
        .into_iter()
        .map(|one| one.node)
        .collect();

    let asked = std::time::Instant::now();
    let late = tokio::spawn(ask());
    // Who is still to be sent away is on the list, too: two are not yet the right two.
    let newcomer = async {
        loop {
            let pending = authority.pending();
            if let Some(new) = pending.iter().find(|one| !full.contains(&one.node)) {
                break new.node;
            }
            tokio::task::yield_now().await;
        }
    };
    let newcomer = timeout(DEADLINE, newcomer).await.expect("it waits");
    assert!(asked.elapsed() < LIVENESS.idle / 2, "{:?}", asked.elapsed());
    waiting(2).await;
    for node in [living, newcomer] {
        authority.approve(&node).unwrap();
    }
    assert_eq!(lives.await.unwrap().unwrap(), living);
    assert!(late.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_member_sends_joiners_to_the_issuer() {
    let founder = Node::founder().await;
    let dir = tempfile::tempdir().unwrap();
    let joined = join_at(dir.path(), founder.address(), Some(founder.token()))
        .await
        .unwrap();
    let member = Node::of(dir, joined).await;

    let dir = tempfile::tempdir().unwrap();
    let lost = join_at(dir.path(), member.address(), Some(founder.token())).await;
    assert!(
        matches!(lost, Err(JoinError::IssuerUnknown { .. })),
        "{lost:?}"
    );

    // A member that is named as the issuer without being it sees no secret.
    member.endpoint.issuer_is_at(Some(member.address()));
    let token = founder.token();
    let misled = join_at(dir.path(), member.address(), Some(token.clone())).await;
    assert!(misled.is_err());

    member.endpoint.issuer_is_at(Some(founder.address()));
    let joined = join_at(dir.path(), member.address(), Some(token))
        .await
        .unwrap();
    assert_eq!(remembered_peers(joined.directory()).unwrap().len(), 2);
}

#[tokio::test]
async fn nobody_at_the_address_is_said_so() {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    drop(tcp);
    let dir = tempfile::tempdir().unwrap();
    let nobody = join_at(dir.path(), address, None).await;
    assert!(
        matches!(nobody, Err(JoinError::Introduction(_))),
        "{nobody:?}"
    );
    let founder = Node::founder().await;
    let nobody = join_at(dir.path(), address, Some(founder.token())).await;
    assert!(
        matches!(nobody, Err(JoinError::Timeout { .. })),
        "{nobody:?}"
    );
}

#[tokio::test]
async fn hostile_bytes_on_the_join_stream_end_that_connection_only() {
    let founder = Node::founder().await;
    let client = joining_client(&founder).await;
    let frames: [&[u8]; 6] = [
        b"",
        b"\x00",
        &[0xff; 64],
        &[0x00, 0x04, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[0x00, 0x01, 0xff, 0xff, 0xff, 0xff, 0x00],
        &[0x1f, 0xff, 0, 0, 0, 0, 1],
    ];
    for frame in frames {
        let connection = client
            .connect(founder.address(), "member.mielin")
            .unwrap()
            .await
            .unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(frame).await.unwrap();
        let _ = send.finish();
        timeout(DEADLINE, connection.closed())
            .await
            .expect("the member closes");
    }
    let dir = tempfile::tempdir().unwrap();
    join_at(dir.path(), founder.address(), Some(founder.token()))
        .await
        .unwrap();
}

/// A client that speaks the join protocol's TLS but nothing sensible after it.
async fn joining_client(founder: &Node) -> quinn::Endpoint {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(founder.credentials.root().der().to_vec().into())
        .unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"mielin-join/1".to_vec()];
    let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let mut client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    client.set_default_client_config(quinn::ClientConfig::new(std::sync::Arc::new(config)));
    client
}
