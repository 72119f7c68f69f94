//! Sessions: logging in and out, who a browser belongs to, and what it may.

use serde_json::json;
use undine_model::{AccountId, TokenId};
use undine_store::{Db, Login, Member, Person, PersonFilter, Staff, Store, Token};
use uuid::Uuid;

use super::caller::Caller;
use super::reach::reach;
use super::{passwords, reseller_suspend, second};
use crate::clock::{new_id, new_secret, now_ms, sha256};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// A session that is not used for so long ends.
const IDLE_MS: i64 = 14 * 24 * 3_600_000;
/// No session lasts longer, used or not.
const LONGEST_MS: i64 = 90 * 24 * 3_600_000;

/// Somebody who is logged in, for one request.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// Who.
    pub person: Person,
    /// In which browser.
    pub login: Login,
    /// What they may, as the use cases see it.
    pub caller: Caller,
    /// The accounts that they are members of, each whole or in part.
    pub accounts: Vec<(AccountId, Member)>,
    /// What forms must send back.
    pub csrf: String,
    /// The host name that they came to.
    pub host: String,
}

impl Viewer {
    /// Was this sent back by a form of this session?
    pub fn wrote(&self, sent: &str) -> bool {
        let salt = sent.split_once('.').map(|(salt, _)| salt);
        salt.is_some_and(|salt| form_secret(&self.login, salt) == sent)
    }

    /// Staff that acts for an account.
    pub fn acts_for(&self) -> Option<AccountId> {
        self.login
            .account
            .filter(|_| self.person.staff != Staff::None)
    }

    /// May they change the people of what they see?
    pub fn manages_people(&self) -> bool {
        match self.caller.account() {
            None => self.person.staff == Staff::Owner,
            // All people of a reseller are its owners.
            Some(_) if self.caller.reseller().is_some() => true,
            Some(account) => self.accounts.contains(&(account, Member::Owner)),
        }
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The visitor's address, when an edge says so.
    pub ip: Option<String>,
    /// What the browser calls itself.
    pub agent: String,
    /// The host name that it came to, with its port.
    pub host: String,
    /// Did it come over TLS?
    pub secure: bool,
    /// The request.
    pub request_id: Uuid,
}

impl Place {
    /// The network that wrong passwords are counted for: an IPv6 visitor has a /64 to himself.
    pub fn network(&self) -> String {
        match self.ip.as_deref().map(str::parse) {
            Some(Ok(std::net::IpAddr::V6(ip))) => {
                let s = ip.segments();
                format!("{:x}:{:x}:{:x}:{:x}::/64", s[0], s[1], s[2], s[3])
            }
            Some(Ok(ip)) => ip.to_string(),
            _ => "here".to_owned(),
        }
    }
}

/// How far somebody came.
#[derive(Debug)]
pub enum Entered {
    /// Logged in: the secret of the new session.
    In(String),
    /// The password was right, a code is wanted: the note for the second step.
    Half(String),
}

/// Logs in, or half so when there is a second step.
pub async fn log_in(
    control: &Control,
    email: &str,
    password: &str,
    place: &Place,
) -> Result<Entered> {
    let email = email.trim().to_lowercase();
    let counted = passwords::counted(&email, &place.network());
    for (what, free) in &counted {
        passwords::count(control, what, *free).await?;
    }
    let filter = PersonFilter {
        email: Some(email),
        ..PersonFilter::default()
    };
    let person = control.store.people().find_by(&filter).await?;
    let kept = person.as_ref().map(|person| person.password_hash.clone());
    let right = passwords::is_right(password.to_owned(), kept).await?;
    let Some(person) = person.filter(|_| right) else {
        return Err(Refusal::of(
            403,
            "wrong-password",
            "That did not fit",
            "No person here has this address with this password.",
        )
        .remedy("Check both. Whoever invited you can send a new link."));
    };
    for (what, _) in &counted {
        control.store.failures().forget(what).await?;
    }
    enter(control, &person, place).await
}

/// Somebody has proved who they are, but for a second step.
pub async fn enter(control: &Control, person: &Person, place: &Place) -> Result<Entered> {
    if second::is_on(person) {
        return second::note(control, person).map(Entered::Half);
    }
    begin(control, person, place).await.map(Entered::In)
}

/// A new session, always with a new secret; answers the secret.
pub async fn begin(control: &Control, person: &Person, place: &Place) -> Result<String> {
    let now = now_ms();
    let secret = new_secret();
    let login = Login {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        secret_sha256: sha256(&secret),
        person: person.id,
        account: None,
        agent: place.agent.chars().take(200).collect(),
        ip: place.ip.clone().unwrap_or_default(),
        last_used_at: now,
        expires_at: now + IDLE_MS,
    };
    let viewer = made(&control.store, person.clone(), login, place).await?;
    let tx = control.store.begin().await?;
    tx.sessions().insert(&viewer.login).await?;
    let subject = format!("person/{}", person.id);
    viewer
        .caller
        .did(&tx, "person.log_in", subject, None, json!({}))
        .await?;
    tx.commit().await?;
    Ok(secret)
}

/// Whose session this is.
pub async fn of(control: &Control, secret: &str, place: &Place) -> Result<Option<Viewer>> {
    let now = now_ms();
    let store = &control.store;
    let Some(login) = store.sessions().by_secret(&sha256(secret), now).await? else {
        return Ok(None);
    };
    if now - login.last_used_at > 60_000 {
        let end = (now + IDLE_MS).min(login.created_at + LONGEST_MS);
        let ip = place.ip.clone().unwrap_or_default();
        store.sessions().touch(login.id, &ip, now, end).await?;
    }
    let Some(person) = store.people().find(login.person).await? else {
        return Ok(None);
    };
    made(store, person, login, place).await.map(Some)
}

async fn made(store: &Store, person: Person, mut login: Login, place: &Place) -> Result<Viewer> {
    let stopped = reseller_suspend::stopped(store, person.reseller).await?;
    // Nobody of a suspended reseller acts for a customer.
    let last = login.account.filter(|_| stopped.is_none());
    let reach = reach(store, &person, last).await?;
    login.account = reach.account;
    let token = Token {
        id: TokenId::from_uuid(login.id.uuid()),
        version: login.version,
        created_at: login.created_at,
        updated_at: login.updated_at,
        secret_sha256: login.secret_sha256.clone(),
        name: person.name.clone(),
        role: reach.role,
        account: reach.account,
        reseller: person.reseller,
        made_by: None,
        sites: None,
        scopes: reach.scopes.iter().map(|it| (*it).to_owned()).collect(),
        expires_at: Some(login.expires_at),
        last_used_at: None,
        revoked_at: None,
    };
    Ok(Viewer {
        csrf: form_secret(&login, &new_secret()),
        host: place.host.clone(),
        caller: Caller {
            token,
            person: Some(person.id),
            sites: reach.sites,
            stopped,
            request_id: place.request_id,
            ip: place.ip.clone(),
        },
        person,
        login,
        accounts: reach.accounts,
    })
}

/// What forms of a session send back. It is another one on every page, so that the size of a
/// compressed page tells nothing of it.
fn form_secret(login: &Login, salt: &str) -> String {
    let proof = sha256(format!("form/{salt}/{}", login.secret_sha256));
    format!("{salt}.{proof}")
}

/// Logs out here.
pub async fn log_out(control: &Control, viewer: &Viewer) -> Result<()> {
    match control.store.sessions().delete(viewer.login.id, None).await {
        Ok(()) | Err(undine_store::StoreError::NotFound { .. }) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// Does the session still last? What it was allowed when it was read may have ended meanwhile.
pub async fn lasts(control: &Control, viewer: &Viewer) -> Result<bool> {
    let sessions = control.store.sessions();
    let login = sessions
        .by_secret(&viewer.login.secret_sha256, now_ms())
        .await?;
    Ok(login.is_some_and(|login| login.version == viewer.login.version))
}
