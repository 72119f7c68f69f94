//! Who asks, what they may, and the audit of what they did or were refused.

use serde_json::Value as Json;
use undine_api::public::Scope;
use undine_model::{AccountId, ResellerId, SiteId, Slug};
use undine_store::{Account, Audit, Db, PersonId, Role, Token, Tx};
use uuid::Uuid;

use super::reseller_suspend;
use crate::clock::{new_id, now_ms};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// The bearer of a token, for one request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token; for a person in the panel, what their session may, as if it were a token.
    pub token: Token,
    /// The person, in the panel.
    pub person: Option<PersonId>,
    /// The only sites of its account that it reaches; without, the account whole.
    pub sites: Option<Vec<SiteId>>,
    /// The name of the reseller that it comes from, while that is suspended.
    pub stopped: Option<Slug>,
    /// The request.
    pub request_id: Uuid,
    /// From where.
    pub ip: Option<String>,
}

impl Caller {
    /// Is it the provider?
    pub fn is_provider(&self) -> bool {
        self.token.role == Role::Provider
    }

    /// The only account that it reaches whole; none for the provider. A reseller, and somebody
    /// who reaches single sites, get an account that nobody has: whatever does not ask for them
    /// in particular shows them nothing.
    pub fn account(&self) -> Option<AccountId> {
        let nobody = AccountId::from_uuid(Uuid::nil());
        match self.token.role {
            Role::Provider => None,
            Role::AccountOwner if self.sites.is_none() => {
                // A token without its account reaches nothing at all.
                Some(self.token.account.unwrap_or(nobody))
            }
            Role::AccountOwner | Role::Reseller => Some(nobody),
        }
    }

    /// The reseller that it acts for.
    pub fn reseller(&self) -> Option<ResellerId> {
        self.token
            .reseller
            .filter(|_| self.token.role == Role::Reseller)
    }

    /// Does it sell: the provider, or a reseller?
    pub fn sells(&self) -> bool {
        matches!(self.token.role, Role::Provider | Role::Reseller)
    }

    /// May it know of this account, and change it if it sells?
    pub fn reaches(&self, account: &Account) -> bool {
        match self.token.role {
            Role::Reseller => {
                self.token.reseller.is_some() && account.reseller == self.token.reseller
            }
            _ => self.sees(account.id),
        }
    }

    /// Do its scopes allow this? An empty list is everything; `manage` is everything too, and
    /// whoever may deploy may look, whoever may look sees what is used of the plan.
    pub fn has(&self, wanted: Scope) -> bool {
        let scopes = &self.token.scopes;
        let has = |scope: Scope| scopes.iter().any(|text| text == scope_word(scope));
        scopes.is_empty()
            || has(Scope::Manage)
            || has(wanted)
            || (wanted == Scope::Read && has(Scope::Deploy))
            || (wanted == Scope::Billing && (has(Scope::Deploy) || has(Scope::Read)))
    }

    /// May it know of what belongs to this account?
    pub fn sees(&self, owner: AccountId) -> bool {
        self.account().is_none_or(|own| own == owner)
    }

    /// May it know of this site of this account, and of what belongs to it?
    pub fn sees_site(&self, owner: AccountId, site: SiteId) -> bool {
        match &self.sites {
            Some(sites) => self.token.account == Some(owner) && sites.contains(&site),
            None => self.sees(owner),
        }
    }

    /// Who it is, in the audit.
    pub fn actor(&self) -> String {
        match self.person {
            Some(person) => format!("person/{person}"),
            None => format!("token/{}", self.token.id),
        }
    }

    /// Who it is, for people who read why something was done.
    pub fn who(&self) -> String {
        match self.person {
            Some(_) => self.token.name.clone(),
            None => format!("the token {}", self.token.name),
        }
    }

    /// An audit row about what it did.
    fn row(
        &self,
        action: &str,
        subject: String,
        (account, reseller): (Option<AccountId>, Option<ResellerId>),
        outcome: &str,
        data: Json,
    ) -> Audit {
        Audit {
            id: new_id(),
            version: 1,
            created_at: now_ms(),
            updated_at: now_ms(),
            actor: self.actor(),
            action: action.to_owned(),
            subject,
            account: account.filter(|id| !id.uuid().is_nil()),
            reseller,
            outcome: outcome.to_owned(),
            request_id: Some(self.request_id),
            ip: self.ip.clone(),
            data,
        }
    }

    /// Within the transaction that does it: what was done. Whoever sells to the account sees it
    /// too.
    pub async fn did(
        &self,
        tx: &Tx,
        action: &str,
        subject: String,
        account: Option<AccountId>,
        data: Json,
    ) -> Result<()> {
        let seller = match (self.reseller(), account) {
            (None, Some(id)) => tx.accounts().find(id).await?.and_then(|it| it.reseller),
            (own, _) => own,
        };
        let row = self.row(action, subject, (account, seller), "ok", data);
        Ok(tx.audit().insert(&row).await?)
    }

    /// The same about something of a reseller's own, or of the provider's.
    pub async fn did_for(
        &self,
        tx: &Tx,
        action: &str,
        subject: String,
        seller: Option<ResellerId>,
        data: Json,
    ) -> Result<()> {
        let row = self.row(action, subject, (None, seller), "ok", data);
        Ok(tx.audit().insert(&row).await?)
    }

    /// Refuses every change while the reseller that it comes from is suspended.
    pub fn may_change(&self) -> Result<()> {
        match &self.stopped {
            None => Ok(()),
            Some(name) => Err(reseller_suspend::refused(
                name,
                self.token.made_by.is_some(),
            )),
        }
    }

    /// Refuses what is an account's whole matter to whoever reaches single sites of it.
    pub fn only_sites(&self) -> Refusal {
        Refusal::forbidden("You reach single sites of the account, not the account itself.")
            .remedy("Ask somebody who has the whole account.")
    }

    /// Refuses what belongs to another account as if it were not there, and writes that down.
    pub async fn stranger(&self, control: &Control, what: &str, id: &str) -> Refusal {
        let row = self.row(
            &format!("{what}.reach"),
            format!("{what}/{id}"),
            (None, None),
            "not-found",
            Json::String("asked for another account's".to_owned()),
        );
        if let Err(error) = control.store.audit().insert(&row).await {
            return error.into();
        }
        Refusal::not_found(what, id)
    }
}

/// An audit row about something that was found, not asked for: by a node, say.
pub fn finding(actor: String, action: &str, subject: String, outcome: &str, data: Json) -> Audit {
    Audit {
        id: new_id(),
        version: 1,
        created_at: now_ms(),
        updated_at: now_ms(),
        actor,
        action: action.to_owned(),
        subject,
        account: None,
        reseller: None,
        outcome: outcome.to_owned(),
        request_id: None,
        ip: None,
        data,
    }
}

/// A scope as it is kept.
pub fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Deploy => "deploy",
        Scope::Manage => "manage",
        Scope::Billing => "billing",
    }
}

/// Which version of a thing a change is about: `If-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whichever there is.
    Any,
    /// This one.
    Version(i64),
}

impl Expected {
    /// Refuses when the thing is at another version.
    pub fn check(self, what: &str, found: i64) -> Result<()> {
        match self {
            Self::Version(wanted) if wanted != found => Err(Refusal::of(
                412,
                "stale",
                "It was changed meanwhile",
                format!("The {what} is at version {found}, not {wanted}."),
            )
            .remedy("Read it again and send its ETag in If-Match.")),
            _ => Ok(()),
        }
    }
}
