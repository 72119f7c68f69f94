//! Who may do what: plans, accounts, tokens, and the audit of what they did.

use serde_json::Value as Json;
use undine_model::{AccountId, Id, PlanId, ResellerId, Slug, TokenId};
use uuid::Uuid;

use crate::record::{record, words};

/// Marks the id of an audit row.
pub enum AuditKind {}
/// An audit row's id.
pub type AuditId = Id<AuditKind>;

words! {
    /// Whether a reseller may work.
    ResellerState {
        /// It may.
        Active = "active",
        /// Its people and tokens may look, and change nothing.
        Suspended = "suspended",
        /// The same, and its customers' sites show the page for suspended sites.
        SuspendedWithCustomers = "suspended_with_customers",
    }
}

record! {
    /// Somebody who sells hosting on: has plans and customers of its own, within limits.
    Reseller, "reseller" in "resellers", id ResellerId {
        /// Its name.
        name: Slug,
        /// What its plans and accounts may be in all.
        limits: Json,
        /// How the panel looks to its customers.
        brand: Option<Json>,
        /// The host name of its own that the panel has for them; no two have the same.
        host: Option<String>,
        /// Whether it may work. What its accounts are themselves is theirs, and is not changed by it.
        state: ResellerState,
    }
    /// Which resellers.
    filter ResellerFilter { name: Slug, host: String, state: ResellerState }
    frozen {}
}

record! {
    /// The limits that accounts on it have.
    Plan, "plan" in "plans", id PlanId {
        /// Its name.
        name: Slug,
        /// The limits.
        limits: Json,
        /// Whose it is, unless it is the provider's.
        reseller: Option<ResellerId>,
    }
    /// Which plans.
    filter PlanFilter { name: Slug, reseller: ResellerId }
    frozen {}
}

words! {
    /// Whether an account is served.
    AccountState {
        /// Served.
        Active = "active",
        /// Its sites show the page for suspended sites.
        Suspended = "suspended",
        /// The same by the provider: its reseller cannot end it.
        Held = "held",
        /// Being removed with all it has.
        Deleting = "deleting",
    }
}

impl AccountState {
    /// Do its sites show the page for suspended sites?
    pub const fn is_suspended(self) -> bool {
        matches!(self, Self::Suspended | Self::Held)
    }
}

record! {
    /// A customer.
    Account, "account" in "accounts", id AccountId {
        /// Its name.
        name: Slug,
        /// Its plan.
        plan: PlanId,
        /// Whether it is served.
        state: AccountState,
        /// Whose customer it is, unless the provider's: always whose its plan is.
        reseller: Option<ResellerId>,
    }
    /// Which accounts.
    filter AccountFilter { name: Slug, plan: PlanId, state: AccountState, reseller: ResellerId }
    frozen {}
}

words! {
    /// What the bearer of a token is.
    Role {
        /// The provider: everything.
        Provider = "provider",
        /// An account's owner: that account only.
        AccountOwner = "account_owner",
        /// A reseller: its plans and its customers' accounts.
        Reseller = "reseller",
    }
}

record! {
    /// Lets its bearer use the API.
    Token, "token" in "tokens", id TokenId {
        /// SHA-256 of the secret, hexadecimal; the secret itself is never kept.
        secret_sha256: String,
        /// What people call it.
        name: String,
        /// What its bearer is.
        role: Role,
        /// The only account that it reaches.
        account: Option<AccountId>,
        /// The reseller that it acts for.
        reseller: Option<ResellerId>,
        /// The reseller that made it for one of its customers.
        made_by: Option<ResellerId>,
        /// The only sites of its account that it reaches; without, the account whole.
        sites: Option<Vec<Uuid>>,
        /// What it may do; empty is all that its role may.
        scopes: Vec<String>,
        /// When it ends.
        expires_at: Option<i64>,
        /// When it was last used; exact to a minute.
        last_used_at: Option<i64>,
        /// When it was revoked.
        revoked_at: Option<i64>,
    }
    /// Which tokens.
    filter TokenFilter { role: Role, account: AccountId, reseller: ResellerId }
    frozen { last_used_at }
}

record! {
    /// One act, allowed or refused; only ever added.
    Audit, "audit row" in "audit", id AuditId {
        /// Who: a token's id, `node/<id>`, `system`.
        actor: String,
        /// What was done, such as `site.create`.
        action: String,
        /// To what, such as `site/<id>`.
        subject: String,
        /// The account that may see the row.
        account: Option<AccountId>,
        /// The reseller that may see it: it was about its customers, its plans or itself.
        reseller: Option<ResellerId>,
        /// How it ended: `ok`, or the problem's code.
        outcome: String,
        /// The request that it was part of.
        request_id: Option<Uuid>,
        /// From where.
        ip: Option<String>,
        /// More about it.
        data: Json,
    }
    /// Which audit rows.
    filter AuditFilter { actor: String, action: String, subject: String, account: AccountId,
        reseller: ResellerId }
    frozen {}
}
