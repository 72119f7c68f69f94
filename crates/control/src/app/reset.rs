//! A forgotten password: a link by mail, for an hour, once. The answer is the same for addresses
//! that nobody has, and comes as soon: who has which is looked up later, by whoever sends mail.

use undine_store::{
    Audit, Db, LinkFilter, Mail, MailAbout, MailFilter, Member, Person, PersonFilter, Staff,
    StoreError, Tx,
};

use super::sessions::Place;
use super::{mail, passwords, people, welcome};
use crate::clock::{new_id, new_secret, now_ms, sha256};
use crate::control::Control;
use crate::mail::{Again, Failed, Letter, Smtp, mailbox, send};
use crate::refusal::{Refusal, Result};

/// A link works for so long.
const LINK_MS: i64 = 3_600_000;
/// A person gets at most so many links in that time, however many ask for them.
const MOST_LINKS: usize = 5;

/// Somebody says that they forgot their password. Tells nobody whether the address is known.
pub async fn ask(control: &Control, email: &str, place: &Place) -> Result<()> {
    if !mail::is_on(control).await? {
        return Err(mail::off());
    }
    let email = welcome::address(email)?;
    for (what, free) in passwords::counted(&email, &place.network()) {
        passwords::count(control, &format!("reset/{what}"), free).await?;
    }
    let tx = control.store.begin().await?;
    match wait(&tx, email, MailAbout::Reset).await {
        Ok(()) => tx.commit().await?,
        // Another instance was asked at the same moment.
        Err(StoreError::Taken { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    control.mail_due.notify_one();
    Ok(())
}

/// A mail waits from now on. Each way through is one write: how long it takes tells nothing.
async fn wait(tx: &Tx, address: String, about: MailAbout) -> Result<(), StoreError> {
    let now = now_ms();
    let filter = MailFilter {
        address: Some(address.clone()),
        about: Some(about),
    };
    if let Some(waiting) = tx.mails().find_by(&filter).await? {
        return match tx.mails().update(&waiting, now).await {
            Ok(_) | Err(StoreError::Stale { .. } | StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        };
    }
    let mail = Mail {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        address,
        about,
        tries: 0,
        not_before: now,
        error: None,
    };
    tx.mails().insert(&mail).await
}

/// Sends the link, if there is such a person.
pub async fn send_link(control: &Control, smtp: &Smtp, address: &str) -> Result<(), Failed> {
    let later = |refusal| Failed(refusal, Again::Later);
    let Some(person) = known(control, address).await.map_err(later)? else {
        return Ok(());
    };
    let now = now_ms();
    let filter = LinkFilter {
        person: Some(person.id),
        ..LinkFilter::default()
    };
    let store = &control.store;
    let links = store.links().all(&filter).await;
    let links = links.map_err(|error| later(error.into()))?;
    if links.iter().filter(|it| it.expires_at > now).count() >= MOST_LINKS {
        tracing::warn!(person = %person.id, "asks for too many links; none is sent");
        return Ok(());
    }
    let secret = new_secret();
    let link = undine_store::Link {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        secret_sha256: sha256(&secret),
        person: Some(person.id),
        staff: Staff::None,
        account: None,
        role: Member::Reader,
        sites: None,
        reseller: None,
        expires_at: now + LINK_MS,
    };
    let inserted = store.links().insert(&link).await;
    inserted.map_err(|error| later(error.into()))?;
    let letter = letter(control, &person, &secret).await.map_err(later)?;
    let sent = send(control, smtp, letter).await;
    if sent.is_err() {
        // Nobody has its secret; it would only count.
        let _ = store.links().delete(link.id, None).await;
    }
    sent
}

async fn known(control: &Control, address: &str) -> Result<Option<Person>> {
    let filter = PersonFilter {
        email: Some(address.to_owned()),
        ..PersonFilter::default()
    };
    Ok(control.store.people().find_by(&filter).await?)
}

async fn letter(control: &Control, person: &Person, secret: &str) -> Result<Letter> {
    let host = control.cluster.panel_host();
    // Never from the request: its `Host` is the asker's to choose.
    let url = people::url(control, &format!("/welcome/{secret}")).await?;
    Ok(Letter {
        to: mailbox("email", &person.email)?,
        subject: format!("A new password for {host}"),
        text: format!(
            "Somebody, perhaps you, asked for a new password at {host}.\n\n\
             This link lets you choose one. It works once, for an hour:\n\n\
             {url}\n\n\
             If it was not you, do nothing: your password stays as it is.\n"
        ),
    })
}

/// Says that a password was changed by a link, if the person is still there.
pub async fn send_changed(control: &Control, smtp: &Smtp, address: &str) -> Result<(), Failed> {
    let later = |refusal| Failed(refusal, Again::Later);
    let Some(person) = known(control, address).await.map_err(later)? else {
        return Ok(());
    };
    let host = control.cluster.panel_host();
    let letter = Letter {
        to: mailbox("email", &person.email).map_err(later)?,
        subject: format!("Your password for {host} was changed"),
        text: format!(
            "Your password for {host} was changed by a link that was sent to this address.\n\
             Wherever you were logged in, you are logged out.\n\n\
             If it was not you, ask whoever runs {host} for help.\n"
        ),
    };
    send(control, smtp, letter).await
}

/// Within the transaction in which a link changed a person's password: no other link of theirs
/// works any more, it is written down, and they are told.
pub async fn changed(tx: &Tx, person: &Person, place: &Place) -> Result<()> {
    let filter = LinkFilter {
        person: Some(person.id),
        ..LinkFilter::default()
    };
    for link in tx.links().all(&filter).await? {
        match tx.links().delete(link.id, None).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let now = now_ms();
    let row = Audit {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        actor: format!("person/{}", person.id),
        action: "person.password_reset".to_owned(),
        subject: format!("person/{}", person.id),
        account: None,
        reseller: person.reseller,
        outcome: "ok".to_owned(),
        request_id: Some(place.request_id),
        ip: place.ip.clone(),
        data: serde_json::json!({}),
    };
    tx.audit().insert(&row).await?;
    if Smtp::of(tx).await?.is_some() {
        wait(tx, person.email.clone(), MailAbout::Changed).await?;
    }
    Ok(())
}

/// What there is to say after somebody asked, whoever they are.
pub const ANSWER: &str =
    "If somebody here has this address, a mail is on its way. Its link works once, for an hour.";

/// Mail is off: what a person can do instead.
pub fn without_mail() -> Refusal {
    mail::off()
        .remedy("Ask whoever invited you for help; `undine-control owner-link` lets the owner in.")
}
