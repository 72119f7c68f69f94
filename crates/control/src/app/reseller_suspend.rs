//! Suspending a reseller: its people and tokens look and change nothing, and its customers' sites
//! show the page for suspended sites when that is wished. What an account is itself stays written
//! in the account alone, so the end of it brings back exactly what it took.

use serde_json::json;
use undine_api::public::Reseller;
use undine_model::{ResellerId, Slug};
use undine_store::{
    Account, AccountFilter, Db, LoginFilter, PersonFilter, ResellerState, SiteFilter, StoreError,
    Token, Tx,
};

use super::caller::{Caller, Expected};
use super::{plans, resellers};
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::{Refusal, Result};
use crate::routes::sites_changed;

/// The reseller that whoever has this token comes from: it acts for it, is one of its people, also
/// while they act for a customer, or has a token that it made for one.
pub fn behind(token: &Token) -> Option<ResellerId> {
    token.reseller.or(token.made_by)
}

/// The reseller's name, while it is suspended.
pub async fn stopped(db: &impl Db, id: Option<ResellerId>) -> Result<Option<Slug>> {
    let Some(id) = id else {
        return Ok(None);
    };
    let found = db.resellers().find(id).await?;
    let stopped = found.filter(|it| it.state != ResellerState::Active);
    Ok(stopped.map(|it| it.name))
}

/// What a change is refused with meanwhile.
pub fn refused(name: &Slug, made_for_a_customer: bool) -> Refusal {
    let (detail, remedy) = if made_for_a_customer {
        (
            format!("{name} made this token and is suspended: until that ends it changes nothing."),
            "Make a token of the account's own.",
        )
    } else {
        (
            format!("The provider has suspended {name}: you can look, and change nothing."),
            "Ask the provider.",
        )
    };
    let title = "The reseller is suspended";
    Refusal::of(403, "reseller-suspended", title, detail).remedy(remedy)
}

/// Is the account suspended with its reseller?
pub async fn takes(db: &impl Db, account: &Account) -> undine_store::Result<bool> {
    let Some(id) = account.reseller else {
        return Ok(false);
    };
    let found = db.resellers().find(id).await?;
    Ok(found.is_some_and(|it| it.state == ResellerState::SuspendedWithCustomers))
}

/// Do the account's sites show the page for suspended sites?
pub async fn is_off(db: &impl Db, account: &Account) -> undine_store::Result<bool> {
    Ok(account.state.is_suspended() || takes(db, account).await?)
}

/// Suspends a reseller, alone or with its customers, or ends that.
pub async fn set(
    control: &Control,
    caller: &Caller,
    id: ResellerId,
    expected: Expected,
    state: ResellerState,
) -> Result<Reseller> {
    let tx = control.store.begin().await?;
    let mut reseller = tx.resellers().lock(id).await?;
    expected.check("reseller", reseller.version)?;
    let took = |state| state == ResellerState::SuspendedWithCustomers;
    let customers_change = took(reseller.state) != took(state);
    reseller.state = state;
    let reseller = tx.resellers().update(&reseller, now_ms()).await?;
    if customers_change {
        customers_changed(&tx, id).await?;
    }
    let (action, data) = match state {
        ResellerState::Active => ("reseller.unsuspend", json!({})),
        _ => ("reseller.suspend", json!({"with_customers": took(state)})),
    };
    if state != ResellerState::Active {
        end_acting(&tx, caller, id).await?;
    }
    let subject = format!("reseller/{id}");
    caller.did_for(&tx, action, subject, Some(id), data).await?;
    tx.commit().await?;
    resellers::show(&control.store, reseller).await
}

/// Edges and servers are to hear of every site of its customers. Also of those that are suspended
/// themselves: one of them may be ended right now by somebody who does not see this yet.
async fn customers_changed(tx: &Tx, id: ResellerId) -> Result<()> {
    let filter = AccountFilter {
        reseller: Some(id),
        ..AccountFilter::default()
    };
    let mut sites = Vec::new();
    for account in tx.accounts().all(&filter).await? {
        let filter = SiteFilter {
            account: Some(account.id),
            ..SiteFilter::default()
        };
        sites.extend(tx.sites().all(&filter).await?);
    }
    plans::tell_servers(tx, &sites).await?;
    Ok(sites_changed(tx, &sites).await?)
}

/// Whoever of its people acts for a customer stops, and does not go on when the suspension ends.
async fn end_acting(tx: &Tx, caller: &Caller, id: ResellerId) -> Result<()> {
    let people = PersonFilter {
        reseller: Some(id),
        ..PersonFilter::default()
    };
    for person in tx.people().all(&people).await? {
        let filter = LoginFilter {
            person: Some(person.id),
            ..LoginFilter::default()
        };
        let mut sessions = tx.sessions().all(&filter).await?;
        sessions.retain(|login| login.account.is_some() && login.expires_at > now_ms());
        for login in sessions {
            let mut login = match tx.sessions().lock(login.id).await {
                // Logged out this very moment.
                Err(StoreError::NotFound { .. }) => continue,
                locked => locked?,
            };
            let Some(account) = login.account.take() else {
                continue;
            };
            tx.sessions().update(&login, now_ms()).await?;
            let (subject, data) = (format!("account/{account}"), json!({"person": person.name}));
            caller
                .did(tx, "account.act_end", subject, Some(account), data)
                .await?;
        }
    }
    Ok(())
}
