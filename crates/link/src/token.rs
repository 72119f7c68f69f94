//! One-time join tokens: where control is, how to know it, and a secret.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::credentials::certificates;

const PREFIX: &str = "undine1.";

/// A token that lets one program join.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Instances of control, any of them will do.
    #[serde(rename = "a")]
    pub addresses: Vec<SocketAddr>,
    /// SHA-256 of the cluster's CA certificate, hexadecimal.
    #[serde(rename = "f")]
    pub ca_fingerprint: String,
    /// What only the holder knows.
    #[serde(rename = "s")]
    pub secret: String,
}

/// The text is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a join token; paste the whole text that starts with `undine1.`")]
pub struct InvalidToken;

impl JoinToken {
    /// The fingerprint of a CA certificate (PEM).
    pub fn fingerprint(ca_pem: &str) -> Option<String> {
        let certificate = certificates("cluster's CA", ca_pem)
            .ok()?
            .into_iter()
            .next()?;
        Some(hex::encode(Sha256::digest(&certificate)))
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret stays out of logs.
        f.debug_struct("JoinToken")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(InvalidToken)?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| InvalidToken)?;
        serde_json::from_slice(&json).map_err(|_| InvalidToken)
    }
}
