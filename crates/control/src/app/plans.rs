//! Plans: the limits of accounts.

use serde_json::json;
use undine_api::public::{CreatePlan, List, Plan, PlanLimits, UpdatePlan};
use undine_manifest::Caps;
use undine_model::{Bytes, PlanId, ResellerId};
use undine_store::{AccountFilter, Db, ManifestChange, PlanFilter, Site, SiteFilter, Tx};

use super::caller::{Caller, Expected};
use super::paging::{PageWish, list};
use super::{reseller_limits, resellers};
use crate::clock::{new_id, now_ms};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// The limits of a plan.
pub fn limits_of(plan: &undine_store::Plan) -> PlanLimits {
    // Checked when it was written; a plan that cannot be read allows nothing.
    serde_json::from_value(plan.limits.clone()).unwrap_or(PlanLimits {
        sites: 0,
        databases: 0,
        site: NOTHING,
    })
}

/// The share of a site that has none.
pub const NOTHING: Caps = Caps {
    cpu: undine_model::MilliCpu(0),
    memory: Bytes(0),
    processes: 0,
    io_bytes_per_s: Bytes(0),
    iops: 0,
    disk: Bytes(0),
    inodes: 0,
};

/// A plan as the API shows it.
pub fn show(plan: undine_store::Plan) -> Plan {
    Plan {
        limits: limits_of(&plan),
        id: plan.id,
        name: plan.name,
        reseller: plan.reseller,
        created_at: plan.created_at,
        version: plan.version,
    }
}

/// Refuses a share that no site can live on.
pub fn check_caps(caps: &Caps) -> Result<()> {
    let low = |field: &str, least: &str| {
        Err(Refusal::invalid(
            &format!("limits.site.{field}"),
            format!("A site needs at least {least}."),
        ))
    };
    match caps {
        _ if caps.cpu.0 < 10 => low("cpu", "10 thousandths of a CPU"),
        _ if caps.memory.0 < 16 << 20 => low("memory", "16 MiB"),
        _ if caps.processes < 4 => low("processes", "4 processes"),
        _ if caps.io_bytes_per_s.0 < 64 << 10 => low("io_bytes_per_s", "64 KiB a second"),
        _ if caps.iops < 10 => low("iops", "10 operations a second"),
        _ if caps.disk.0 < 1 << 20 => low("disk", "1 MiB"),
        _ if caps.inodes < 100 => low("inodes", "100 files and folders"),
        _ => Ok(()),
    }
}

/// Whose plans the caller sees: everybody's, or only those of one seller.
enum Whose {
    Everybody,
    Only(Option<ResellerId>),
}

/// A customer sees the plans of whoever sells to it.
async fn whose(control: &Control, caller: &Caller) -> Result<Whose> {
    if caller.is_provider() {
        return Ok(Whose::Everybody);
    }
    if caller.reseller().is_some() {
        return Ok(Whose::Only(caller.reseller()));
    }
    let account = match caller.token.account {
        Some(account) => control.store.accounts().find(account).await?,
        None => None,
    };
    Ok(Whose::Only(account.and_then(|account| account.reseller)))
}

/// One page of the plans that the caller may see.
pub async fn all(control: &Control, caller: &Caller, wish: &PageWish) -> Result<List<Plan>> {
    let plans = control.store.plans();
    let request = wish.request(false)?;
    let page = match whose(control, caller).await? {
        Whose::Everybody => plans.list(&PlanFilter::default(), request).await?,
        Whose::Only(Some(reseller)) => {
            let filter = PlanFilter {
                reseller: Some(reseller),
                ..PlanFilter::default()
            };
            plans.list(&filter, request).await?
        }
        Whose::Only(None) => plans.of_the_provider(request).await?,
    };
    Ok(list(page, show))
}

/// The plan, if the caller may know of it.
async fn reach(control: &Control, caller: &Caller, id: PlanId) -> Result<undine_store::Plan> {
    let plan = control.store.plans().find(id).await?;
    let Some(plan) = plan else {
        return Err(Refusal::not_found("plan", &id.to_string()));
    };
    match whose(control, caller).await? {
        Whose::Only(of) if of != plan.reseller => {
            Err(caller.stranger(control, "plan", &id.to_string()).await)
        }
        _ => Ok(plan),
    }
}

/// One plan.
pub async fn get(control: &Control, caller: &Caller, id: PlanId) -> Result<Plan> {
    Ok(show(reach(control, caller, id).await?))
}

/// The plan with this id or name, if the caller may put accounts on it.
pub async fn named(control: &Control, caller: &Caller, text: &str) -> Result<undine_store::Plan> {
    let found = match text.parse::<PlanId>() {
        Ok(id) => control.store.plans().find(id).await?,
        Err(_) => match text.parse() {
            Ok(name) => {
                control
                    .store
                    .plans()
                    .find_by(&PlanFilter {
                        name: Some(name),
                        ..PlanFilter::default()
                    })
                    .await?
            }
            Err(_) => None,
        },
    };
    found
        .filter(|plan| caller.is_provider() || plan.reseller == caller.reseller())
        .ok_or_else(|| Refusal::invalid("plan", format!("There is no plan `{text:.60}`.")))
}

/// Makes a plan.
pub async fn create(control: &Control, caller: &Caller, wish: CreatePlan) -> Result<Plan> {
    check_caps(&wish.limits.site)?;
    let reseller = resellers::meant(control, caller, wish.reseller.as_deref()).await?;
    let now = now_ms();
    let plan = undine_store::Plan {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        name: wish.name,
        limits: json!(wish.limits),
        reseller,
    };
    let tx = control.store.begin().await?;
    if let Some(reseller) = reseller {
        reseller_limits::allows_plan(&tx, reseller, &wish.limits).await?;
    }
    tx.plans().insert(&plan).await?;
    let (subject, data) = (format!("plan/{}", plan.id), json!({"name": plan.name}));
    caller
        .did_for(&tx, "plan.create", subject, plan.reseller, data)
        .await?;
    tx.commit().await?;
    Ok(show(plan))
}

/// The plan that every cluster begins with.
pub async fn make_standard(store: &undine_store::Store) -> anyhow::Result<()> {
    let limits = PlanLimits {
        sites: 100,
        databases: 100,
        site: Caps {
            cpu: undine_model::MilliCpu(1_000),
            memory: Bytes::mib(256),
            processes: 100,
            io_bytes_per_s: Bytes::mib(100),
            iops: 5_000,
            disk: Bytes::gib(1),
            inodes: 100_000,
        },
    };
    let now = now_ms();
    let plan = undine_store::Plan {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        name: "standard".parse()?,
        limits: json!(limits),
        reseller: None,
    };
    Ok(store.plans().insert(&plan).await?)
}

/// Changes a plan; its sites get their new limits with the next push to their servers.
pub async fn update(
    control: &Control,
    caller: &Caller,
    id: PlanId,
    expected: Expected,
    wish: UpdatePlan,
) -> Result<Plan> {
    check_caps(&wish.limits.site)?;
    reach(control, caller, id).await?;
    let tx = control.store.begin().await?;
    let mut plan = tx.plans().lock(id).await?;
    expected.check("plan", plan.version)?;
    if let Some(reseller) = plan.reseller {
        reseller_limits::allows_plan(&tx, reseller, &wish.limits).await?;
    }
    plan.limits = json!(wish.limits);
    let plan = tx.plans().update(&plan, now_ms()).await?;
    for account in tx
        .accounts()
        .all(&AccountFilter {
            plan: Some(id),
            ..AccountFilter::default()
        })
        .await?
    {
        sites_change(&tx, account.id).await?;
    }
    let (subject, data) = (format!("plan/{id}"), plan.limits.clone());
    caller
        .did_for(&tx, "plan.update", subject, plan.reseller, data)
        .await?;
    tx.commit().await?;
    Ok(show(plan))
}

/// All sites of an account are to be sent to their servers anew.
pub async fn sites_change(tx: &Tx, account: undine_model::AccountId) -> Result<()> {
    let filter = SiteFilter {
        account: Some(account),
        ..SiteFilter::default()
    };
    tell_servers(tx, &tx.sites().all(&filter).await?).await
}

/// These sites are to be sent to their servers anew.
pub async fn tell_servers(tx: &Tx, sites: &[Site]) -> Result<()> {
    let mut by_server: std::collections::BTreeMap<_, Vec<ManifestChange>> = Default::default();
    for site in sites {
        by_server
            .entry(site.server)
            .or_default()
            .push(ManifestChange::Site(site.id));
    }
    for (server, changes) in &by_server {
        tx.manifests().changed(*server, changes).await?;
    }
    Ok(())
}

/// Removes a plan that no account is on.
pub async fn delete(
    control: &Control,
    caller: &Caller,
    id: PlanId,
    expected: Expected,
) -> Result<()> {
    reach(control, caller, id).await?;
    let tx = control.store.begin().await?;
    let plan = tx.plans().lock(id).await?;
    expected.check("plan", plan.version)?;
    tx.plans().delete(id, Some(plan.version)).await?;
    let (subject, data) = (format!("plan/{id}"), json!({"name": plan.name}));
    caller
        .did_for(&tx, "plan.delete", subject, plan.reseller, data)
        .await?;
    tx.commit().await?;
    Ok(())
}
