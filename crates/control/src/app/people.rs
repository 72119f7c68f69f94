//! People: who is there, who goes, their passwords.

use serde_json::json;
use undine_model::ResellerId;
use undine_store::{
    Db, LinkFilter, MembershipFilter, Person, PersonFilter, PersonId, Staff, Store,
};

use super::passwords;
use super::sessions::{Place, Viewer};
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

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
