//! A program's key, certificate and the CA that it trusts, as they lie in its state directory.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::identity::Identity;

/// What is wrong with a program's credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file is not there or cannot be written.
    #[error("{path}: this program has not joined a cluster, or its state directory is damaged")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("the {what} is damaged: {reason}")]
    Damaged {
        /// Which part.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// A program's key, certificate and the CA that it trusts; PEM each.
#[derive(Clone)]
pub struct Credentials {
    /// The private key.
    pub key: String,
    /// The program's certificate.
    pub certificate: String,
    /// The cluster's CA.
    pub ca: String,
}

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "cert.pem";
const CA: &str = "ca.pem";

/// Makes ring the process's cryptography; call it first in every `main`.
pub fn install_crypto() {
    // A second call finds it installed: that is what was wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A new private key and the request for its certificate, PEM each.
pub fn csr() -> Result<(String, String), CredentialsError> {
    let damaged = |error: rcgen::Error| CredentialsError::Damaged {
        what: "certificate request",
        reason: error.to_string(),
    };
    let key = KeyPair::generate().map_err(damaged)?;
    let request = CertificateParams::default()
        .serialize_request(&key)
        .map_err(damaged)?;
    Ok((key.serialize_pem(), request.pem().map_err(damaged)?))
}

impl Credentials {
    /// Reads them from a directory.
    pub fn load(directory: &Path) -> Result<Self, CredentialsError> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).map_err(|source| CredentialsError::File { path, source })
        };
        Ok(Self {
            key: read(KEY)?,
            certificate: read(CERTIFICATE)?,
            ca: read(CA)?,
        })
    }

    /// Writes them to a directory, each file whole or not at all; only its owner may read them.
    pub fn save(&self, directory: &Path) -> Result<(), CredentialsError> {
        std::fs::create_dir_all(directory).map_err(|source| CredentialsError::File {
            path: directory.to_owned(),
            source,
        })?;
        for (name, text) in [
            (KEY, &self.key),
            (CERTIFICATE, &self.certificate),
            (CA, &self.ca),
        ] {
            let path = directory.join(name);
            write_whole(&path, text.as_bytes())
                .map_err(|source| CredentialsError::File { path, source })?;
        }
        Ok(())
    }

    /// Who the certificate says that this program is.
    pub fn identity(&self) -> Result<Identity, CredentialsError> {
        let chain = certificates("certificate", &self.certificate)?;
        chain
            .first()
            .and_then(|leaf| Identity::from_certificate(leaf))
            .ok_or_else(|| CredentialsError::Damaged {
                what: "certificate",
                reason: "it names no program of a cluster".to_owned(),
            })
    }

    /// When the certificate ends, seconds since 1970.
    pub fn expires_unix_s(&self) -> Result<i64, CredentialsError> {
        let chain = certificates("certificate", &self.certificate)?;
        chain
            .first()
            .and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok())
            .map(|(_, parsed)| parsed.validity().not_after.timestamp())
            .ok_or_else(|| CredentialsError::Damaged {
                what: "certificate",
                reason: "its end cannot be read".to_owned(),
            })
    }

    /// For a server that asks its callers for a certificate of the cluster, and tells the ones
    /// without one apart.
    pub(crate) fn server_config(&self) -> Result<ServerConfig, CredentialsError> {
        let verifier = WebPkiClientVerifier::builder(Arc::new(self.roots()?))
            .allow_unauthenticated()
            .build()
            .map_err(|error| damaged("cluster's CA", &error))?;
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain()?, self.private_key()?)
            .map_err(|error| damaged("certificate", &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// For calls to programs of the cluster.
    pub fn client_config(&self) -> Result<ClientConfig, CredentialsError> {
        ClientConfig::builder()
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain()?, self.private_key()?)
            .map_err(|error| damaged("certificate", &error))
    }

    fn roots(&self) -> Result<RootCertStore, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("cluster's CA", &self.ca)? {
            roots
                .add(certificate)
                .map_err(|error| damaged("cluster's CA", &error))?;
        }
        Ok(roots)
    }

    /// Leaf first; the CA goes along so that one who joins can compare its fingerprint.
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
        let mut chain = certificates("certificate", &self.certificate)?;
        chain.extend(certificates("cluster's CA", &self.ca)?);
        Ok(chain)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, CredentialsError> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|error| damaged("private key", &error))
    }
}

fn damaged(what: &'static str, error: &dyn std::fmt::Display) -> CredentialsError {
    CredentialsError::Damaged {
        what,
        reason: error.to_string(),
    }
}

pub(crate) fn certificates(
    what: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| damaged(what, &error))
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
