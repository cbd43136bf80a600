//! A disk that was full, or failed, gets what it has missed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use crate::ledger::Ledger;

/// How long to wait before writing again what could not be written.
const PERIOD: Duration = Duration::from_secs(1);

/// Writes again what could not be written, until the node stops.
pub(super) fn write_again(
    ledger: &Arc<Ledger>,
    mut closing: watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    let (unwritten, ledger) = (Arc::clone(&ledger.unwritten), Arc::downgrade(ledger));
    async move {
        let writing = async {
            loop {
                unwritten.notified().await;
                tokio::time::sleep(PERIOD).await;
                let Some(ledger) = Weak::upgrade(&ledger) else {
                    return;
                };
                // If that fails, there is something unwritten again.
                let _ = tokio::task::spawn_blocking(move || ledger.flush()).await;
            }
        };
        tokio::select! {
            () = writing => {}
            // An error says that the node is gone.
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }
}
