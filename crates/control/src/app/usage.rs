//! What an account uses of what its plan allows.

use undine_api::public::PlanLimits;
use undine_model::{AccountId, Slug};
use undine_store::{Db, PageRequest, Resolution, SiteFilter};

use super::accounts;
use super::caller::Caller;
use super::plans::limits_of;
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::Result;

/// What one site uses of its share.
#[derive(Debug)]
pub struct SiteUse {
    /// Its domain.
    pub domain: String,
    /// Memory, in bytes, as last measured.
    pub memory: u64,
    /// Disk, in bytes, as last measured.
    pub disk: u64,
}

/// An account's plan beside its use.
#[derive(Debug)]
pub struct Usage {
    /// The account's name.
    pub account: Slug,
    /// The plan's name.
    pub plan: Slug,
    /// What the plan allows.
    pub limits: PlanLimits,
    /// Sites.
    pub sites: u32,
    /// Databases.
    pub databases: u32,
    /// Its sites, the first of them.
    pub each: Vec<SiteUse>,
}

/// So many sites are shown with what they use.
const SITES: u32 = 50;
/// Older figures say nothing of now.
const FRESH_MS: i64 = 15 * 60_000;

/// The plan and the use of an account that the caller may know of.
pub async fn of(control: &Control, caller: &Caller, id: AccountId) -> Result<Usage> {
    let account = accounts::get(control, caller, id).await?;
    let store = &control.store;
    let plan = store.plans().get(account.plan).await?;
    let filter = SiteFilter {
        account: Some(id),
        ..SiteFilter::default()
    };
    let page = store
        .sites()
        .list(&filter, PageRequest::first(SITES))
        .await?;
    let mut each = Vec::with_capacity(page.items.len());
    let now = now_ms();
    for site in page.items {
        let names = ["memory_bytes", "disk_bytes"];
        let series = store
            .metrics()
            .read(
                site.id.uuid(),
                &names,
                now - FRESH_MS,
                now + 1,
                Resolution::Fine,
            )
            .await?;
        let last = |name: &str| {
            let series = series.iter().find(|series| series.name == name);
            let point = series.and_then(|series| series.points.last());
            point.map_or(0, |point| point.value.max(0.0) as u64)
        };
        each.push(SiteUse {
            domain: site.domain.to_string(),
            memory: last("memory_bytes"),
            disk: last("disk_bytes"),
        });
    }
    Ok(Usage {
        account: account.name,
        limits: limits_of(&plan),
        plan: plan.name,
        sites: account.uses.sites,
        databases: account.uses.databases,
        each,
    })
}
