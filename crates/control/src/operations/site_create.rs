//! `site.create`. The site's record, its names and its uid were committed when the operation was
//! made.
//!
//! | step | does | undo |
//! |---|---|---|
//! | certificate | each name has a certificate of the cluster's sites authority | none: it goes with the site |
//! | apply | the server runs the site | none: the site stays, `failed` with the reason, off the edges |
//! | open | state `active`, routes open | none: the last step, one transaction |
//!
//! A site that could not be applied keeps its name and says why: `retry` tries again, `delete`
//! frees the name.

use futures_util::future::BoxFuture;
use serde_json::json;
use undine_model::lifecycle::SiteState;
use undine_model::{ServerId, SiteId};
use undine_store::{Db, Site, SiteCertificate, SiteCertificateFilter, StoreError};

use super::new::event_of;
use super::trouble::{Outcome, Trouble};
use super::work::Work;
use super::{Kind, step};
use crate::clock::{new_id, now_ms, now_utc};
use crate::control::Control;
use crate::manifests::{Pushed, push};
use crate::routes::sites_changed;

/// A new site answers.
pub const CREATE: Kind = Kind {
    name: "site.create",
    steps: &[
        step!("certificate", certificate, keep "it goes with the site"),
        step!("apply", apply, keep "the site stays, failed with the reason, off the edges"),
        step!("open", open, keep "the last step, one transaction"),
    ],
    failed,
    patience_ms: super::PATIENCE_MS,
};

/// The site that an operation works on.
pub(super) async fn site_of(work: &Work) -> Outcome<Site> {
    let id: SiteId = work.param("site")?;
    work.control
        .store
        .sites()
        .find(id)
        .await?
        .filter(|site| !site.state.is_leaving())
        .ok_or_else(|| Trouble::stop("the site was deleted meanwhile", "Nothing is left to do."))
}

pub(super) async fn certificate(work: &mut Work) -> Outcome<()> {
    let site = site_of(work).await?;
    let aliases = work.control.store.sites().aliases_of(site.id).await?;
    for name in std::iter::once(&site.domain).chain(&aliases) {
        ensure_certificate(&work.control, name.as_str()).await?;
    }
    Ok(())
}

/// A certificate is made anew when it ends within this time.
const RENEW_BEFORE_MS: i64 = 30 * 24 * 3_600_000;

/// The host name has a certificate that lasts for a while.
pub async fn ensure_certificate(control: &Control, host: &str) -> Outcome<bool> {
    let filter = SiteCertificateFilter {
        host: Some(host.to_owned()),
    };
    let kept = control.store.certificates().find_by(&filter).await?;
    let now = now_ms();
    if kept
        .as_ref()
        .is_some_and(|kept| kept.expires_at > now + RENEW_BEFORE_MS)
    {
        return Ok(false);
    }
    let issued = control
        .sites_authority
        .issue_site(&[host], now_utc())
        .map_err(|error| {
            Trouble::stop(crate::refusal::chain(&error), "Look at the log of control.")
        })?;
    let certificate = SiteCertificate {
        id: kept.as_ref().map_or_else(new_id, |kept| kept.id),
        version: kept.as_ref().map_or(1, |kept| kept.version),
        created_at: now,
        updated_at: now,
        host: host.to_owned(),
        chain_pem: issued.chain,
        encrypted_key: control
            .secrets
            .seal(&format!("certificate/{host}"), issued.key.as_bytes()),
        expires_at: issued.expires_unix_s * 1000,
    };
    let written = match kept {
        None => control.store.certificates().insert(&certificate).await,
        Some(_) => control
            .store
            .certificates()
            .update(&certificate, now)
            .await
            .map(drop),
    };
    match written {
        // Another instance made it at the same time.
        Err(StoreError::Taken { .. } | StoreError::Stale { .. }) => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

pub(super) async fn apply(work: &mut Work) -> Outcome<()> {
    let site = site_of(work).await?;
    let version: u64 = work.param("manifest_version")?;
    apply_version(work, site.server, version, true).await?;
    applied_well(work, version).await
}

/// The server runs at least this version; `must` says that later is not good enough.
pub(super) async fn apply_version(
    work: &mut Work,
    server: ServerId,
    version: u64,
    must: bool,
) -> Outcome<()> {
    match push(&work.control, server, version).await? {
        Pushed::Applied => Ok(()),
        Pushed::Later if !must => {
            work.progress("the server is not up; it gets this when it starts")
                .await
        }
        Pushed::Later => Err(Trouble::wait(
            "the server is not up",
            "Start the server; the site follows by itself.",
        )),
    }
}

/// The server applied the site under this version, or said why not.
pub(super) async fn applied_well(work: &mut Work, version: u64) -> Outcome<()> {
    let site = site_of(work).await?;
    if site.applied_version >= version {
        return Ok(());
    }
    Err(Trouble::stop(
        site.error
            .unwrap_or_else(|| "the server gave no reason".to_owned()),
        "Change the site's settings, then retry it.",
    ))
}

pub(super) async fn open(work: &mut Work) -> Outcome<()> {
    let id = site_of(work).await?.id;
    let tx = work.control.store.begin().await?;
    let mut site = tx.sites().lock(id).await?;
    match site.state {
        state if state.is_leaving() => return Ok(()),
        SiteState::Suspended => {}
        _ => site.state = SiteState::Active,
    }
    site.error = None;
    let site = tx.sites().update(&site, now_ms()).await?;
    sites_changed(&tx, std::slice::from_ref(&site)).await?;
    let data = json!({"domain": site.domain, "state": site.state});
    let event = event_of(
        &format!("site.{}", site.state),
        site.id.uuid(),
        Some(site.account),
        data,
    );
    tx.events().announce(vec![event]).await?;
    tx.commit().await?;
    Ok(())
}

pub(super) fn failed(work: &mut Work, detail: String) -> BoxFuture<'_, Outcome<()>> {
    Box::pin(async move {
        let id: SiteId = work.param("site")?;
        let tx = work.control.store.begin().await?;
        let Some(_) = tx.sites().find(id).await? else {
            return Ok(());
        };
        let mut site = tx.sites().lock(id).await?;
        if site.state == SiteState::Deleted {
            // What was under way when it was deleted is begun anew when that is undone.
            return Ok(());
        }
        if site.state != SiteState::Deleting {
            site.state = SiteState::Failed;
        }
        site.error = Some(detail.clone());
        let site = tx.sites().update(&site, now_ms()).await?;
        sites_changed(&tx, std::slice::from_ref(&site)).await?;
        let data = json!({"domain": site.domain, "error": detail});
        tx.events()
            .announce(vec![event_of(
                "site.failed",
                id.uuid(),
                Some(site.account),
                data,
            )])
            .await?;
        tx.commit().await?;
        Ok(())
    })
}
