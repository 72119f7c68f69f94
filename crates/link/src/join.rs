//! Joining: the one call that is made before there is a certificate.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use undine_api::Problem;
use undine_api::internal::{JoinAnswer, JoinRequest};

use crate::client::{CallError, builder};
use crate::identity::CONTROL_HOST;
use crate::token::JoinToken;

const DEADLINE: Duration = Duration::from_secs(20);

/// Asks the instances that the token names, one after the other, until one answers.
pub async fn join(token: &JoinToken, request: &JoinRequest) -> Result<JoinAnswer, CallError> {
    let unreachable = |source| CallError::Unreachable {
        peer: CONTROL_HOST.to_owned(),
        source,
    };
    let mut last = unreachable(None);
    for address in &token.addresses {
        let client = builder(config(token))
            .resolve(CONTROL_HOST, *address)
            .build()
            .map_err(|source| unreachable(Some(source)))?;
        let url = format!("https://{CONTROL_HOST}:{}/internal/v1/join", address.port());
        match client
            .post(url)
            .json(request)
            .timeout(DEADLINE)
            .send()
            .await
        {
            Err(source) => last = unreachable(Some(source)),
            Ok(response) => return read(response).await,
        }
    }
    Err(last)
}

async fn read(response: reqwest::Response) -> Result<JoinAnswer, CallError> {
    let status = response.status();
    let unexpected = |detail: String| CallError::Unexpected {
        peer: CONTROL_HOST.to_owned(),
        detail,
    };
    let bytes = response
        .bytes()
        .await
        .map_err(|error| unexpected(error.to_string()))?;
    if status.is_success() {
        return serde_json::from_slice(&bytes).map_err(|error| unexpected(error.to_string()));
    }
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => Err(CallError::Refused(problem)),
        Err(_) => Err(unexpected(format!("status {status}"))),
    }
}

fn config(token: &JoinToken) -> ClientConfig {
    let verifier = Fingerprint {
        wanted: token.ca_fingerprint.clone(),
        algorithms: ring::default_provider().signature_verification_algorithms,
    };
    ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth()
}

/// Trusts the CA whose fingerprint the token carries, and then verifies as usual.
#[derive(Debug)]
struct Fingerprint {
    wanted: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Fingerprint {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = chain
            .iter()
            .find(|certificate| hex::encode(Sha256::digest(certificate)) == self.wanted)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let provider = Arc::new(ring::default_provider());
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(leaf, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
