//! Deleting sites: off at once, and gone after a day in which that can be undone; or gone at once.

use serde_json::json;
use undine_api::public::SiteOperation;
use undine_model::SiteId;
use undine_model::lifecycle::SiteState;
use undine_store::{Db, ManifestChange, Operation, Site, SiteFilter, StoreError, Tx};

use super::caller::{Caller, Expected};
use super::operations;
use super::site_change::operate;
use super::sites::{reach, show};
use crate::clock::now_ms;
use crate::control::Control;
use crate::operations::wake;
use crate::refusal::{Refusal, Result};
use crate::routes::sites_changed;

/// For so long a deletion can be undone.
pub const UNDO_MS: i64 = 24 * 3_600_000;

/// Deletes a site. Visitors do not reach it from this moment on; its files and databases stay for
/// a day, unless it is to be gone for good or never answered anybody.
pub async fn delete(
    control: &Control,
    caller: &Caller,
    id: SiteId,
    expected: Expected,
    for_good: bool,
) -> Result<SiteOperation> {
    let site = reach(control, caller, id).await?;
    expected.check("site", site.version)?;
    let tx = control.store.begin().await?;
    let site = tx.sites().lock(id).await?;
    expected.check("site", site.version)?;
    if site.state == SiteState::Deleted && !for_good {
        return Err(Refusal::conflict(
            "wrong-state",
            "It is deleted already",
            "The site was deleted; it is kept for a day.",
        )
        .remedy("Restore it, or delete it for good."));
    }
    let reason = format!("asked for by {}", caller.who());
    let (site, operation) = if for_good || !has_answered(&site) {
        remove(&tx, site, reason).await?
    } else {
        take_down(&tx, site, now_ms(), reason).await?
    };
    let data = json!({"domain": site.domain, "until": site.gone_at});
    finish(control, caller, tx, "site.delete", site, operation, data).await
}

/// Undoes a deletion: the site is what it was before.
pub async fn restore(
    control: &Control,
    caller: &Caller,
    id: SiteId,
    expected: Expected,
) -> Result<SiteOperation> {
    let site = reach(control, caller, id).await?;
    expected.check("site", site.version)?;
    let tx = control.store.begin().await?;
    let mut site = tx.sites().lock(id).await?;
    expected.check("site", site.version)?;
    if site.state != SiteState::Deleted {
        let why = match site.state {
            SiteState::Deleting => "Its day is over: it is being removed.".to_owned(),
            other => format!("The site is {other}; nothing is to be undone."),
        };
        return Err(Refusal::conflict(
            "wrong-state",
            "Nothing can be undone",
            why,
        ));
    }
    site.state = site.state_before.take().unwrap_or(SiteState::Active);
    site.gone_at = None;
    let site = tx.sites().update(&site, now_ms()).await?;
    sites_changed(&tx, std::slice::from_ref(&site)).await?;
    let changes = [ManifestChange::Site(id)];
    let version = tx.manifests().changed(site.server, &changes).await?;
    let reason = format!("asked for by {}", caller.who());
    let operation = operate(&tx, "site.update", &site, version, reason).await?;
    let data = json!({"domain": site.domain});
    finish(control, caller, tx, "site.restore", site, operation, data).await
}

async fn finish(
    control: &Control,
    caller: &Caller,
    tx: Tx,
    action: &str,
    site: Site,
    operation: Operation,
    data: serde_json::Value,
) -> Result<SiteOperation> {
    let (subject, account) = (format!("site/{}", site.id), site.account);
    caller
        .did(&tx, action, subject, Some(account), data)
        .await?;
    let shown = SiteOperation {
        site: show(&tx, site).await?,
        operation: operations::show(&tx, operation).await?,
    };
    tx.commit().await?;
    wake(control);
    Ok(shown)
}

/// One that never did has nothing to be kept.
fn has_answered(site: &Site) -> bool {
    match site.state {
        SiteState::Creating | SiteState::Deleted | SiteState::Deleting => false,
        SiteState::Active | SiteState::Suspended | SiteState::Failed => site.applied_version > 0,
    }
}

async fn take_down(tx: &Tx, mut site: Site, now: i64, reason: String) -> Result<(Site, Operation)> {
    site.state_before = Some(site.state);
    site.state = SiteState::Deleted;
    site.gone_at = Some(now + UNDO_MS);
    let site = tx.sites().update(&site, now).await?;
    sites_changed(tx, std::slice::from_ref(&site)).await?;
    let changes = [ManifestChange::Site(site.id)];
    let version = tx.manifests().changed(site.server, &changes).await?;
    let operation = operate(tx, "site.take_down", &site, version, reason).await?;
    Ok((site, operation))
}

/// Removes it with its content, its databases and its releases.
async fn remove(tx: &Tx, mut site: Site, reason: String) -> Result<(Site, Operation)> {
    site.state = SiteState::Deleting;
    site.gone_at = None;
    let site = tx.sites().update(&site, now_ms()).await?;
    sites_changed(tx, std::slice::from_ref(&site)).await?;
    let mut changes = vec![ManifestChange::Site(site.id)];
    let filter = undine_store::DatabaseFilter {
        site: Some(site.id),
        ..Default::default()
    };
    for mut database in tx.databases().all(&filter).await? {
        changes.push(ManifestChange::Database(database.id));
        database.encrypted_password.clear();
        tx.databases().update(&database, now_ms()).await?;
    }
    let version = tx.manifests().changed(site.server, &changes).await?;
    let operation = operate(tx, "site.delete", &site, version, reason).await?;
    Ok((site, operation))
}

/// Removes the sites whose day is over at this time; answers how many. Of many instances that do
/// so at once, one removes each.
pub async fn remove_due(control: &Control, now: i64) -> Result<usize> {
    let filter = SiteFilter {
        state: Some(SiteState::Deleted),
        ..SiteFilter::default()
    };
    let is_due = |site: &Site| {
        site.state == SiteState::Deleted && site.gone_at.is_none_or(|gone_at| gone_at <= now)
    };
    let mut removed = 0;
    for site in control.store.sites().all(&filter).await? {
        if !is_due(&site) {
            continue;
        }
        let tx = control.store.begin().await?;
        let site = match tx.sites().lock(site.id).await {
            Ok(site) if is_due(&site) => site,
            Ok(_) | Err(StoreError::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let reason = "it was deleted a day ago".to_owned();
        remove(&tx, site, reason).await?;
        tx.commit().await?;
        wake(control);
        removed += 1;
    }
    Ok(removed)
}
