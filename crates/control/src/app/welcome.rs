//! The links that let people in, and what comes of them: a new person, or another password for a
//! known one.

use undine_model::AccountId;
use undine_store::{Db, Link, Member, Membership, Person, Staff, Store};

use super::sessions::{Entered, Place};
use super::{passwords, reset, sessions};
use crate::clock::{new_id, new_secret, now_ms, sha256};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// A link works for so long.
const LINK_MS: i64 = 7 * 24 * 3_600_000;

/// A link, not yet kept, and its secret.
pub(super) fn fresh_link(staff: Staff, account: Option<AccountId>, role: Member) -> (Link, String) {
    let (secret, now) = (new_secret(), now_ms());
    let link = Link {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        secret_sha256: sha256(&secret),
        person: None,
        staff,
        account,
        role,
        sites: None,
        reseller: None,
        expires_at: now + LINK_MS,
    };
    (link, secret)
}

/// The link by which the owner comes in for the first time; answers its path below the panel.
pub async fn owner_link(store: &Store) -> Result<String> {
    let (link, secret) = fresh_link(Staff::Owner, None, Member::Owner);
    store.links().insert(&link).await?;
    Ok(format!("/welcome/{secret}"))
}

fn gone() -> Refusal {
    Refusal::of(
        410,
        "link-used",
        "This link does not work any more",
        "It was used already, or its time is over.",
    )
    .remedy(
        "Ask whoever sent it for a new one; `undine-control owner-link` makes one for the owner.",
    )
}

/// What a link is for, while it works: a person to be made, or a known one's new password.
pub async fn invited(control: &Control, secret: &str) -> Result<(Link, Option<Person>)> {
    let store = &control.store;
    let link = store.links().by_secret(&sha256(secret), now_ms()).await?;
    let link = link.ok_or_else(gone)?;
    let person = match link.person {
        Some(id) => Some(store.people().get(id).await?),
        None => None,
    };
    Ok((link, person))
}

/// What somebody who came by a link says of himself.
#[derive(Debug)]
pub struct Welcome {
    /// Their address.
    pub email: String,
    /// Their name.
    pub name: String,
    /// The password that they choose.
    pub password: String,
}

/// A mail address as it is kept: in lower case.
pub fn address(text: &str) -> Result<String> {
    let email = text.trim().to_lowercase();
    let (user, host) = email.split_once('@').unwrap_or_default();
    let fits = host.contains('.') || host == "localhost";
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>\"',;:()\\".contains(c);
    if !fits || user.is_empty() || email.len() > 200 || !email.chars().all(plain) {
        return Err(Refusal::invalid("email", "This is no mail address.")
            .remedy("Write it like ann@example.com."));
    }
    Ok(email)
}

fn checked(wish: &Welcome) -> Result<(String, String)> {
    let email = address(&wish.email)?;
    let name = wish.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Refusal::invalid("name", "A name has 1 to 100 characters."));
    }
    Ok((email, name))
}

/// Uses a link up: makes the person, or sets the known one's password, and lets them in, half so
/// when they have a second step. What is refused leaves the link as it was.
pub async fn welcome(
    control: &Control,
    secret: &str,
    wish: Welcome,
    place: &Place,
) -> Result<Entered> {
    let (_, known) = invited(control, secret).await?;
    let (email, name) = match &known {
        Some(person) => (person.email.clone(), person.name.clone()),
        None => checked(&wish)?,
    };
    passwords::check(&wish.password, &[&email, &name])?;
    let password_hash = passwords::hash(wish.password).await?;
    let now = now_ms();
    let tx = control.store.begin().await?;
    let link = tx
        .links()
        .consume(&sha256(secret), now)
        .await?
        .ok_or_else(gone)?;
    let person = match known {
        Some(person) => {
            let mut person = tx.people().lock(person.id).await?;
            person.password_hash = password_hash;
            tx.sessions().end_all(person.id, None).await?;
            reset::changed(&tx, &person, place).await?;
            tx.people().update(&person, now).await?
        }
        None => {
            let person = Person {
                id: new_id(),
                version: 1,
                created_at: now,
                updated_at: now,
                email,
                name,
                staff: link.staff,
                password_hash,
                second: None,
                reseller: link.reseller,
                passkeys: None,
            };
            tx.people().insert(&person).await?;
            person
        }
    };
    if let Some(account) = link.account {
        let membership = Membership {
            id: new_id(),
            version: 1,
            created_at: now,
            updated_at: now,
            person: person.id,
            account,
            role: link.role,
            sites: link.sites,
        };
        tx.memberships().insert(&membership).await?;
    }
    tx.commit().await?;
    control.mail_due.notify_one();
    sessions::enter(control, &person, place).await
}
