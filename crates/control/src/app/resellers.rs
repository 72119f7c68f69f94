//! Resellers: who sells hosting on, and the limits that hold for all their plans and accounts.

use serde_json::json;
use undine_api::public::{
    CreateReseller, List, Reseller, ResellerLimits, ResellerState, ResellerUse, UpdateReseller,
};
use undine_model::{ResellerId, Slug};
use undine_store::ResellerState as Kept;
use undine_store::{AccountFilter, Db, PersonFilter, PlanFilter, ResellerFilter, TokenFilter, Tx};

use super::caller::{Caller, Expected};
use super::paging::PageWish;
use super::plans;
use super::reseller_limits::beyond;
use crate::clock::{new_id, now_ms};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// The limits of a reseller.
pub fn limits_of(reseller: &undine_store::Reseller) -> ResellerLimits {
    // Checked when it was written; limits that cannot be read allow nothing.
    serde_json::from_value(reseller.limits.clone()).unwrap_or(ResellerLimits {
        accounts: 0,
        sites: 0,
        databases: 0,
        site: plans::NOTHING,
    })
}

/// What its accounts have together.
pub(super) async fn uses_of(db: &impl Db, id: ResellerId) -> Result<ResellerUse> {
    let accounts = AccountFilter {
        reseller: Some(id),
        ..AccountFilter::default()
    };
    Ok(ResellerUse {
        accounts: db.accounts().count(&accounts).await? as u32,
        sites: db.resellers().sites_of(id).await? as u32,
        databases: db.resellers().databases_of(id).await? as u32,
    })
}

pub(super) async fn show(db: &impl Db, reseller: undine_store::Reseller) -> Result<Reseller> {
    Ok(Reseller {
        limits: limits_of(&reseller),
        uses: uses_of(db, reseller.id).await?,
        id: reseller.id,
        name: reseller.name,
        state: match reseller.state {
            Kept::Active => ResellerState::Active,
            Kept::Suspended => ResellerState::Suspended,
            Kept::SuspendedWithCustomers => ResellerState::SuspendedWithCustomers,
        },
        created_at: reseller.created_at,
        version: reseller.version,
    })
}

/// One page of the resellers that the caller may see: the provider all, a reseller itself.
pub async fn all(
    control: &Control,
    caller: &Caller,
    wish: &PageWish,
    name: Option<Slug>,
) -> Result<List<Reseller>> {
    if let Some(own) = caller.reseller() {
        let own = get(control, caller, own).await?;
        let items = Some(own).filter(|own| name.is_none_or(|name| name == own.name));
        return Ok(List {
            items: items.into_iter().collect(),
            next: None,
        });
    }
    let filter = ResellerFilter {
        name,
        ..ResellerFilter::default()
    };
    let page = wish.request(false)?;
    let page = control.store.resellers().list(&filter, page).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for reseller in page.items {
        items.push(show(&control.store, reseller).await?);
    }
    Ok(List {
        items,
        next: page.next.map(|id| id.to_string()),
    })
}

/// The reseller, if the caller may know of it.
pub async fn reach(
    control: &Control,
    caller: &Caller,
    id: ResellerId,
) -> Result<undine_store::Reseller> {
    match control.store.resellers().find(id).await? {
        Some(found) if caller.is_provider() || caller.reseller() == Some(id) => Ok(found),
        Some(_) => Err(caller.stranger(control, "reseller", &id.to_string()).await),
        None => Err(Refusal::not_found("reseller", &id.to_string())),
    }
}

/// One reseller.
pub async fn get(control: &Control, caller: &Caller, id: ResellerId) -> Result<Reseller> {
    let found = reach(control, caller, id).await?;
    show(&control.store, found).await
}

/// The reseller that a request means: the named one, or the one that the caller acts for.
pub async fn meant(
    control: &Control,
    caller: &Caller,
    named: Option<&str>,
) -> Result<Option<ResellerId>> {
    let Some(text) = named else {
        return Ok(caller.reseller());
    };
    let id = match text.parse::<ResellerId>() {
        Ok(id) => Some(id),
        Err(_) => match text.parse() {
            Ok(name) => {
                let filter = ResellerFilter {
                    name: Some(name),
                    ..ResellerFilter::default()
                };
                let found = control.store.resellers().find_by(&filter).await?;
                found.map(|found| found.id)
            }
            Err(_) => None,
        },
    };
    let Some(id) = id else {
        return Err(Refusal::not_found("reseller", text).field("reseller"));
    };
    Ok(Some(reach(control, caller, id).await?.id))
}

/// Makes a reseller.
pub async fn create(control: &Control, caller: &Caller, wish: CreateReseller) -> Result<Reseller> {
    plans::check_caps(&wish.limits.site)?;
    let now = now_ms();
    let reseller = undine_store::Reseller {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        name: wish.name,
        limits: json!(wish.limits),
        brand: None,
        host: None,
        state: Kept::Active,
    };
    let tx = control.store.begin().await?;
    tx.resellers().insert(&reseller).await?;
    let subject = format!("reseller/{}", reseller.id);
    let data = json!({"name": reseller.name});
    caller
        .did_for(&tx, "reseller.create", subject, Some(reseller.id), data)
        .await?;
    tx.commit().await?;
    show(&control.store, reseller).await
}

/// Changes a reseller's limits; not below what it has and what its plans promise.
pub async fn update(
    control: &Control,
    caller: &Caller,
    id: ResellerId,
    expected: Expected,
    wish: UpdateReseller,
) -> Result<Reseller> {
    plans::check_caps(&wish.limits.site)?;
    let tx = control.store.begin().await?;
    let mut reseller = tx.resellers().lock(id).await?;
    expected.check("reseller", reseller.version)?;
    not_below(&tx, &reseller, &wish.limits).await?;
    reseller.limits = json!(wish.limits);
    let reseller = tx.resellers().update(&reseller, now_ms()).await?;
    let data = reseller.limits.clone();
    caller
        .did_for(
            &tx,
            "reseller.update",
            format!("reseller/{id}"),
            Some(id),
            data,
        )
        .await?;
    tx.commit().await?;
    show(&control.store, reseller).await
}

async fn not_below(
    tx: &Tx,
    reseller: &undine_store::Reseller,
    limits: &ResellerLimits,
) -> Result<()> {
    let uses = uses_of(tx, reseller.id).await?;
    for (field, has, most) in [
        ("accounts", uses.accounts, limits.accounts),
        ("sites", uses.sites, limits.sites),
        ("databases", uses.databases, limits.databases),
    ] {
        if has > most {
            return Err(Refusal::conflict(
                "in-use",
                "It has more already",
                format!("{} has {has} {field}, more than {most}.", reseller.name),
            )
            .field(&format!("limits.{field}")));
        }
    }
    let filter = PlanFilter {
        reseller: Some(reseller.id),
        ..PlanFilter::default()
    };
    for plan in tx.plans().all(&filter).await? {
        if let Some((field, most)) = beyond(limits, &plans::limits_of(&plan)) {
            return Err(Refusal::conflict(
                "in-use",
                "A plan of its own allows more",
                format!("The plan {} goes beyond {most} of {field}.", plan.name),
            )
            .field(&format!("limits.{field}"))
            .remedy("Make that plan smaller first."));
        }
    }
    Ok(())
}

/// Its people, its tokens and its logo go with it.
async fn forget_what_is_its_own(tx: &Tx, id: ResellerId) -> Result<()> {
    let people = PersonFilter {
        reseller: Some(id),
        ..PersonFilter::default()
    };
    for person in tx.people().all(&people).await? {
        tx.people().delete(person.id, None).await?;
    }
    let tokens = TokenFilter {
        reseller: Some(id),
        ..TokenFilter::default()
    };
    for token in tx.tokens().all(&tokens).await? {
        super::tokens::forget(tx, token.id).await?;
    }
    let logo = super::brand::logo_key(Some(id));
    Ok(tx.settings().remove(&logo).await?)
}

/// Removes a reseller that has neither accounts nor plans any more, with its people and tokens.
pub async fn delete(
    control: &Control,
    caller: &Caller,
    id: ResellerId,
    expected: Expected,
) -> Result<()> {
    let tx = control.store.begin().await?;
    let reseller = tx.resellers().lock(id).await?;
    expected.check("reseller", reseller.version)?;
    let plans = PlanFilter {
        reseller: Some(id),
        ..PlanFilter::default()
    };
    let (accounts, plans) = (
        uses_of(&tx, id).await?.accounts,
        tx.plans().count(&plans).await?,
    );
    if u64::from(accounts) + plans > 0 {
        return Err(Refusal::conflict(
            "in-use",
            "The reseller still has something",
            format!(
                "{} still has {accounts} accounts and {plans} plans.",
                reseller.name
            ),
        )
        .remedy("Put its accounts on plans of yours, and delete its plans."));
    }
    forget_what_is_its_own(&tx, id).await?;
    tx.resellers().delete(id, Some(reseller.version)).await?;
    let data = json!({"name": reseller.name});
    caller
        .did(&tx, "reseller.delete", format!("reseller/{id}"), None, data)
        .await?;
    tx.commit().await?;
    Ok(())
}
