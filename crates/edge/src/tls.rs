//! TLS by name: certificates come from the routing table, live.

use std::sync::{Arc, OnceLock};

use rustls::ServerConfig;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use undine_api::edge::Certificate;

use crate::table::Routes;

/// A certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The chain or the key is no PEM.
    #[error("it cannot be read")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The key is of a kind that we cannot use, or does not belong to the certificate.
    #[error("it cannot be used")]
    Key(#[from] rustls::Error),
    /// No certificate in it.
    #[error("it is empty")]
    Empty,
    /// Our own stand-in could not be made.
    #[error("a stand-in certificate could not be made")]
    StandIn(#[from] rcgen::Error),
}

/// Parses a certificate when the first visitor needs it; most of ten thousand never do.
#[derive(Debug, Default)]
pub struct LazyKey(OnceLock<Option<Arc<CertifiedKey>>>);

impl LazyKey {
    fn get(&self, host: &str, certificate: Option<&Certificate>) -> Option<Arc<CertifiedKey>> {
        let certificate = certificate?;
        let parsed = self.0.get_or_init(|| match parse(certificate) {
            Ok(key) => Some(Arc::new(key)),
            Err(error) => {
                tracing::warn!(host, %error, "a certificate is left out");
                None
            }
        });
        parsed.clone()
    }
}

fn parse(certificate: &Certificate) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() {
        return Err(TlsError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())?;
    let key = CertifiedKey::new(chain, any_supported_type(&key)?);
    match key.keys_match() {
        // Some keys cannot tell their public half; then the handshake shows it.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(key),
        Err(error) => Err(error.into()),
    }
}

/// Finds the certificate for the name that a visitor asks for.
#[derive(Debug)]
struct ByName {
    routes: Arc<Routes>,
    stand_in: Arc<CertifiedKey>,
}

impl ByName {
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let table = self.routes.current();
        if table.is_panel(name) {
            let entry = table.panel();
            return entry.key.get(name, entry.panel.certificate.as_ref());
        }
        let entry = table.route(name)?;
        entry.key.get(name, entry.route.certificate.as_ref())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let found = name.and_then(|name| self.find(&name));
        // A visitor who goes on past the browser's warning gets a page that explains.
        Some(found.unwrap_or_else(|| Arc::clone(&self.stand_in)))
    }
}

/// A certificate that nobody signed, for names that have none.
fn stand_in() -> Result<CertifiedKey, TlsError> {
    let made = rcgen::generate_simple_self_signed(["undine-edge.invalid".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    Ok(CertifiedKey::new(
        vec![made.cert.der().clone()],
        any_supported_type(&key)?,
    ))
}

/// How visitors' connections are secured: HTTP/2 or HTTP/1.1, certificates live from the table.
pub fn server_config(routes: Arc<Routes>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName {
            routes,
            stand_in: Arc::new(stand_in()?),
        }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Certificate {
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    #[test]
    fn a_damaged_certificate_is_left_out() {
        let good = made(&["a.test"]);
        assert!(LazyKey::default().get("a.test", Some(&good)).is_some());
        let damaged = [
            (String::new(), good.key.clone()),
            (good.chain.clone(), String::from("nonsense")),
            (good.chain.clone(), made(&["b.test"]).key),
        ];
        for (chain, key) in damaged {
            let bad = Certificate { chain, key };
            assert!(LazyKey::default().get("a.test", Some(&bad)).is_none());
        }
    }
}
