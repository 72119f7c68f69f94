//! The clock and randomness, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use undine_model::Id;

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The time as the certificate authority wants it.
pub fn now_utc() -> time::OffsetDateTime {
    time::OffsetDateTime::from(SystemTime::now())
}

/// A new id, for this moment.
pub fn new_id<K>() -> Id<K> {
    Id::from_parts(now_ms().unsigned_abs(), rand::random())
}

/// A secret that nobody guesses: 32 random bytes as text.
pub fn new_secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// What is kept of a secret, or known of a file: its SHA-256, hexadecimal.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}
