//! What is asked of accounts, plans, resellers and tokens.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use undine_model::{Bytes, MilliCpu, Slug, TokenId};

use super::{Sure, Waiting};

/// Accounts.
#[derive(Subcommand)]
pub enum Account {
    /// All of them.
    List,
    /// One of them.
    Show {
        /// Name or id.
        account: String,
    },
    /// Make one.
    Create {
        /// Its name.
        name: Slug,
        /// Its plan.
        #[arg(long)]
        plan: String,
    },
    /// Show the page for suspended sites instead of its sites.
    Suspend {
        /// Name or id.
        account: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Serve its sites again.
    Unsuspend {
        /// Name or id.
        account: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Delete it; it must have no sites.
    Delete {
        /// Name or id.
        account: String,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Plans.
#[derive(Subcommand)]
pub enum Plan {
    /// All of them.
    List,
    /// Make one from a JSON file with its limits.
    Create {
        /// Its name.
        name: Slug,
        /// The limits: `{"sites": 10, "databases": 10, "site": {…}}`.
        #[arg(long)]
        file: PathBuf,
        /// The reseller whose it is to be.
        #[arg(long)]
        reseller: Option<String>,
    },
}

/// Resellers.
#[derive(Subcommand)]
pub enum Reseller {
    /// All of them.
    List,
    /// One of them, with what it has of its limits.
    Show {
        /// Name or id.
        reseller: String,
    },
    /// Make one from a JSON file with its limits.
    Create {
        /// Its name.
        name: Slug,
        /// The limits: `{"accounts": 10, "sites": 100, "databases": 100, "site": {…}}`.
        #[arg(long)]
        file: PathBuf,
    },
    /// Change its limits; what is not named stays as it is.
    Limits {
        /// Name or id.
        reseller: String,
        #[command(flatten)]
        limits: LimitFlags,
    },
    /// Let its people and tokens look and change nothing.
    Suspend {
        /// Name or id.
        reseller: String,
        /// Its customers too: their sites show the page for suspended sites.
        #[arg(long)]
        with_customers: bool,
    },
    /// Let it work again; customers that are suspended themselves stay so.
    Unsuspend {
        /// Name or id.
        reseller: String,
    },
    /// Delete it with its people and tokens; it must have no accounts and no plans.
    Delete {
        /// Name or id.
        reseller: String,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Limits of a reseller.
#[derive(Args, Default)]
#[group(required = true, multiple = true)]
pub struct LimitFlags {
    /// All of them, from a JSON file.
    #[arg(long, conflicts_with_all = ["accounts", "sites", "databases", "cpu", "memory", "disk"])]
    pub file: Option<PathBuf>,
    /// Accounts.
    #[arg(long)]
    pub accounts: Option<u32>,
    /// Sites of all its accounts together.
    #[arg(long)]
    pub sites: Option<u32>,
    /// Databases of all its accounts together.
    #[arg(long)]
    pub databases: Option<u32>,
    /// The most CPU that a plan of its own may give each site, such as 0.5.
    #[arg(long)]
    pub cpu: Option<MilliCpu>,
    /// The most memory that a plan of its own may give each site, such as 256MiB.
    #[arg(long)]
    pub memory: Option<Bytes>,
    /// The most disk that a plan of its own may give each site, such as 10GiB.
    #[arg(long)]
    pub disk: Option<Bytes>,
}

/// API tokens.
#[derive(Subcommand)]
pub enum Token {
    /// All of them.
    List,
    /// Make one; its secret is shown once.
    Create {
        /// What people will call it.
        name: String,
        /// What its bearer is to be.
        #[arg(long, default_value = "account-owner")]
        role: RoleName,
        /// The only account that it is to reach.
        #[arg(long)]
        account: Option<String>,
        /// The reseller that it is to act for.
        #[arg(long)]
        reseller: Option<String>,
        /// The only site (domain or id) of the account that it is to reach; may be given again.
        #[arg(long)]
        site: Vec<String>,
        /// What it may do; may be given again; without one, all that its role may.
        #[arg(long)]
        scope: Vec<ScopeName>,
        /// Seconds until it ends.
        #[arg(long)]
        ttl: Option<u32>,
    },
    /// End one.
    Revoke {
        /// Its id.
        token: TokenId,
    },
}

/// What the bearer of a token is.
#[derive(Clone, Copy, ValueEnum)]
pub enum RoleName {
    /// The provider: everything.
    Provider,
    /// An account's owner.
    AccountOwner,
    /// A reseller.
    Reseller,
}

/// What a token may do.
#[derive(Clone, Copy, ValueEnum)]
pub enum ScopeName {
    /// Look.
    Read,
    /// Deploy and roll back.
    Deploy,
    /// Make, change and delete.
    Manage,
    /// See the plan and what is used of it.
    Billing,
}
