//! The certificate of a running node: watching its end, and having it renewed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mielin_mesh_core::NodeId;
use mielin_mesh_wire::CredentialsError;
use tokio::time::sleep;

use crate::error::MeshError;
use crate::service::request;
use crate::serving::{Refusal, RequestHandler, request_handler};
use crate::state::Shared;

/// Requests that carry a certificate request and get a certificate.
pub(crate) const RENEWAL: u16 = 3;

/// Between two looks at the certificate's end.
const RENEWAL_PERIOD: Duration = Duration::from_secs(3600);
const RENEWAL_LIMIT: Duration = Duration::from_secs(30);
/// The pause after a renewal that failed, and the longest that it doubles to.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LAST: Duration = Duration::from_secs(600);

/// Keeps a node's certificate good. It is looked at every hour, and renewed by the holder of the mesh root when fewer
/// than 30 of its 90 days are left; where that fails it is tried again within ten minutes, and at once when the holder
/// connects. The key stays. Key (PKCS #8) and certificate (DER) lie in the data directory, which
/// only the node's user can read; a crash leaves the old certificate or the new one. Connections that stand are not
/// touched, new ones are made with the new certificate.
pub struct CertManager {
    shared: Arc<Shared>,
}

impl CertManager {
    pub(crate) fn new(shared: Arc<Shared>) -> CertManager {
        CertManager { shared }
    }

    /// When the certificate that is in use ends.
    pub async fn expires(&self) -> SystemTime {
        self.shared.credentials.lock().await.expires()
    }

    /// Whether fewer than 30 days are left.
    pub async fn renewal_due(&self) -> bool {
        let expires = self.expires().await;
        is_due(&self.shared, expires)
    }

    /// Has the certificate renewed now.
    ///
    /// # Errors
    /// The issuer is unknown, cannot be reached, or refused; the old certificate stays in use.
    pub async fn renew(&self) -> Result<(), MeshError> {
        renew(&self.shared).await
    }
}

/// Renews the certificate when its end is near.
pub(crate) async fn keep_certificate(shared: Arc<Shared>) {
    let mut pause = RETRY_FIRST;
    loop {
        let expires = shared.credentials.lock().await.expires();
        note_end(&shared, expires);
        let renewed = match is_due(&shared, expires) {
            true => renew(&shared).await,
            false => Ok(()),
        };
        let Err(error) = renewed else {
            pause = RETRY_FIRST;
            sleep(RENEWAL_PERIOD).await;
            continue;
        };
        match expires.duration_since(SystemTime::now()) {
            // It has not been met yet since the start.
            Ok(_) if pause == RETRY_FIRST && matches!(error, MeshError::NoIssuer) => {}
            Ok(left) => tracing::warn!(
                %error,
                "cannot renew the certificate, which is good for {} h more; trying again",
                left.as_secs() / 3600
            ),
            Err(_) => tracing::error!(
                %error,
                "the certificate has ended and cannot be renewed: nobody lets this node in any more"
            ),
        }
        tokio::select! {
            () = sleep(pause) => pause = (2 * pause).min(RETRY_LAST),
            () = shared.issuer_connected.notified() => {}
        }
    }
}

/// For those who ask what the node measures.
fn note_end(shared: &Shared, expires: SystemTime) {
    let since_epoch = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    shared
        .certificate_ends_s
        .store(since_epoch.as_secs(), Ordering::Relaxed);
}

fn is_due(shared: &Shared, expires: SystemTime) -> bool {
    expires < SystemTime::now() + shared.config.renew_below
}

/// Obtains a new certificate from the issuer and uses it for new connections.
async fn renew(shared: &Arc<Shared>) -> Result<(), MeshError> {
    let mut credentials = shared.credentials.lock().await;
    if !credentials.renew_own()? {
        let issuer = shared.cores().issuer.ok_or(MeshError::NoIssuer)?;
        let ask = credentials.renewal_request()?.into();
        let certificate = request(shared, &issuer, RENEWAL, ask, RENEWAL_LIMIT).await?;
        credentials
            .replace(certificate.into())
            .map_err(|error| match error {
                CredentialsError::Certificate(_) | CredentialsError::Mismatch => {
                    MeshError::MalformedResponse(issuer)
                }
                other => other.into(),
            })?;
    }
    shared.endpoint.renew(&credentials)?;
    note_end(shared, credentials.expires());
    tracing::info!("the certificate was renewed");
    Ok(())
}

/// Issues certificates anew, on the holder of the root.
pub(crate) fn renewal_handler(shared: Weak<Shared>) -> Arc<dyn RequestHandler> {
    request_handler(move |from: NodeId, ask: Bytes| {
        let shared = shared.clone();
        async move {
            let here = |message: &str| Refusal::new(Refusal::NOT_HERE, message);
            let shared = shared
                .upgrade()
                .ok_or_else(|| here("the node is shutting down"))?;
            let authority = shared
                .authority
                .as_ref()
                .ok_or_else(|| here("this node does not hold the root"))?;
            // The role stands in the certificate with which the peer came.
            let peer = shared
                .endpoint
                .peer(&from)
                .ok_or_else(|| here("you are gone"))?;
            let certificate = authority.renew(&from, peer.role(), &ask);
            certificate
                .map(Bytes::from)
                .map_err(|error| here(&error.to_string()))
        }
    })
}
