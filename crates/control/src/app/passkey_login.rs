//! Logging in with a passkey instead of a password.

use serde_json::json;
use undine_store::{Db, PersonId};
use uuid::Uuid;

use super::passkeys::{Answered, NOTE, Passkey, challenge, of, origin, refused, rp};
use super::sessions::Place;
use super::webauthn::{self, Ceremony, Expected, Fault, bytes};
use super::{passwords, sessions};
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

fn unknown() -> Refusal {
    Refusal::of(
        403,
        "passkey-refused",
        "The passkey was not taken",
        "Nobody here has this passkey.",
    )
    .remedy("Log in with your password; on your own page you can make a new one.")
}

/// Logs in with a passkey; answers the secret of the new session.
pub async fn log_in(control: &Control, answered: &Answered, place: &Place) -> Result<String> {
    // Guesses of signatures lead nowhere, but each costs work: they count for their place.
    let [_, (from, free)] = passwords::counted("", &place.network());
    passwords::count(control, &from, free).await?;
    let challenge = challenge(control, NOTE, &answered.sealed).await?;
    let id = bytes(&answered.person).map_err(refused)?;
    let id = Uuid::from_slice(&id).map_err(|_| unknown())?;
    let tx = control.store.begin().await?;
    if tx.people().find(PersonId::from_uuid(id)).await?.is_none() {
        return Err(unknown());
    }
    let mut person = tx.people().lock(PersonId::from_uuid(id)).await?;
    let mut all = of(&person);
    let kept = all.iter_mut().find(|one| one.id == answered.id);
    let kept = kept.ok_or_else(unknown)?;
    let expected = Expected {
        challenge: &challenge,
        origin: &origin(place),
        rp: rp(place),
    };
    let counter = verified(kept, answered, &expected).map_err(refused)?;
    if counter <= kept.counter && (counter, kept.counter) != (0, 0) {
        return Err(refused(Fault::Other("device: this one was copied")));
    }
    (kept.counter, kept.used_at) = (counter, Some(now_ms()));
    person.passkeys = Some(json!(all));
    let person = tx.people().update(&person, now_ms()).await?;
    tx.commit().await?;
    control.store.failures().forget(&from).await?;
    sessions::begin(control, &person, place).await
}

fn verified(kept: &Passkey, answered: &Answered, expected: &Expected<'_>) -> Result<u32, Fault> {
    let client = bytes(&answered.client)?;
    let word = bytes(&answered.authenticator)?;
    webauthn::client(&client, Ceremony::Get, expected)?;
    let read = webauthn::authenticator(&word, expected.rp)?;
    let (key, signature) = (bytes(&kept.key)?, bytes(&answered.signature)?);
    webauthn::signed(kept.algorithm, &key, &word, &client, &signature)?;
    Ok(read.counter)
}
