//! A node that does not answer is not dialled by everybody at once, again and again.

use super::*;

#[tokio::test]
async fn a_node_that_could_not_be_dialled_is_left_alone_for_a_while() {
    let mesh = Mesh::new();
    let (a, _a_events, a_id) = mesh.endpoint().await;
    let (b, _b_events, b_id) = mesh.endpoint().await;
    // Somebody else listens there, so the dial fails at once.
    let (other, mut other_events, _) = mesh.endpoint().await;
    let wrong = other.local_address();
    let many = (0..8).map(|_| {
        let a = a.clone();
        tokio::spawn(async move { a.connect(&b_id, wrong).await.unwrap_err() })
    });
    let mut dialled = 0;
    for one in many.collect::<Vec<_>>() {
        match one.await.unwrap() {
            WireError::Pausing { wait, .. } => assert!(wait <= Duration::from_millis(100)),
            _ => dialled += 1,
        }
    }
    // More than one only if this machine was so slow that the pause was over.
    assert!(dialled < 8, "all have dialled");
    assert!(other_events.try_recv().is_err());
    // Not elsewhere, though.
    let there = a.connect(&b_id, b.local_address()).await.unwrap();
    assert_eq!(there.node(), b_id);

    // Who is impatient, and who has heard of the node, dials at once.
    let (late, _late_events, late_id) = mesh.endpoint().await;
    for way in ["impatient", "heard"] {
        let now = Instant::now();
        let error = a.connect(&late_id, wrong).await.unwrap_err();
        {
            let mut failures = a.shared.backoff();
            for _ in 0..8 {
                failures.failed(now, &late_id, wrong, &error, 1.0);
            }
        }
        let paused = a.connect(&late_id, wrong).await;
        assert!(
            matches!(paused, Err(WireError::Pausing { .. })),
            "{paused:?}"
        );
        match way {
            "impatient" => a.hurry(&late_id),
            _ => {
                late.connect(&a_id, a.local_address()).await.unwrap();
                let heard = async {
                    while a.peer(&late_id).is_none() {
                        tokio::task::yield_now().await;
                    }
                };
                timeout(DEADLINE, heard).await.unwrap();
                a.peer(&late_id)
                    .unwrap()
                    .connection()
                    .close(CLOSE_SHUTDOWN, b"");
            }
        }
        let again = a.connect(&late_id, wrong).await;
        assert!(
            !matches!(again, Ok(_) | Err(WireError::Pausing { .. })),
            "{way}: {again:?}"
        );
        a.hurry(&late_id);
    }
}
