use super::*;
use crate::certificate::{NodeCertificate, make_request, make_root};

/// The life of a token that has expired when it is made: tokens count seconds.
const PAST: Duration = Duration::from_nanos(1);

fn authority() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let directory = DataDirectory::open(dir.path()).unwrap();
    let (key, root) = make_root().unwrap();
    let authority = Authority::create(directory, key, root).unwrap();
    (dir, authority)
}

/// The same authority after its process has been started again.
fn reopened(dir: &tempfile::TempDir, old: &Authority) -> Authority {
    let directory = DataDirectory::open(dir.path()).unwrap();
    Authority::load(&directory, &old.shared.root, &old.shared.revoked)
        .unwrap()
        .unwrap()
}

fn request() -> VerifiedRequest {
    VerifiedRequest::check(&make_request(&NodeKey::generate().unwrap()).unwrap()).unwrap()
}

fn called(name: &str) -> Name {
    Name::new(name).unwrap()
}

#[test]
fn a_token_admits_one_node_even_after_a_restart() {
    let (dir, authority) = authority();
    let hour = Duration::from_secs(3600);
    let token = authority.issue_token(Some(NodeRole::Relay), hour).unwrap();
    let (first, second) = (request(), request());

    let certificate = authority
        .admit_by_token(&first, &called("first"), &token.secret, None)
        .unwrap();
    let certificate = NodeCertificate::check(&certificate).unwrap();
    assert_eq!(
        (certificate.id, certificate.role),
        (first.id, NodeRole::Relay)
    );
    assert!(!certificate.issuer);

    for authority in [&authority, &reopened(&dir, &authority)] {
        let refused = authority.admit_by_token(&second, &called("second"), &token.secret, None);
        assert!(matches!(
            refused,
            Err(AdmissionError::Token(TokenError::Used))
        ));
        // Its own user may repeat the request: the first answer may be lost.
        authority
            .admit_by_token(&first, &called("first"), &token.secret, None)
            .unwrap();
    }
}

#[test]
fn a_counted_token_admits_as_many_as_it_says_however_they_hurry() {
    let (dir, authority) = authority();
    let hour = Duration::from_secs(3600);
    for wrong in [0, TOKEN_USES_MAX + 1] {
        let refused = authority.issue_counted_token(None, hour, wrong);
        assert!(matches!(refused, Err(AuthorityError::Uses(uses)) if uses == wrong));
    }
    for wrong in [Duration::ZERO, TOKEN_LIFETIME_MAX + PAST, Duration::MAX] {
        let refused = authority.issue_token(None, wrong);
        assert!(matches!(refused, Err(AuthorityError::Lifetime(life)) if life == wrong));
    }
    authority.issue_token(None, TOKEN_LIFETIME_MAX).unwrap();
    let token = authority.issue_counted_token(None, hour, 3).unwrap();
    let admitted = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for index in 0..12 {
            let (authority, admitted, secret) = (&authority, &admitted, &token.secret);
            scope.spawn(move || {
                let (asked, name) = (request(), called(&format!("node-{index}")));
                match authority.admit_by_token(&asked, &name, secret, None) {
                    Ok(_) => admitted.lock().unwrap().push((asked, name)),
                    Err(AdmissionError::Token(TokenError::Used)) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        }
    });
    let admitted = admitted.into_inner().unwrap();
    assert_eq!(admitted.len(), 3);
    let authority = reopened(&dir, &authority);
    let late = authority.admit_by_token(&request(), &called("late"), &token.secret, None);
    assert!(matches!(late, Err(AdmissionError::Token(TokenError::Used))));
    for (asked, name) in &admitted {
        authority
            .admit_by_token(asked, name, &token.secret, None)
            .unwrap();
    }
}

#[test]
fn wrong_and_expired_tokens_and_roles_are_told_apart() {
    let (_dir, authority) = authority();
    let asked = request();
    let unknown = authority.admit_by_token(&asked, &called("asked"), &[7; 32], None);
    assert!(matches!(
        unknown,
        Err(AdmissionError::Token(TokenError::Unknown))
    ));

    let expired = authority.issue_token(None, PAST).unwrap();
    let expired = authority.admit_by_token(&asked, &called("asked"), &expired.secret, None);
    assert!(matches!(
        expired,
        Err(AdmissionError::Token(TokenError::Expired))
    ));

    let hour = Duration::from_secs(3600);
    let edge = authority.issue_token(Some(NodeRole::Edge), hour).unwrap();
    let other =
        authority.admit_by_token(&asked, &called("asked"), &edge.secret, Some(NodeRole::Core));
    assert!(matches!(
        other,
        Err(AdmissionError::Role {
            granted: NodeRole::Edge,
            ..
        })
    ));
    // A refused role does not use the token up.
    authority
        .admit_by_token(&asked, &called("asked"), &edge.secret, Some(NodeRole::Edge))
        .unwrap();

    let free = authority.issue_token(None, hour).unwrap();
    let core = authority
        .admit_by_token(&asked, &called("asked"), &free.secret, Some(NodeRole::Core))
        .unwrap();
    assert_eq!(NodeCertificate::check(&core).unwrap().role, NodeRole::Core);
}

#[test]
fn secrets_are_not_stored_and_a_damaged_store_is_refused() {
    let (dir, authority) = authority();
    let token = authority
        .issue_token(None, Duration::from_secs(60))
        .unwrap();
    let stored = std::fs::read(dir.path().join(TOKENS_FILE)).unwrap();
    assert!(
        !stored
            .windows(8)
            .any(|window| token.secret.starts_with(window))
    );
    std::fs::write(dir.path().join(TOKENS_FILE), &stored[1..]).unwrap();
    let directory = DataDirectory::open(dir.path()).unwrap();
    let damaged = Authority::load(
        &directory,
        &authority.shared.root,
        &authority.shared.revoked,
    );
    assert!(matches!(damaged, Err(AuthorityError::TokensDamaged)));
}

#[test]
fn the_list_of_pending_joiners_is_bounded_and_follows_its_tickets() {
    let (_dir, authority) = authority();
    let info = |index: u8| PendingJoin {
        node: NodeId([index; 32]),
        name: Name::new("n").unwrap(),
        role: NodeRole::Edge,
        address: SocketAddr::from(([10, 0, 0, index / 8], 1)),
        since: SystemTime::now(),
    };
    let mut tickets: Vec<_> = (0..64).map(|i| authority.ask(info(i)).unwrap()).collect();
    assert!(matches!(authority.ask(info(64)), Err(AdmissionError::Busy)));
    // A second request of one node takes the place of its first, and the first
    // request's end does not remove it.
    let again = authority.ask(info(3)).unwrap();
    tickets.remove(3);
    assert_eq!(authority.pending().len(), 64);
    drop(tickets.remove(0));
    assert_eq!(authority.pending().len(), 63);

    let (ticket, mut outcome) = again;
    authority.approve(&NodeId([3; 32])).unwrap();
    assert_eq!(outcome.try_recv().unwrap(), Decision::Approved);
    drop(ticket);
    let gone = authority.approve(&NodeId([3; 32]));
    assert!(matches!(gone, Err(AuthorityError::NotPending(_))));
}

#[test]
fn of_two_that_wait_under_one_name_one_is_approved() {
    let (_dir, authority) = authority();
    let info = |index: u8| PendingJoin {
        node: NodeId([index; 32]),
        name: called("edge"),
        role: NodeRole::Edge,
        address: SocketAddr::from(([10, 0, 0, index], 1)),
        since: SystemTime::now(),
    };
    let _first = authority.ask(info(1)).unwrap();
    let (_second, mut outcome) = authority.ask(info(2)).unwrap();
    authority.approve(&NodeId([1; 32])).unwrap();
    let refused = authority.approve(&NodeId([2; 32]));
    assert!(matches!(refused, Err(AuthorityError::NameTaken(_))));
    let refused = authority.ask(info(3));
    assert!(matches!(refused, Err(AdmissionError::NameTaken(_))));
    // It waits on, and is approved when the other has left.
    assert!(outcome.try_recv().is_err());
    authority.forget_name(&NodeId([1; 32]));
    authority.approve(&NodeId([2; 32])).unwrap();
    assert_eq!(outcome.try_recv().unwrap(), Decision::Approved);
}
