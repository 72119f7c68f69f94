//! Changing sites: names, runtime, settings, suspension; trying again.

use serde_json::json;
use undine_api::public::{SiteOperation, UpdateSite};
use undine_model::SiteId;
use undine_model::lifecycle::SiteState;
use undine_store::{Db, ManifestChange, Tx};

use super::caller::{Caller, Expected};
use super::operations;
use super::site_create::{check_names, check_runtime, check_settings, free_names};
use super::sites::{reach, show};
use crate::clock::now_ms;
use crate::control::Control;
use crate::manifests::settings_of;
use crate::operations::{NewOperation, start, wake};
use crate::refusal::{Refusal, Result};
use crate::routes::sites_changed;

/// What is done to a site's record.
enum Change {
    Update(UpdateSite),
    Suspend,
    Unsuspend,
    Retry,
}

impl Change {
    const fn action(&self) -> &'static str {
        match self {
            Self::Update(_) => "site.update",
            Self::Suspend => "site.suspend",
            Self::Unsuspend => "site.unsuspend",
            Self::Retry => "site.retry",
        }
    }
}

/// Changes names, runtime or settings.
pub async fn update(
    control: &Control,
    caller: &Caller,
    id: SiteId,
    expected: Expected,
    wish: UpdateSite,
) -> Result<SiteOperation> {
    change(control, caller, id, expected, Change::Update(wish)).await
}

/// Shows visitors the page for suspended sites, or ends that.
pub async fn set_suspended(
    control: &Control,
    caller: &Caller,
    id: SiteId,
    expected: Expected,
    suspended: bool,
) -> Result<SiteOperation> {
    let what = if suspended {
        Change::Suspend
    } else {
        Change::Unsuspend
    };
    change(control, caller, id, expected, what).await
}

/// Tries a failed site again.
pub async fn retry(
    control: &Control,
    caller: &Caller,
    id: SiteId,
    expected: Expected,
) -> Result<SiteOperation> {
    change(control, caller, id, expected, Change::Retry).await
}

async fn change(
    control: &Control,
    caller: &Caller,
    id: SiteId,
    expected: Expected,
    what: Change,
) -> Result<SiteOperation> {
    let site = reach(control, caller, id).await?;
    expected.check("site", site.version)?;
    if let Change::Update(wish) = &what {
        check_names(
            control,
            &site.domain,
            wish.aliases.as_deref().unwrap_or_default(),
        )?;
        check_settings(wish.settings.as_ref().unwrap_or(&settings_of(&site)))?;
        if let Some(runtime) = &wish.runtime {
            let server = control.store.servers().get(site.server).await?;
            check_runtime(control, &server, runtime).await?;
        }
    }
    let tx = control.store.begin().await?;
    let mut site = tx.sites().lock(id).await?;
    expected.check("site", site.version)?;
    not_going(&site)?;
    let before = tx.sites().aliases_of(id).await?;
    apply(&mut site, &what)?;
    let mut site = tx.sites().update(&site, now_ms()).await?;
    if let Change::Update(UpdateSite {
        aliases: Some(aliases),
        ..
    }) = &what
    {
        for alias in aliases.iter().filter(|alias| !before.contains(alias)) {
            free_names(&tx, alias, &[])
                .await
                .map_err(|r| r.field("aliases"))?;
        }
        site = tx
            .sites()
            .set_names(id, site.version, &site.domain, aliases, now_ms())
            .await?;
        tx.routes()
            .changed(before.iter().map(ToString::to_string))
            .await?;
    }
    sites_changed(&tx, std::slice::from_ref(&site)).await?;
    let version = tx
        .manifests()
        .changed(site.server, &[ManifestChange::Site(id)])
        .await?;
    let reason = format!("asked for by {}", caller.who());
    let operation = operate(&tx, "site.update", &site, version, reason).await?;
    caller
        .did(
            &tx,
            what.action(),
            format!("site/{id}"),
            Some(site.account),
            json!({"domain": site.domain}),
        )
        .await?;
    let shown = SiteOperation {
        site: show(&tx, site).await?,
        operation: operations::show(&tx, operation).await?,
    };
    tx.commit().await?;
    wake(control);
    Ok(shown)
}

fn apply(site: &mut undine_store::Site, what: &Change) -> Result<()> {
    match what {
        Change::Update(wish) => {
            if let Some(runtime) = &wish.runtime {
                site.runtime = runtime.clone();
            }
            if let Some(settings) = &wish.settings {
                site.settings = json!(settings);
            }
        }
        Change::Suspend => site.state = SiteState::Suspended,
        Change::Unsuspend if site.state == SiteState::Suspended => site.state = SiteState::Active,
        Change::Unsuspend => {}
        Change::Retry if site.state == SiteState::Failed => site.error = None,
        Change::Retry => {
            return Err(Refusal::conflict(
                "wrong-state",
                "Nothing to try again",
                format!(
                    "The site is {}; only a failed one can be tried again.",
                    site.state
                ),
            ));
        }
    }
    Ok(())
}

/// Refuses to change what was deleted.
pub fn not_going(site: &undine_store::Site) -> Result<()> {
    let (why, remedy) = match site.state {
        SiteState::Deleting => (
            "The site is being deleted.",
            "Make a new one when it is gone.",
        ),
        SiteState::Deleted => ("The site was deleted.", "Restore it first."),
        _ => return Ok(()),
    };
    Err(Refusal::conflict("wrong-state", "The site is on its way out", why).remedy(remedy))
}

/// Makes the operation that has a site's server run this version.
pub(super) async fn operate(
    tx: &Tx,
    kind: &str,
    site: &undine_store::Site,
    version: u64,
    reason: String,
) -> Result<undine_store::Operation> {
    start(
        tx,
        NewOperation {
            kind,
            subjects: vec![site.id.uuid(), site.server.uuid()],
            account: Some(site.account),
            params: json!({"site": site.id, "server": site.server, "manifest_version": version}),
            reason,
        },
    )
    .await
}
