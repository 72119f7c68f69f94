//! The second step of a log-in: codes of an app on a phone (TOTP, RFC 6238), each good once, and
//! recovery codes for the day on which the phone is gone. Between the two steps the browser keeps a
//! sealed note that the password was right; nothing is kept here, so any instance goes on.

use serde::{Deserialize, Serialize};
use serde_json::json;
use totp_rs::{Builder, Secret, Totp};
use undine_store::{Db, Person, PersonId};

use super::sessions::{Place, Viewer};
use super::{passwords, people, sessions};
use crate::clock::{now_ms, sha256};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// So many recovery codes.
const RECOVERY: usize = 10;
/// The code of the phone must come within this time of the password.
const NOTE_MS: i64 = 10 * 60_000;
/// Some wrong codes are free: they change while they are typed.
const FREE: i64 = 5;
/// What recovery codes are made of: nothing that looks like something else.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A second step as the store keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The secret, sealed.
    sealed: String,
    /// The last time step whose code was used: none works twice.
    last: u64,
    /// SHA-256 of the recovery codes that are left.
    recovery: Vec<String>,
}

/// That the password was right, and when.
#[derive(Serialize, Deserialize)]
struct Note {
    person: PersonId,
    /// SHA-256 of the password's hash: a new password ends the note.
    password: String,
    until: i64,
}

const NOTE: &str = "log-in/second";

/// What is shown to somebody who sets it up.
#[derive(Debug)]
pub struct Offer {
    /// The secret, to be typed where nothing can be scanned.
    pub secret: String,
    /// The same for an app, as `otpauth:` URL.
    pub url: String,
    /// The same, sealed, for the form to send back.
    pub sealed: String,
}

fn purpose(person: PersonId) -> String {
    format!("person/{person}/totp")
}

fn totp(secret: Secret, control: &Control, person: &Person) -> Result<Totp> {
    let label = person.email.replace(':', " ");
    Builder::new()
        .with_secret(secret)
        .with_account_name(label)
        .with_issuer(Some(control.cluster.panel_host()))
        .build()
        .map_err(|error| Refusal::internal(&error))
}

fn unsealed(control: &Control, person: &Person, sealed: &str) -> Result<Secret> {
    let old = || {
        Refusal::conflict(
            "too-old",
            "The page is too old",
            "Its secret cannot be read.",
        )
    };
    let secret = control.secrets.open(&purpose(person.id), sealed);
    let secret = secret.map_err(|_| old().remedy("Begin again."))?;
    Secret::try_from_base32(secret.as_str()).map_err(|_| old())
}

/// A fresh secret; nothing is kept before its first code was right.
pub fn offer(control: &Control, person: &Person) -> Result<Offer> {
    let text = Secret::generate().to_base32();
    let sealed = control.secrets.seal(&purpose(person.id), text.as_bytes());
    offered(control, person, &sealed)
}

/// The same offer again.
pub fn offered(control: &Control, person: &Person, sealed: &str) -> Result<Offer> {
    let secret = unsealed(control, person, sealed)?;
    let text = secret.to_base32();
    let url = totp(secret, control, person)?.to_url();
    Ok(Offer {
        sealed: sealed.to_owned(),
        url: url.map_err(|error| Refusal::internal(&error))?,
        secret: text,
    })
}

/// Is it on?
pub fn is_on(person: &Person) -> bool {
    person.second.is_some()
}

/// How many recovery codes are left.
pub fn codes_left(person: &Person) -> usize {
    kept(person).map_or(0, |kept| kept.recovery.len())
}

fn kept(person: &Person) -> Option<Kept> {
    serde_json::from_value(person.second.clone()?).ok()
}

fn fresh_codes() -> Vec<String> {
    let letter = |byte: &u8| char::from(LETTERS[usize::from(byte & 31)]);
    let code = |_| {
        let bytes: [u8; 10] = rand::random();
        let text: String = bytes.iter().map(letter).collect();
        format!("{}-{}", &text[..5], &text[5..])
    };
    (0..RECOVERY).map(code).collect()
}

fn plain(code: &str) -> String {
    let kept = code.chars().filter(|c| c.is_alphanumeric());
    kept.flat_map(char::to_lowercase).collect()
}

fn hashes(codes: &[String]) -> Vec<String> {
    codes.iter().map(|code| sha256(plain(code))).collect()
}

fn wrong() -> Refusal {
    Refusal::of(
        403,
        "wrong-code",
        "That code did not fit",
        "It is over, was used before, or was mistyped.",
    )
    .field("code")
    .remedy("Wait for the next one; check that the clock of your phone is right.")
}

/// Switches it on once a first code proves that the app has the secret. Answers recovery codes,
/// which are shown once. The person's other browsers are logged out.
pub async fn switch_on(
    control: &Control,
    viewer: &Viewer,
    sealed: &str,
    password: &str,
    code: &str,
    place: &Place,
) -> Result<Vec<String>> {
    people::prove(control, viewer, password, place).await?;
    let person = &viewer.person;
    let totp = totp(unsealed(control, person, sealed)?, control, person)?;
    let now = now_ms();
    let step = totp.check(&plain(code), now.unsigned_abs() / 1000);
    let last = step.ok_or_else(wrong)?;
    let codes = fresh_codes();
    let kept = Kept {
        sealed: sealed.to_owned(),
        last,
        recovery: hashes(&codes),
    };
    keep(control, viewer, "person.second_on", |_| Ok(Some(kept))).await?;
    Ok(codes)
}

/// Switches it off.
pub async fn switch_off(
    control: &Control,
    viewer: &Viewer,
    password: &str,
    place: &Place,
) -> Result<()> {
    people::prove(control, viewer, password, place).await?;
    keep(control, viewer, "person.second_off", |_| Ok(None)).await
}

/// New recovery codes; the old ones end.
pub async fn renew_codes(
    control: &Control,
    viewer: &Viewer,
    password: &str,
    place: &Place,
) -> Result<Vec<String>> {
    people::prove(control, viewer, password, place).await?;
    let codes = fresh_codes();
    let recovery = hashes(&codes);
    keep(control, viewer, "person.recovery_codes", |kept| {
        let off = || Refusal::conflict("off", "It is off", "There is no second step to recover.");
        let kept = kept.ok_or_else(off)?;
        Ok(Some(Kept { recovery, ..kept }))
    })
    .await?;
    Ok(codes)
}

/// Changes what is kept, as it stands when nobody else can change it.
async fn keep(
    control: &Control,
    viewer: &Viewer,
    action: &str,
    change: impl FnOnce(Option<Kept>) -> Result<Option<Kept>>,
) -> Result<()> {
    let tx = control.store.begin().await?;
    let mut person = tx.people().lock(viewer.person.id).await?;
    person.second = change(kept(&person))?.map(|kept| json!(kept));
    tx.people().update(&person, now_ms()).await?;
    let but = Some(viewer.login.id);
    tx.sessions().end_all(person.id, but).await?;
    let subject = format!("person/{}", person.id);
    viewer
        .caller
        .did(&tx, action, subject, None, json!({}))
        .await?;
    tx.commit().await?;
    Ok(())
}

/// An owner takes it away from somebody who has lost phone and codes.
pub async fn take_away(control: &Control, viewer: &Viewer, id: PersonId) -> Result<()> {
    people::managed(control, viewer, id).await?;
    if id == viewer.person.id {
        // Whoever has only stolen a session must not get rid of it without the password.
        return Err(Refusal::conflict(
            "own",
            "It is your own",
            "Your own second step asks for your password.",
        )
        .remedy("Switch it off on your own page."));
    }
    let tx = control.store.begin().await?;
    let mut person = tx.people().lock(id).await?;
    person.second = None;
    tx.people().update(&person, now_ms()).await?;
    tx.sessions().end_all(id, None).await?;
    let (subject, account) = (format!("person/{id}"), viewer.caller.account());
    viewer
        .caller
        .did(&tx, "person.second_taken", subject, account, json!({}))
        .await?;
    tx.commit().await?;
    Ok(())
}

/// The note that a password was right.
pub fn note(control: &Control, person: &Person) -> Result<String> {
    let note = Note {
        person: person.id,
        password: sha256(&person.password_hash),
        until: now_ms() + NOTE_MS,
    };
    let text = serde_json::to_vec(&note).map_err(|error| Refusal::internal(&error))?;
    Ok(control.secrets.seal(NOTE, &text))
}

/// Whose note this is, while it counts.
async fn noted(control: &Control, note: &str) -> Result<Person> {
    let over = || {
        Refusal::of(
            403,
            "note-over",
            "That took too long",
            "The password was given too long ago.",
        )
        .remedy("Log in again.")
    };
    let text = control.secrets.open(NOTE, note).map_err(|_| over())?;
    let note: Note = serde_json::from_str(&text).map_err(|_| over())?;
    let person = control.store.people().find(note.person).await?;
    let person = person.filter(|it| sha256(&it.password_hash) == note.password);
    person.filter(|_| note.until > now_ms()).ok_or_else(over)
}

/// The second step: a code of the phone, or a recovery code. Answers the secret of the session.
pub async fn pass(control: &Control, note: &str, code: &str, place: &Place) -> Result<String> {
    let person = noted(control, note).await?;
    let counted = format!("second/{}/{}", person.id, place.network());
    passwords::count(control, &counted, FREE).await?;
    let tx = control.store.begin().await?;
    let mut person = tx.people().lock(person.id).await?;
    if let Some(kept) = kept(&person) {
        let used = used(control, &person, kept, &plain(code))?;
        person.second = Some(json!(used));
        person = tx.people().update(&person, now_ms()).await?;
    }
    tx.commit().await?;
    control.store.failures().forget(&counted).await?;
    sessions::begin(control, &person, place).await
}

/// What is kept after this code was used.
fn used(control: &Control, person: &Person, mut kept: Kept, code: &str) -> Result<Kept> {
    let hash = sha256(code);
    if let Some(at) = kept.recovery.iter().position(|it| *it == hash) {
        kept.recovery.remove(at);
        return Ok(kept);
    }
    let totp = totp(unsealed(control, person, &kept.sealed)?, control, person)?;
    let step = totp.check(code, now_ms().unsigned_abs() / 1000);
    kept.last = step.filter(|step| *step > kept.last).ok_or_else(wrong)?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_codes_are_all_different_and_read_however_they_are_typed() {
        let codes = fresh_codes();
        let distinct: std::collections::BTreeSet<&String> = codes.iter().collect();
        assert_eq!(distinct.len(), RECOVERY);
        assert_eq!(codes[0].len(), 11);
        assert_eq!(plain(" ABcde-23456 "), "abcde23456");
    }
}
