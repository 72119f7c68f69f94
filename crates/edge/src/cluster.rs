//! The edge's place in the cluster: its credentials, renewed early, and its line to control.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use undine_api::internal::{RenewAnswer, RenewRequest};
use undine_link::{CallError, ControlClient, Credentials, CredentialsError, Method, csr};

/// Renewed when less than this is left of ninety days: a month without control hurts nobody.
const RENEW_BEFORE: Duration = Duration::from_secs(60 * 86_400);
const RENEW_CHECK: Duration = Duration::from_secs(3600);
const DEADLINE: Duration = Duration::from_secs(10);

/// The credentials, in each form that somebody needs.
pub struct Trust {
    /// As they lie on disk.
    pub credentials: Credentials,
    /// For calls to control.
    pub control: ControlClient,
    /// The certificate with its key, for panel visitors' requests.
    pub key: Arc<CertKey>,
    /// The cluster's CA.
    pub ca: Arc<[WrappedX509]>,
}

/// The certificate could not be renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The credentials are damaged or cannot be kept.
    #[error("the credentials")]
    Credentials(#[from] CredentialsError),
    /// Control did not answer, or said no.
    #[error("control")]
    Call(#[from] CallError),
}

impl Trust {
    fn new(credentials: Credentials, addresses: &[SocketAddr]) -> Result<Self, CredentialsError> {
        // This checks every part of them; what follows cannot meet worse.
        let control = ControlClient::new(credentials.clone(), addresses)?;
        let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())
            .map_err(|error| damaged("private key", &error))?;
        let chain = ders("certificate", &credentials.certificate)?;
        if chain.is_empty() {
            return Err(damaged("certificate", &"it is empty"));
        }
        let ca = ders("cluster's CA", &credentials.ca)?;
        Ok(Self {
            control,
            key: Arc::new(CertKey::new(chain, key.secret_der().to_vec())),
            ca: ca
                .into_iter()
                .map(|der| WrappedX509::new(der, parse_x509))
                .collect(),
            credentials,
        })
    }
}

fn ders(what: &'static str, pem: &str) -> Result<Vec<Vec<u8>>, CredentialsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|der| der.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(what, &error))
}

fn damaged(what: &'static str, reason: &dyn std::fmt::Display) -> CredentialsError {
    CredentialsError::Damaged {
        what,
        reason: reason.to_string(),
    }
}

/// The edge's place in the cluster.
pub struct Cluster {
    state_dir: PathBuf,
    trust: ArcSwap<Trust>,
}

impl Cluster {
    /// Reads the credentials from the state directory; control is first looked for at these
    /// addresses.
    pub fn load(state_dir: &Path, addresses: &[SocketAddr]) -> Result<Self, CredentialsError> {
        let credentials = Credentials::load(state_dir)?;
        // The id is not needed here, but a certificate without one is not ours.
        credentials.identity()?;
        let trust = Trust::new(credentials, addresses)?;
        Ok(Self {
            state_dir: state_dir.to_owned(),
            trust: ArcSwap::from_pointee(trust),
        })
    }

    /// The credentials now.
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.load_full()
    }

    /// Renews the certificate when it is time, for ever.
    pub async fn keep_fresh(&self) {
        loop {
            if self.is_due()
                && let Err(error) = self.renew().await
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the certificate could not be renewed yet"
                );
            }
            tokio::time::sleep(RENEW_CHECK).await;
        }
    }

    fn is_due(&self) -> bool {
        let Ok(expires) = self.trust().credentials.expires_unix_s() else {
            return true;
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        expires.saturating_sub_unsigned(RENEW_BEFORE.as_secs())
            < i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
    }

    /// Asks control for a fresh certificate, keeps it and uses it.
    pub async fn renew(&self) -> Result<(), RenewError> {
        let old = self.trust();
        let (key, csr) = csr()?;
        let answer: RenewAnswer = old
            .control
            .call(
                Method::POST,
                "/internal/v1/renew",
                Some(&RenewRequest { csr }),
                DEADLINE,
            )
            .await?;
        let credentials = Credentials {
            key,
            certificate: answer.certificate,
            ca: old.credentials.ca.clone(),
        };
        let fresh = Trust::new(credentials, &old.control.addresses())?;
        fresh.credentials.save(&self.state_dir)?;
        self.trust.store(Arc::new(fresh));
        tracing::info!("the certificate was renewed");
        Ok(())
    }
}
