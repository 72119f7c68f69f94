//! Passwords: which are good enough, how they are kept, and how often one may be wrong.

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use undine_store::{Db, Failures, FailuresFilter, StoreError};

use crate::clock::{new_id, now_ms};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// A hash takes 19 MiB and some 30 ms of a core: so many at once, the others wait.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Words that passwords are made of when nobody thinks.
const COMMON: &[&str] = &[
    "password", "passwort", "qwerty", "qwertz", "azerty", "letmein", "welcome", "iloveyou",
    "admin", "undine", "monkey", "dragon", "football", "baseball", "sunshine", "princess",
    "superman", "master", "trustno", "abcdef", "changeme", "secret", "summer", "winter",
];
const SHORTEST: usize = 10;
const LONGEST: usize = 200;

/// Refuses a password that is soon guessed. `own` are words that others know of the person.
pub fn check(password: &str, own: &[&str]) -> Result<()> {
    let length = password.chars().count();
    let refuse = |why: &str| {
        Err(Refusal::invalid("password", why).remedy("Take four or five words that do not belong together, or let a password manager make one."))
    };
    if !(SHORTEST..=LONGEST).contains(&length) {
        return refuse("A password has 10 to 200 characters.");
    }
    let plain = plain(password);
    let distinct: std::collections::BTreeSet<char> = plain.chars().collect();
    if distinct.len() < 5 {
        return refuse("The password repeats a few characters.");
    }
    let own = own
        .iter()
        .flat_map(|text| text.split(|c: char| !c.is_alphanumeric()))
        .map(self::plain)
        .filter(|word| word.chars().count() >= 3);
    let common = COMMON.iter().map(|word| (*word).to_owned());
    let mut known: Vec<String> = common.chain(own).collect();
    known.sort_by_key(|word| std::cmp::Reverse(word.len()));
    // What is left when the words that everybody tries first are taken away must still be long;
    // both as it was written and with letters for digits, which hide runs of digits.
    let rest = |form: String| known.iter().fold(form, |rest, word| rest.replace(word, ""));
    let forms = [password.to_lowercase(), plain];
    if forms.into_iter().any(|form| steps(&rest(form)) < 6) {
        return refuse(
            "The password is made of what is tried first: common words, your name, runs of keys.",
        );
    }
    Ok(())
}

/// Lower case, with letters where people write digits and signs for them.
fn plain(text: &str) -> String {
    text.to_lowercase()
        .chars()
        .map(|c| match c {
            '0' => 'o',
            '3' => 'e',
            '4' | '@' => 'a',
            '5' | '$' => 's',
            '!' => 'i',
            other => other,
        })
        .collect()
}

/// Characters that do not simply follow from the one before.
fn steps(text: &str) -> usize {
    let codes: Vec<i64> = text.chars().map(|c| i64::from(u32::from(c))).collect();
    let first = usize::from(!codes.is_empty());
    first
        + codes
            .windows(2)
            .filter(|two| (two[1] - two[0]).abs() > 1)
            .count()
}

fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let failed = || Refusal::unavailable("The password could not be worked on.");
    let _turn = AT_ONCE.acquire().await.map_err(|_| failed())?;
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| failed())
}

/// What is kept of a password.
pub async fn hash(password: String) -> Result<String> {
    blocking(move || {
        let salt = SaltString::generate(&mut OsRng);
        argon2()
            .hash_password(password.as_bytes(), &salt)
            .map(|hash| hash.to_string())
    })
    .await?
    .map_err(|error| Refusal::unavailable(format!("The password could not be kept: {error}.")))
}

/// Is it the password? Without a hash, the answer is no, after the same time.
pub async fn is_right(password: String, kept: Option<String>) -> Result<bool> {
    blocking(move || {
        let Some(kept) = kept else {
            let _ = argon2().hash_password(password.as_bytes(), &SaltString::generate(&mut OsRng));
            return false;
        };
        PasswordHash::new(&kept)
            .is_ok_and(|kept| argon2().verify_password(password.as_bytes(), &kept).is_ok())
    })
    .await
}

/// Some wrong ones are free: people mistype.
const FREE: i64 = 5;
/// From one place for all addresses together: an office has many people.
const FREE_FROM: i64 = 40;
const LONGEST_WAIT_MS: i64 = 15 * 60_000;

/// Until when the door is closed after so many wrong ones; not closed at all at first.
pub fn wait_ms(failed: i64, free: i64) -> i64 {
    match failed - free {
        over if over < 0 => 0,
        over => (1_000_i64 << over.min(10)).min(LONGEST_WAIT_MS),
    }
}

/// What is counted: an address *together with* the place it is tried from, so that nobody can
/// lock another out from elsewhere; and each place by itself.
pub fn counted(email: &str, place: &str) -> [(String, i64); 2] {
    [
        (format!("pair/{email}/{place}"), FREE),
        (format!("from/{place}"), FREE_FROM),
    ]
}

/// Counts a try before its password is looked at, so that many at once count too. Refuses when
/// the door is closed.
pub async fn count(control: &Control, what: &str, free: i64) -> Result<()> {
    let now = now_ms();
    for _ in 0..3 {
        let filter = FailuresFilter {
            what: Some(what.to_owned()),
        };
        let tx = control.store.begin().await?;
        let Some(found) = tx.failures().find_by(&filter).await? else {
            let fresh = Failures {
                id: new_id(),
                version: 1,
                created_at: now,
                updated_at: now,
                what: what.to_owned(),
                failed: 1,
                closed_until: 0,
            };
            match tx.failures().insert(&fresh).await {
                Ok(()) => return Ok(tx.commit().await?),
                // Another instance was quicker: its count goes on.
                Err(StoreError::Taken { .. }) => continue,
                Err(other) => return Err(other.into()),
            }
        };
        let mut found = tx.failures().lock(found.id).await?;
        if found.closed_until > now {
            let seconds = (found.closed_until - now) / 1000 + 1;
            return Err(Refusal::of(
                429,
                "too-many-tries",
                "Too many tries",
                format!("There were {} tries from here.", found.failed),
            )
            .remedy(format!("Wait {seconds} seconds, then try again.")));
        }
        found.failed += 1;
        found.closed_until = now + wait_ms(found.failed, free);
        tx.failures().update(&found, now).await?;
        return Ok(tx.commit().await?);
    }
    Err(Refusal::unavailable("Too many log-ins at the same moment."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_first_is_refused_and_a_phrase_is_not() {
        for weak in [
            "short1!",
            "password123",
            "P@ssw0rd!!",
            "aaaaaaaaaaaa",
            "1234567890",
            "qwertz1234",
            "ann.lee@example",
            "annabella2024",
        ] {
            let own = ["ann.lee@example.com", "Annabella Lee"];
            assert!(check(weak, &own).is_err(), "{weak}");
        }
        for good in ["lamp harbour sixteen fern", "kV7#pq2Lw9xz"] {
            assert!(check(good, &["ann@example.com"]).is_ok(), "{good}");
        }
    }

    #[test]
    fn waits_grow_to_a_quarter_of_an_hour_and_no_further() {
        assert_eq!(wait_ms(4, FREE), 0);
        assert_eq!(wait_ms(5, FREE), 1_000);
        assert_eq!(wait_ms(9, FREE), 16_000);
        assert_eq!(wait_ms(10_000, FREE), LONGEST_WAIT_MS);
    }

    #[test]
    fn wrong_passwords_from_elsewhere_do_not_close_the_door_here() {
        let (mine, theirs) = (counted("a@b.c", "192.0.2.1"), counted("a@b.c", "192.0.2.2"));
        assert!(mine.iter().all(|one| !theirs.contains(one)));
    }
}
