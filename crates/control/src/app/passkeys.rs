//! Passkeys: made by somebody who is logged in and gives their password, used to log in without
//! one (`passkey_login`). The device makes sure who it is, so there is no second step after it. A
//! challenge is a sealed note that the page carries; any instance takes it, and each is good once.

use serde::{Deserialize, Serialize};
use serde_json::json;
use undine_model::TokenId;
use undine_store::{Begun, Db, Person, PersonId};
use uuid::Uuid;

use super::people;
use super::sessions::{Place, Viewer};
use super::webauthn::{self, Ceremony, Expected, Fault, bytes, text};
use crate::clock::{new_secret, now_ms};
use crate::control::Control;
use crate::refusal::{Refusal, Result, capital};

/// A page waits so long for the device.
const NOTE_MS: i64 = 10 * 60_000;
/// Nobody has more devices.
const MOST: usize = 20;
/// What the note of somebody who logs in is for.
pub(super) const NOTE: &str = "passkey/log-in";

/// A passkey as the store keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Passkey {
    /// Its id, base64url.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// The host name that it is for.
    pub rp: String,
    pub(super) algorithm: i64,
    pub(super) key: String,
    pub(super) counter: u32,
    /// When it was made.
    pub made_at: i64,
    /// When it was last used.
    pub used_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Note {
    challenge: String,
    until: i64,
}

/// What a page needs to ask the device.
#[derive(Debug)]
pub struct Question {
    /// The challenge.
    pub challenge: String,
    /// The same, sealed, for the form to send back.
    pub sealed: String,
    /// The host name that the passkey is for.
    pub rp: String,
}

/// What the page sends back, each in base64url.
#[derive(Debug, Default)]
pub struct Answered {
    /// The sealed challenge.
    pub sealed: String,
    /// The passkey's id.
    pub id: String,
    /// What the browser says.
    pub client: String,
    /// What the device says.
    pub authenticator: String,
    /// A new passkey's key.
    pub key: String,
    /// A new passkey's algorithm.
    pub algorithm: i64,
    /// The signature of one that is used.
    pub signature: String,
    /// Whose it is, as the device remembers.
    pub person: String,
}

/// The passkeys of a person.
pub fn of(person: &Person) -> Vec<Passkey> {
    let kept = person.passkeys.clone();
    kept.and_then(|kept| serde_json::from_value(kept).ok())
        .unwrap_or_default()
}

pub(super) fn rp(place: &Place) -> &str {
    place.host.split(':').next().unwrap_or_default()
}

fn purpose(person: PersonId) -> String {
    format!("person/{person}/passkey")
}

fn question(control: &Control, purpose: &str, place: &Place) -> Result<Question> {
    let note = Note {
        challenge: new_secret(),
        until: now_ms() + NOTE_MS,
    };
    let sealed = serde_json::to_vec(&note).map_err(|error| Refusal::internal(&error))?;
    Ok(Question {
        sealed: control.secrets.seal(purpose, &sealed),
        challenge: note.challenge,
        rp: rp(place).to_owned(),
    })
}

/// What is asked to make a passkey.
pub fn to_make(control: &Control, viewer: &Viewer, place: &Place) -> Result<Question> {
    question(control, &purpose(viewer.person.id), place)
}

/// What is asked to log in.
pub fn to_log_in(control: &Control, place: &Place) -> Result<Question> {
    question(control, NOTE, place)
}

fn old() -> Refusal {
    Refusal::of(
        403,
        "too-old",
        "The page is too old",
        "It waited too long for your device, or was sent before.",
    )
    .remedy("Load it again and try once more.")
}

/// The challenge of a note that still counts, which counts no more.
pub(super) async fn challenge(control: &Control, purpose: &str, sealed: &str) -> Result<String> {
    let text = control.secrets.open(purpose, sealed).map_err(|_| old())?;
    let note: Note = serde_json::from_str(&text).map_err(|_| old())?;
    let now = now_ms();
    if note.until < now {
        return Err(old());
    }
    let nobody = TokenId::from_uuid(Uuid::nil());
    let begun = control
        .store
        .idempotency()
        .begin(&note.challenge, nobody, "passkey", now, 2 * NOTE_MS)
        .await?;
    match begun {
        Begun::Fresh => Ok(note.challenge),
        _ => Err(old()),
    }
}

pub(super) fn refused(fault: Fault) -> Refusal {
    Refusal::of(
        403,
        "passkey-refused",
        "The passkey was not taken",
        capital(&format!("{fault}.")),
    )
    .remedy("Load the page again and try once more.")
}

pub(super) fn origin(place: &Place) -> String {
    let scheme = if place.secure { "https" } else { "http" };
    format!("{scheme}://{}", place.host)
}

/// Keeps a passkey that was just made, for somebody who gives their password.
pub async fn add(
    control: &Control,
    viewer: &Viewer,
    name: &str,
    password: &str,
    answered: &Answered,
    place: &Place,
) -> Result<()> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 60 || name.chars().any(char::is_control) {
        return Err(Refusal::invalid("name", "A name has 1 to 60 characters."));
    }
    people::prove(control, viewer, password, place).await?;
    let made = verified_new(control, viewer, name, answered, place).await?;
    let tx = control.store.begin().await?;
    let mut person = tx.people().lock(viewer.person.id).await?;
    let mut all = of(&person);
    if all.len() >= MOST || all.iter().any(|one| one.id == made.id) {
        return Err(Refusal::conflict(
            "taken",
            "It is there already",
            "This device has a passkey here, or you have twenty.",
        ));
    }
    all.push(made);
    person.passkeys = Some(json!(all));
    tx.people().update(&person, now_ms()).await?;
    let subject = format!("person/{}", person.id);
    let data = json!({"name": name});
    viewer
        .caller
        .did(&tx, "person.passkey_made", subject, None, data)
        .await?;
    tx.commit().await?;
    Ok(())
}

async fn verified_new(
    control: &Control,
    viewer: &Viewer,
    name: &str,
    answered: &Answered,
    place: &Place,
) -> Result<Passkey> {
    let challenge = challenge(control, &purpose(viewer.person.id), &answered.sealed).await?;
    let expected = Expected {
        challenge: &challenge,
        origin: &origin(place),
        rp: rp(place),
    };
    let read = || -> Result<webauthn::Authenticator, Fault> {
        webauthn::client(&bytes(&answered.client)?, Ceremony::Create, &expected)?;
        webauthn::check_key(answered.algorithm, &bytes(&answered.key)?)?;
        webauthn::authenticator(&bytes(&answered.authenticator)?, expected.rp)
    };
    let found = read().map_err(refused)?;
    let id = found.credential.filter(|id| text(id) == answered.id);
    let id = id.ok_or_else(|| refused(Fault::Other("passkey")))?;
    Ok(Passkey {
        id: text(&id),
        name: name.to_owned(),
        rp: expected.rp.to_owned(),
        algorithm: answered.algorithm,
        key: answered.key.clone(),
        counter: found.counter,
        made_at: now_ms(),
        used_at: None,
    })
}

/// Forgets one of the viewer's own.
pub async fn remove(control: &Control, viewer: &Viewer, id: &str) -> Result<()> {
    let tx = control.store.begin().await?;
    let mut person = tx.people().lock(viewer.person.id).await?;
    let mut all = of(&person);
    let before = all.len();
    all.retain(|one| one.id != id);
    if all.len() == before {
        return Err(Refusal::not_found("passkey", id));
    }
    person.passkeys = (!all.is_empty()).then(|| json!(all));
    tx.people().update(&person, now_ms()).await?;
    let subject = format!("person/{}", person.id);
    viewer
        .caller
        .did(&tx, "person.passkey_removed", subject, None, json!({}))
        .await?;
    tx.commit().await?;
    Ok(())
}
