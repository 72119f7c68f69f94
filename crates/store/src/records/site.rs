//! Sites, what they are made of, and the certificates of their names.

use serde_json::Value as Json;
use undine_model::lifecycle::SiteState;
use undine_model::{
    AccountId, Bytes, DatabaseId, DomainName, Id, ReleaseId, ServerId, SiteId, Slug,
};

use crate::record::{record, words};

/// Marks the id of a site's certificate.
pub enum CertificateKind {}
/// A site certificate's id.
pub type CertificateId = Id<CertificateKind>;

record! {
    /// A domain's web content on one server. Its names are unique over all sites.
    Site, "site" in "sites", id SiteId {
        /// The name that it is known by.
        domain: DomainName,
        /// Whose it is.
        account: AccountId,
        /// Where it runs.
        server: ServerId,
        /// Its Unix user there; never used again.
        uid: u32,
        /// How it runs: a runtime of the server's profile, such as `static` or `php`.
        runtime: Slug,
        /// What its owner set.
        settings: Json,
        /// What it is doing.
        state: SiteState,
        /// The release that must be live.
        current_release: Option<ReleaseId>,
        /// The manifest version under which its server applied it.
        applied_version: u64,
        /// Why it failed.
        error: Option<String>,
        /// It was deleted: when it is really removed.
        gone_at: Option<i64>,
        /// It was deleted: what it becomes when that is undone.
        state_before: Option<SiteState>,
    }
    /// Which sites.
    filter SiteFilter {
        domain: DomainName, account: AccountId, server: ServerId, state: SiteState, uid: u32,
    }
    frozen { domain, applied_version }
}

record! {
    /// A database of a site.
    Database, "database" in "databases", id DatabaseId {
        /// Its server.
        server: ServerId,
        /// Whose it is.
        account: AccountId,
        /// The site that it belongs to.
        site: SiteId,
        /// Its name.
        name: String,
        /// Its user.
        username: String,
        /// The user's password, encrypted by control.
        encrypted_password: String,
    }
    /// Which databases.
    filter DatabaseFilter { server: ServerId, account: AccountId, site: SiteId, name: String }
    frozen {}
}

words! {
    /// How a release stands.
    ReleaseState {
        /// On its way to the server.
        Uploading = "uploading",
        /// On the server, checked.
        Ready = "ready",
        /// Refused or lost on the way.
        Failed = "failed",
        /// Removed to make room.
        Removed = "removed",
    }
}

record! {
    /// One deployed version of a site's content.
    Release, "release" in "releases", id ReleaseId {
        /// Its site.
        site: SiteId,
        /// SHA-256 of the archive, hexadecimal.
        sha256: String,
        /// Size of the archive.
        size: Bytes,
        /// How it stands.
        state: ReleaseState,
        /// The release that was live before it.
        previous: Option<ReleaseId>,
        /// Why it failed.
        error: Option<String>,
    }
    /// Which releases.
    filter ReleaseFilter { site: SiteId, state: ReleaseState }
    frozen {}
}

record! {
    /// The certificate of a host name.
    SiteCertificate, "certificate" in "site_certificates", id CertificateId {
        /// The name.
        host: String,
        /// The chain, PEM.
        chain_pem: String,
        /// The private key, encrypted by control.
        encrypted_key: String,
        /// When it ends.
        expires_at: i64,
    }
    /// Which certificates.
    filter SiteCertificateFilter { host: String }
    frozen {}
}
