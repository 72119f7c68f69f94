//! What a browser and its authenticator say about a passkey, read and verified (WebAuthn level 3,
//! without attestation). Pure: nothing is fetched and nothing kept.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceremony {
    /// A passkey is made.
    Create,
    /// A passkey is used.
    Get,
}

/// What it must be about.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The challenge, as it was given.
    pub challenge: &'a str,
    /// The page's origin, such as `https://panel.example.com`.
    pub origin: &'a str,
    /// The host name without its port.
    pub rp: &'a str,
}

/// Why it is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error("the browser's answer cannot be read: {0}")]
    Unreadable(&'static str),
    /// It is about something else.
    #[error("the browser's answer is about another {0}")]
    Other(&'static str),
    /// Nobody was asked for a finger or a code.
    #[error("the device did not make sure that it is you")]
    NotVerified,
    /// The kind of key.
    #[error("keys of this kind are not known here")]
    Algorithm,
    /// The signature.
    #[error("the passkey's signature is wrong")]
    Signature,
}

#[derive(Deserialize)]
struct Client {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(default, rename = "crossOrigin")]
    cross_origin: bool,
}

/// Checks what the browser says of the page that asked.
pub fn client(json: &[u8], ceremony: Ceremony, expected: &Expected<'_>) -> Result<(), Fault> {
    let client: Client =
        serde_json::from_slice(json).map_err(|_| Fault::Unreadable("its client data"))?;
    let kind = match ceremony {
        Ceremony::Create => "webauthn.create",
        Ceremony::Get => "webauthn.get",
    };
    if client.kind != kind {
        return Err(Fault::Other("act"));
    }
    if client.challenge != expected.challenge {
        return Err(Fault::Other("challenge"));
    }
    if client.origin != expected.origin || client.cross_origin {
        return Err(Fault::Other("site"));
    }
    Ok(())
}

/// What the authenticator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticator {
    /// How often the key was used; 0 from keys that live on several devices.
    pub counter: u32,
    /// The id of the key that was made.
    pub credential: Option<Vec<u8>>,
}

const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const MADE: u8 = 0x40;

/// Reads and checks the authenticator's data.
pub fn authenticator(data: &[u8], rp: &str) -> Result<Authenticator, Fault> {
    let short = Fault::Unreadable("its authenticator data are too short");
    let (head, rest) = data.split_at_checked(37).ok_or(short)?;
    let (hash, flags) = (&head[..32], head[32]);
    let counter = head[33..37]
        .iter()
        .fold(0_u32, |n, b| (n << 8) | u32::from(*b));
    if hash != &Sha256::digest(rp)[..] {
        return Err(Fault::Other("site"));
    }
    if flags & PRESENT == 0 || flags & VERIFIED == 0 {
        return Err(Fault::NotVerified);
    }
    let mut credential = None;
    if flags & MADE != 0 {
        // The maker's id, the length, then the id; the key comes after it.
        let (length, rest) = rest
            .get(16..)
            .and_then(|rest| rest.split_at_checked(2))
            .ok_or(short)?;
        let length = (usize::from(length[0]) << 8) | usize::from(length[1]);
        credential = Some(rest.get(..length).ok_or(short)?.to_vec());
    }
    Ok(Authenticator {
        counter,
        credential,
    })
}

/// COSE numbers of the algorithms that are known, the best first.
pub const ALGORITHMS: [i64; 3] = [-8, -7, -257];

/// How a key of each kind begins as SubjectPublicKeyInfo; what follows is the key itself.
const ED25519_HEAD: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const P256_HEAD: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The algorithm within, after the outer length.
const RSA_HEAD: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00, 0x03,
    0x82,
];

/// The bare key within SubjectPublicKeyInfo, if it is of this algorithm.
fn bare(algorithm: i64, spki: &[u8]) -> Result<&[u8], Fault> {
    let key = match algorithm {
        -8 => spki
            .strip_prefix(ED25519_HEAD)
            .filter(|key| key.len() == 32),
        -7 => spki
            .strip_prefix(P256_HEAD)
            .filter(|key| key.len() == 65 && key[0] == 4),
        // Two bytes of length, no unused bits: the key is the rest.
        -257 => spki
            .get(4..)
            .and_then(|rest| rest.strip_prefix(RSA_HEAD))
            .filter(|rest| rest.len() > 3 && rest[2] == 0)
            .map(|rest| &rest[3..]),
        _ => None,
    };
    key.ok_or(Fault::Algorithm)
}

/// Refuses a key that could never be used.
pub fn check_key(algorithm: i64, spki: &[u8]) -> Result<(), Fault> {
    bare(algorithm, spki).map(drop)
}

/// Is the authenticator's word for the browser's signed with this key?
pub fn signed(
    algorithm: i64,
    spki: &[u8],
    authenticator: &[u8],
    client: &[u8],
    signature: &[u8],
) -> Result<(), Fault> {
    let key = bare(algorithm, spki)?;
    let mut message = authenticator.to_vec();
    message.extend(Sha256::digest(client));
    let how: &dyn ring::signature::VerificationAlgorithm = match algorithm {
        -8 => &ED25519,
        -7 => &ECDSA_P256_SHA256_ASN1,
        _ => &RSA_PKCS1_2048_8192_SHA256,
    };
    UnparsedPublicKey::new(how, key)
        .verify(&message, signature)
        .map_err(|_| Fault::Signature)
}

/// Bytes as forms carry them.
pub fn bytes(text: &str) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Fault::Unreadable("it is not in base64url"))
}

/// The same the other way.
pub fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    const EXPECTED: Expected<'static> = Expected {
        challenge: "abc",
        origin: "https://panel.test",
        rp: "panel.test",
    };

    fn said(kind: &str, challenge: &str, origin: &str) -> Vec<u8> {
        let said = serde_json::json!({"type": kind, "challenge": challenge, "origin": origin});
        said.to_string().into_bytes()
    }

    fn data(rp: &str, flags: u8) -> Vec<u8> {
        let mut data = Sha256::digest(rp).to_vec();
        data.push(flags);
        data.extend([0, 0, 1, 2]);
        data
    }

    #[test]
    fn an_answer_to_another_question_is_not_believed() {
        let get = |json: &[u8]| client(json, Ceremony::Get, &EXPECTED);
        let good = said("webauthn.get", "abc", "https://panel.test");
        assert_eq!(get(&good), Ok(()));
        for (kind, challenge, origin, wrong) in [
            ("webauthn.create", "abc", "https://panel.test", "act"),
            ("webauthn.get", "abd", "https://panel.test", "challenge"),
            ("webauthn.get", "abc", "https://panel.test.evil", "site"),
            ("webauthn.get", "abc", "http://panel.test", "site"),
        ] {
            let said = said(kind, challenge, origin);
            assert_eq!(get(&said), Err(Fault::Other(wrong)), "{origin}");
        }
        assert!(matches!(get(b"{"), Err(Fault::Unreadable(_))));
    }

    #[test]
    fn the_authenticator_must_have_made_sure_who_it_is() {
        let read = authenticator(&data("panel.test", 0x05), "panel.test").unwrap();
        assert_eq!((read.counter, read.credential), (258, None));
        for (rp, flags, fault) in [
            ("other.test", 0x05, Fault::Other("site")),
            ("panel.test", 0x01, Fault::NotVerified),
            ("panel.test", 0x04, Fault::NotVerified),
        ] {
            assert_eq!(authenticator(&data(rp, flags), "panel.test"), Err(fault));
        }
        let mut made = data("panel.test", 0x45);
        made.extend([0; 16]);
        made.extend([0, 3, 7, 8, 9, 1, 1]);
        let read = authenticator(&made, "panel.test").unwrap();
        assert_eq!(read.credential, Some(vec![7, 8, 9]));
        for length in 0..made.len() - 2 {
            assert!(
                authenticator(&made[..length], "panel.test").is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn signatures_of_both_usual_kinds_are_verified() {
        let random = SystemRandom::new();
        let (word, client) = (data("panel.test", 0x05), b"client".to_vec());
        let mut message = word.clone();
        message.extend(Sha256::digest(&client));
        let sealed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let edwards = Ed25519KeyPair::from_pkcs8(sealed.as_ref()).unwrap();
        let key = [ED25519_HEAD, edwards.public_key().as_ref()].concat();
        let good = edwards.sign(&message);
        assert_eq!(signed(-8, &key, &word, &client, good.as_ref()), Ok(()));
        let how = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let sealed = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        let curve = EcdsaKeyPair::from_pkcs8(how, sealed.as_ref(), &random).unwrap();
        let point = [P256_HEAD, curve.public_key().as_ref()].concat();
        let good = curve.sign(&random, &message).unwrap();
        assert_eq!(signed(-7, &point, &word, &client, good.as_ref()), Ok(()));
        assert_eq!(
            signed(-7, &point, &word, b"other", good.as_ref()),
            Err(Fault::Signature)
        );
        assert_eq!(
            signed(-7, &key, &word, &client, good.as_ref()),
            Err(Fault::Algorithm)
        );
        assert_eq!(check_key(-36, &point), Err(Fault::Algorithm));
        assert_eq!(check_key(-257, &point), Err(Fault::Algorithm));
    }
}
