//! Sites, their releases, their databases and the applications installed into them.

use std::collections::BTreeMap;

use undine_manifest::SiteSettings;
use undine_model::lifecycle::SiteState;
use undine_model::{AccountId, Bytes, DatabaseId, DomainName, ReleaseId, ServerId, SiteId, Slug};

use super::{Operation, answers, choices, requests};

answers! {
    /// A domain's web content on one server.
    pub struct Site {
        /// Its id.
        pub id: SiteId,
        /// The name that it is known by.
        pub domain: DomainName,
        /// Further names that show the same content.
        pub aliases: Vec<DomainName>,
        /// Whose it is.
        pub account: AccountId,
        /// Its server.
        pub server: ServerId,
        /// How it runs.
        pub runtime: Slug,
        /// What its owner set.
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        pub settings: SiteSettings,
        /// What it is doing.
        pub state: SiteState,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<String>,
        /// It was deleted: when it is really removed. Until then that can be undone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub gone_at: Option<i64>,
        /// The release that visitors see.
        pub current_release: Option<ReleaseId>,
        /// Its Unix user on the server.
        pub uid: u32,
        /// Where visitors find it.
        pub url: String,
        /// Do the edges know of it? Not before it was applied once, and not once it was deleted.
        #[serde(default)]
        pub routed: bool,
        /// When it was made.
        pub created_at: i64,
        /// When it was last changed.
        pub updated_at: i64,
        /// Counts its changes.
        pub version: i64,
    }

    /// A site and the operation that now works on it.
    pub struct SiteOperation {
        /// The site.
        pub site: Site,
        /// The operation.
        pub operation: Operation,
    }

    /// One deployed version of a site's content.
    pub struct Release {
        /// Its id.
        pub id: ReleaseId,
        /// Its site.
        pub site: SiteId,
        /// How it stands.
        pub state: ReleaseState,
        /// SHA-256 of its archive.
        pub sha256: String,
        /// Size of its archive.
        pub size: Bytes,
        /// Is it the one that visitors see?
        pub live: bool,
        /// The release that was live before it.
        pub previous: Option<ReleaseId>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<String>,
        /// When it came in.
        pub created_at: i64,
        /// Counts its changes.
        pub version: i64,
    }

    /// A release and, when it is to go live, the operation that does it.
    pub struct ReleaseOperation {
        /// The release.
        pub release: Release,
        /// The operation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub operation: Option<Operation>,
    }

    /// A database of a site.
    pub struct Database {
        /// Its id.
        pub id: DatabaseId,
        /// The site that it belongs to.
        pub site: SiteId,
        /// Whose it is.
        pub account: AccountId,
        /// Its server.
        pub server: ServerId,
        /// Its name, as programs of the site give it.
        pub name: String,
        /// Its user.
        pub user: String,
        /// When it was made.
        pub created_at: i64,
        /// Counts its changes.
        pub version: i64,
    }

    /// A database, and the operation that now works on it.
    pub struct DatabaseOperation {
        /// The database.
        pub database: Database,
        /// Its user's password; shown when it is made, never again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub password: Option<String>,
        /// The operation.
        pub operation: Operation,
    }

    /// The last lines of a log.
    pub struct LogLines {
        /// Oldest first.
        pub lines: Vec<String>,
    }
}

choices! {
    /// How a release stands.
    pub enum ReleaseState {
        /// On its way to the server.
        Uploading,
        /// On the server, checked.
        Ready,
        /// Refused or lost on the way.
        Failed,
        /// Removed to make room.
        Removed,
    }
}

requests! {
    /// A wish for a site.
    pub struct CreateSite {
        /// Its name.
        pub domain: DomainName,
        /// Further names.
        #[serde(default)]
        pub aliases: Vec<DomainName>,
        /// Whose it is (id or name); an account's own token needs none.
        #[serde(default)]
        pub account: Option<String>,
        /// On this server (id or name); without one, the fitting server with the fewest sites.
        #[serde(default)]
        pub server: Option<String>,
        /// How it runs, such as `static` or `php`.
        pub runtime: Slug,
        /// Settings.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        pub settings: SiteSettings,
    }

    /// A change of a site; what is left out stays.
    pub struct UpdateSite {
        /// Further names, all of them.
        #[serde(default)]
        pub aliases: Option<Vec<DomainName>>,
        /// How it runs.
        #[serde(default)]
        pub runtime: Option<Slug>,
        /// Settings, all of them.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
        pub settings: Option<SiteSettings>,
    }

    /// A wish for a database.
    pub struct CreateDatabase {
        /// For this site.
        pub site: SiteId,
        /// Its name: 1 to 32 of a-z, 0-9 and `_`, starting with a letter. The server knows it
        /// with the site's number before it.
        pub name: String,
    }

    /// A wish for an application in a site.
    pub struct InstallApp {
        /// Which one of the catalogue.
        pub app: Slug,
        /// The answers to its questions.
        #[serde(default)]
        pub answers: BTreeMap<String, String>,
    }

    /// A wish for an earlier release.
    pub struct Rollback {
        /// Which one; without one, the release that was live before.
        #[serde(default)]
        pub release: Option<ReleaseId>,
    }
}
