//! Accounts, plans, tokens, and the audit of what was done.

use serde_json::Value as Json;
use undine_manifest::Caps;
use undine_model::{AccountId, Bytes, PlanId, ResellerId, SiteId, Slug, TokenId};

use super::{answers, choices, requests};

answers! {
    /// The limits of the accounts on it.
    pub struct Plan {
        /// Its id.
        pub id: PlanId,
        /// Its name.
        pub name: Slug,
        /// The limits.
        pub limits: PlanLimits,
        /// The reseller whose it is; none: the provider's.
        #[serde(default)]
        pub reseller: Option<ResellerId>,
        /// When it was made.
        pub created_at: i64,
        /// Counts its changes.
        pub version: i64,
    }

    /// Somebody who sells hosting on, within limits.
    pub struct Reseller {
        /// Its id.
        pub id: ResellerId,
        /// Its name.
        pub name: Slug,
        /// What its plans and accounts may be in all.
        pub limits: ResellerLimits,
        /// What its accounts have together.
        pub uses: ResellerUse,
        /// Whether it may work.
        pub state: ResellerState,
        /// When it was made.
        pub created_at: i64,
        /// Counts its changes.
        pub version: i64,
    }

    /// What the accounts of a reseller have together.
    #[derive(Copy, Default)]
    pub struct ResellerUse {
        /// Accounts.
        pub accounts: u32,
        /// Sites.
        pub sites: u32,
        /// Databases.
        pub databases: u32,
    }

    /// A customer.
    pub struct Account {
        /// Its id.
        pub id: AccountId,
        /// Its name.
        pub name: Slug,
        /// Its plan.
        pub plan: PlanId,
        /// Whether it is served.
        pub state: AccountState,
        /// What it has of what its plan allows.
        pub uses: AccountUse,
        /// The reseller whose customer it is; none: the provider's.
        #[serde(default)]
        pub reseller: Option<ResellerId>,
        /// When it was made.
        pub created_at: i64,
        /// Counts its changes.
        pub version: i64,
    }

    /// What an account has.
    #[derive(Copy, Default)]
    pub struct AccountUse {
        /// Sites.
        pub sites: u32,
        /// Databases.
        pub databases: u32,
    }

    /// An API token, without its secret.
    pub struct Token {
        /// Its id.
        pub id: TokenId,
        /// What people call it.
        pub name: String,
        /// What its bearer is.
        pub role: TokenRole,
        /// The only account that it reaches.
        pub account: Option<AccountId>,
        /// The reseller that it acts for.
        #[serde(default)]
        pub reseller: Option<ResellerId>,
        /// The only sites of its account that it reaches; without, the account whole.
        #[serde(default)]
        pub sites: Option<Vec<SiteId>>,
        /// What it may do; empty is all that its role may.
        pub scopes: Vec<Scope>,
        /// When it ends.
        pub expires_at: Option<i64>,
        /// When it was last used, to the minute.
        pub last_used_at: Option<i64>,
        /// When it was revoked.
        pub revoked_at: Option<i64>,
        /// When it was made.
        pub created_at: i64,
        /// Counts its changes.
        pub version: i64,
    }

    /// A token with its secret, shown once.
    pub struct NewToken {
        /// The token.
        pub token: Token,
        /// What to send as `Authorization: Bearer …`.
        pub secret: String,
    }

    /// Who asks.
    pub struct WhoAmI {
        /// The token.
        pub token: Token,
        /// The cluster's domain.
        pub domain: String,
        /// Version of the program that answers.
        pub program: String,
    }

    /// One act, allowed or refused.
    pub struct AuditRow {
        /// Its id.
        pub id: String,
        /// When.
        pub at: i64,
        /// Who: `token/<id>`, `node/<id>` or `system`.
        pub actor: String,
        /// What, such as `site.create`.
        pub action: String,
        /// To what, such as `site/<id>`.
        pub subject: String,
        /// The account that may see the row.
        pub account: Option<AccountId>,
        /// The reseller that may see it: it was about its customers, its plans or itself.
        #[serde(default)]
        pub reseller: Option<ResellerId>,
        /// How it ended: `ok`, or the problem's type.
        pub outcome: String,
        /// The request that it was part of.
        pub request_id: Option<String>,
        /// From where.
        pub ip: Option<String>,
        /// More about it.
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        pub data: Json,
    }
}

choices! {
    /// Whether an account is served.
    pub enum AccountState {
        /// Served.
        Active,
        /// Its sites show the page for suspended sites.
        Suspended,
        /// They do because its reseller is suspended with its customers; it is not itself.
        SuspendedWithReseller,
        /// Being removed.
        Deleting,
    }

    /// Whether a reseller may work.
    pub enum ResellerState {
        /// It may.
        Active,
        /// Its people and tokens may look, and change nothing; its customers are served.
        Suspended,
        /// The same, and its customers' sites show the page for suspended sites.
        SuspendedWithCustomers,
    }

    /// What the bearer of a token is.
    pub enum TokenRole {
        /// The provider: everything.
        Provider,
        /// An account's owner: that account only.
        AccountOwner,
        /// A reseller: its own plans and its own customers' accounts.
        Reseller,
    }

    /// What a token may do.
    pub enum Scope {
        /// Look at everything that its role may see.
        Read,
        /// Deploy releases and roll them back.
        Deploy,
        /// Make, change and delete.
        Manage,
        /// See the plan and what is used of it, nothing else.
        Billing,
    }
}

requests! {
    /// The limits of a plan.
    pub struct PlanLimits {
        /// Sites.
        pub sites: u32,
        /// Databases.
        pub databases: u32,
        /// What each site may use.
        #[cfg_attr(feature = "openapi", schema(value_type = SiteCaps))]
        pub site: Caps,
    }

    /// What one site may use.
    pub struct SiteCaps {
        /// Thousandths of a CPU.
        pub cpu: undine_model::MilliCpu,
        /// Memory, in bytes.
        pub memory: Bytes,
        /// Processes and threads.
        pub processes: u32,
        /// Disk throughput, bytes a second, each way.
        pub io_bytes_per_s: Bytes,
        /// Disk operations a second, each way.
        pub iops: u32,
        /// Bytes on disk.
        pub disk: Bytes,
        /// Files and folders on disk.
        pub inodes: u64,
    }

    /// What a reseller's plans and accounts may be.
    pub struct ResellerLimits {
        /// Accounts.
        pub accounts: u32,
        /// Sites of all its accounts together; no plan of its own may allow more either.
        pub sites: u32,
        /// Databases of all its accounts together; no plan of its own may allow more either.
        pub databases: u32,
        /// The most that a plan of its own may give each site.
        #[cfg_attr(feature = "openapi", schema(value_type = SiteCaps))]
        pub site: Caps,
    }

    /// A wish for a reseller.
    pub struct CreateReseller {
        /// Its name.
        pub name: Slug,
        /// Its limits.
        pub limits: ResellerLimits,
    }

    /// A change of a reseller.
    pub struct UpdateReseller {
        /// Its limits, all of them.
        pub limits: ResellerLimits,
    }

    /// A wish to suspend a reseller.
    pub struct SuspendReseller {
        /// Its customers too: their sites show the page for suspended sites.
        #[serde(default)]
        pub with_customers: bool,
    }

    /// A wish for a plan.
    pub struct CreatePlan {
        /// Its name.
        pub name: Slug,
        /// Its limits.
        pub limits: PlanLimits,
        /// The reseller (id or name) whose it is to be; a reseller's own needs none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reseller: Option<String>,
    }

    /// A change of a plan; it counts for every site of every account on it.
    pub struct UpdatePlan {
        /// Its limits, all of them.
        pub limits: PlanLimits,
    }

    /// A wish for an account.
    pub struct CreateAccount {
        /// Its name.
        pub name: Slug,
        /// Its plan (id or name).
        pub plan: String,
    }

    /// A change of an account; what is left out stays.
    pub struct UpdateAccount {
        /// Its plan (id or name).
        #[serde(default)]
        pub plan: Option<String>,
    }

    /// A wish for a token.
    pub struct CreateToken {
        /// What people will call it.
        pub name: String,
        /// What its bearer is to be.
        pub role: TokenRole,
        /// The only account (id or name) that it is to reach; an account's own token needs none.
        #[serde(default)]
        pub account: Option<String>,
        /// The reseller (id or name) that it is to act for; a reseller's own needs none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reseller: Option<String>,
        /// The only sites (domains or ids) of its account that it is to reach; without, the
        /// account whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub sites: Option<Vec<String>>,
        /// What it may do; empty is all that its role may.
        #[serde(default)]
        pub scopes: Vec<Scope>,
        /// Seconds until it ends; none is never.
        #[serde(default)]
        pub ttl_s: Option<u32>,
    }
}
