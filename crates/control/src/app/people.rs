//! People: the links that let them in, their passwords, who is there, who goes.

use serde_json::json;
use undine_model::{AccountId, ResellerId};
use undine_store::{
    Db, Link, LinkFilter, Member, Membership, MembershipFilter, Person, PersonFilter, PersonId,
    Staff, Store,
};

use super::sessions::{Entered, Place, Viewer};
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

/// Somebody on the list of people.
#[derive(Debug)]
pub struct Listed {
    /// Who.
    pub person: Person,
    /// What they are here, in a word.
    pub role: String,
}

/// The people of what the viewer sees: the provider's, or the account's.
pub async fn all(control: &Control, viewer: &Viewer) -> Result<Vec<Listed>> {
    let store = &control.store;
    let mut all = Vec::new();
    if let Some(reseller) = viewer.caller.reseller() {
        return of_reseller(control, reseller).await;
    }
    if let Some(account) = viewer.caller.account() {
        let filter = MembershipFilter {
            account: Some(account),
            ..MembershipFilter::default()
        };
        for one in store.memberships().all(&filter).await? {
            let person = store.people().get(one.person).await?;
            let role = match one.sites.map(|sites| sites.len()) {
                None => one.role.to_string(),
                Some(1) => format!("{} of one site", one.role),
                Some(many) => format!("{} of {many} sites", one.role),
            };
            all.push(Listed { person, role });
        }
        return Ok(all);
    }
    for staff in [Staff::Owner, Staff::Operator, Staff::Support] {
        let filter = PersonFilter {
            staff: Some(staff),
            ..PersonFilter::default()
        };
        let people = store.people().all(&filter).await?;
        let listed = |person| Listed {
            person,
            role: staff.to_string(),
        };
        all.extend(people.into_iter().map(listed));
    }
    Ok(all)
}

/// The people of a reseller.
pub async fn of_reseller(control: &Control, reseller: ResellerId) -> Result<Vec<Listed>> {
    let filter = PersonFilter {
        reseller: Some(reseller),
        ..PersonFilter::default()
    };
    let people = control.store.people().all(&filter).await?;
    let listed = |person| Listed {
        person,
        role: "owner".to_owned(),
    };
    Ok(people.into_iter().map(listed).collect())
}

/// Refuses who may not change the people of what they see.
pub(super) fn may(viewer: &Viewer) -> Result<()> {
    if viewer.manages_people() {
        return Ok(());
    }
    Err(Refusal::forbidden("Only an owner changes who is there."))
}

/// The people of what the viewer sees, when they may change them and this one is among them.
pub async fn managed(control: &Control, viewer: &Viewer, id: PersonId) -> Result<Vec<Listed>> {
    may(viewer)?;
    let people = all(control, viewer).await?;
    if people.iter().any(|one| one.person.id == id) {
        return Ok(people);
    }
    let id = id.to_string();
    Err(viewer.caller.stranger(control, "person", &id).await)
}

/// Takes a person away from what the viewer sees. The last owner stays.
pub async fn remove(control: &Control, viewer: &Viewer, id: PersonId) -> Result<()> {
    let people = managed(control, viewer, id).await?;
    let Some(found) = people.iter().find(|one| one.person.id == id) else {
        return Ok(());
    };
    let owners = people.iter().filter(|one| one.role == "owner").count();
    if found.role == "owner" && owners == 1 {
        return Err(Refusal::conflict(
            "last-owner",
            "The last owner stays",
            format!("{} is the only owner.", found.person.name),
        )
        .remedy("Invite another owner first."));
    }
    let account = viewer.caller.account();
    let tx = control.store.begin().await?;
    match account {
        // Whoever is of the provider or of a reseller is of nothing else.
        _ if viewer.caller.sells() => tx.people().delete(id, None).await?,
        None => {}
        Some(account) => {
            let filter = MembershipFilter {
                person: Some(id),
                account: Some(account),
            };
            if let Some(one) = tx.memberships().find_by(&filter).await? {
                tx.memberships().delete(one.id, None).await?;
            }
        }
    }
    let data = json!({"name": found.person.name});
    viewer
        .caller
        .did(&tx, "person.remove", format!("person/{id}"), account, data)
        .await?;
    tx.commit().await?;
    Ok(())
}

/// Somebody who is logged in gives their password once more, before something that matters.
pub async fn prove(
    control: &Control,
    viewer: &Viewer,
    password: &str,
    place: &Place,
) -> Result<()> {
    let person = &viewer.person;
    let counted = passwords::counted(&person.email, &place.network());
    for (what, free) in &counted {
        passwords::count(control, what, *free).await?;
    }
    if !passwords::is_right(password.to_owned(), Some(person.password_hash.clone())).await? {
        return Err(Refusal::invalid("old", "This is not your password now."));
    }
    for (what, _) in &counted {
        control.store.failures().forget(what).await?;
    }
    Ok(())
}

/// Changes the viewer's own password; their other sessions end.
pub async fn change_password(
    control: &Control,
    viewer: &Viewer,
    old: &str,
    new: &str,
    place: &Place,
) -> Result<()> {
    prove(control, viewer, old, place).await?;
    let person = &viewer.person;
    passwords::check(new, &[&person.email, &person.name])?;
    let password_hash = passwords::hash(new.to_owned()).await?;
    let tx = control.store.begin().await?;
    let mut person = tx.people().lock(person.id).await?;
    person.password_hash = password_hash;
    tx.people().update(&person, now_ms()).await?;
    tx.sessions()
        .end_all(person.id, Some(viewer.login.id))
        .await?;
    for link in tx
        .links()
        .all(&LinkFilter {
            person: Some(person.id),
            ..LinkFilter::default()
        })
        .await?
    {
        tx.links().delete(link.id, None).await?;
    }
    let subject = format!("person/{}", person.id);
    viewer
        .caller
        .did(&tx, "person.password", subject, None, json!({}))
        .await?;
    tx.commit().await?;
    Ok(())
}

/// A path of the panel as a whole URL, where visitors reach it.
pub async fn url(control: &Control, path: &str) -> Result<String> {
    url_at(&control.store, &control.cluster.domain, path).await
}

/// The same before there is an instance.
pub async fn url_at(store: &Store, domain: &str, path: &str) -> Result<String> {
    use crate::control::PublicPorts;
    let ports: PublicPorts = store
        .settings()
        .get(PublicPorts::KEY)
        .await?
        .unwrap_or_default();
    let port = match ports.https {
        443 => String::new(),
        other => format!(":{other}"),
    };
    Ok(format!("https://panel.{domain}{port}{path}"))
}
