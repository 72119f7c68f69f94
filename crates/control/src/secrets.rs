//! Secrets at rest: what the store keeps of them is sealed with the cluster's key, which lies
//! only in the state directories of control's instances.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use zeroize::Zeroizing;

const NONCE: usize = 24;

/// A sealed value cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Not 32 bytes of base64.
    #[error("this is no key of secrets; it must be 32 bytes of base64")]
    Key,
    /// Damaged, sealed with another key or for another purpose.
    #[error("the sealed {0} cannot be opened: it is damaged or was sealed with another key")]
    Sealed(String),
}

/// Seals and opens secrets.
#[derive(Clone)]
pub struct Secrets {
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// A new key.
    pub fn generate() -> Self {
        Self {
            key: Zeroizing::new(rand::random()),
        }
    }

    /// The key from where it was kept.
    pub fn from_base64(text: &str) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| SecretError::Key)?);
        let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| SecretError::Key)?;
        Ok(Self {
            key: Zeroizing::new(key),
        })
    }

    /// The key, to be kept.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.key.as_slice()))
    }

    /// Seals a secret; it opens only for the same purpose, so that sealed values cannot be moved
    /// from one row to another unnoticed.
    pub fn seal(&self, purpose: &str, secret: &[u8]) -> String {
        let nonce: [u8; NONCE] = rand::random();
        let sealed = self
            .cipher()
            .encrypt(
                &nonce.into(),
                Payload {
                    msg: secret,
                    aad: purpose.as_bytes(),
                },
            )
            .expect("sealing in memory fails only beyond 256 GiB");
        STANDARD.encode([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed for this purpose.
    pub fn open(&self, purpose: &str, sealed: &str) -> Result<Zeroizing<String>, SecretError> {
        let refuse = || SecretError::Sealed(purpose.to_owned());
        let bytes = STANDARD.decode(sealed).map_err(|_| refuse())?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or_else(refuse)?;
        let nonce = *nonce;
        let secret = self
            .cipher()
            .decrypt(
                &nonce.into(),
                Payload {
                    msg: sealed,
                    aad: purpose.as_bytes(),
                },
            )
            .map_err(|_| refuse())?;
        String::from_utf8(secret)
            .map(Zeroizing::new)
            .map_err(|_| refuse())
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.key).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_with_its_key_and_for_its_purpose_only() {
        let secrets = Secrets::from_base64(&Secrets::generate().to_base64()).unwrap();
        let sealed = secrets.seal("database/1", b"hunter2");
        assert!(!sealed.contains("hunter2"));
        assert_eq!(
            secrets.open("database/1", &sealed).unwrap().as_str(),
            "hunter2"
        );
        assert!(secrets.open("database/2", &sealed).is_err());
        assert!(Secrets::generate().open("database/1", &sealed).is_err());
        assert!(secrets.open("database/1", "AAAA").is_err());
    }
}
