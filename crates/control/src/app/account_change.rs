//! Changing accounts: another plan, suspended, gone.

use serde_json::json;
use undine_api::public::{Account, UpdateAccount};
use undine_model::AccountId;
use undine_store::{Db, Site, SiteFilter, TokenFilter, Tx};

use super::caller::{Caller, Expected};
use super::reseller_suspend::takes;
use super::{accounts, plans, reseller_limits, tokens};
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::{Refusal, Result};
use crate::routes::sites_changed;

/// Puts an account on another plan. It belongs to whoever has the plan: the provider moves it to
/// a reseller, or away, by this.
pub async fn update(
    control: &Control,
    caller: &Caller,
    id: AccountId,
    expected: Expected,
    wish: UpdateAccount,
) -> Result<Account> {
    accounts::reach(control, caller, id).await?;
    let plan = match &wish.plan {
        Some(text) => Some(plans::named(control, caller, text).await?),
        None => None,
    };
    let tx = control.store.begin().await?;
    let mut account = tx.accounts().lock(id).await?;
    expected.check("account", account.version)?;
    let was_sold_by = account.reseller;
    if let Some(plan) = plan
        && plan.id != account.plan
    {
        let uses = accounts::show(&tx, account.clone()).await?.uses;
        let limits = plans::limits_of(&plan);
        if uses.sites > limits.sites || uses.databases > limits.databases {
            return Err(Refusal::conflict(
                "plan-exceeded",
                "The plan is too small",
                format!(
                    "The account has {} sites and {} databases; the plan {} allows {} and {}.",
                    uses.sites, uses.databases, plan.name, limits.sites, limits.databases
                ),
            )
            .field("plan"));
        }
        if let Some(to) = plan.reseller.filter(|_| plan.reseller != account.reseller) {
            reseller_limits::allows_account(&tx, to, (uses.sites, uses.databases)).await?;
        }
        account.plan = plan.id;
        account.reseller = plan.reseller;
        plans::sites_change(&tx, id).await?;
    }
    if was_sold_by != account.reseller {
        // Another seller has other words for suspended sites, or is suspended with its customers.
        sites_changed(&tx, &sites_of(&tx, id).await?).await?;
    }
    let account = tx.accounts().update(&account, now_ms()).await?;
    if was_sold_by.is_some() && was_sold_by != account.reseller {
        // To whom it goes is nothing that its former seller is told.
        let (subject, data) = (format!("account/{id}"), json!({"name": account.name}));
        caller
            .did_for(&tx, "account.leave", subject, was_sold_by, data)
            .await?;
    }
    caller
        .did(
            &tx,
            "account.update",
            format!("account/{id}"),
            Some(id),
            json!({"plan": account.plan}),
        )
        .await?;
    tx.commit().await?;
    accounts::show(&control.store, account).await
}

async fn sites_of(tx: &Tx, id: AccountId) -> Result<Vec<Site>> {
    let filter = SiteFilter {
        account: Some(id),
        ..SiteFilter::default()
    };
    Ok(tx.sites().all(&filter).await?)
}

/// Suspends an account, or ends that: all its sites follow.
pub async fn set_suspended(
    control: &Control,
    caller: &Caller,
    id: AccountId,
    expected: Expected,
    suspended: bool,
) -> Result<Account> {
    use undine_store::AccountState as Kept;
    accounts::reach(control, caller, id).await?;
    let tx = control.store.begin().await?;
    let mut account = tx.accounts().lock(id).await?;
    expected.check("account", account.version)?;
    if account.state == Kept::Held && !caller.is_provider() {
        return Err(Refusal::forbidden(
            "The provider has suspended this account and alone ends that.",
        )
        .remedy("Ask the provider."));
    }
    if !suspended && account.state == Kept::Active && takes(&tx, &account).await? {
        return Err(Refusal::conflict(
            "reseller-suspended",
            "The reseller is suspended",
            "The account is suspended with its reseller, not itself.",
        )
        .remedy("End the reseller's suspension, or put the account on a plan of yours."));
    }
    account.state = match (suspended, caller.is_provider()) {
        (true, true) => Kept::Held,
        (true, false) => Kept::Suspended,
        (false, _) => Kept::Active,
    };
    let account = tx.accounts().update(&account, now_ms()).await?;
    plans::sites_change(&tx, id).await?;
    sites_changed(&tx, &sites_of(&tx, id).await?).await?;
    let action = if suspended {
        "account.suspend"
    } else {
        "account.unsuspend"
    };
    caller
        .did(&tx, action, format!("account/{id}"), Some(id), json!({}))
        .await?;
    tx.commit().await?;
    accounts::show(&control.store, account).await
}

/// Removes an account that has no sites any more, and its tokens.
pub async fn delete(
    control: &Control,
    caller: &Caller,
    id: AccountId,
    expected: Expected,
) -> Result<()> {
    accounts::reach(control, caller, id).await?;
    let tx = control.store.begin().await?;
    let account = tx.accounts().lock(id).await?;
    expected.check("account", account.version)?;
    let uses = accounts::show(&tx, account.clone()).await?.uses;
    if uses.sites + uses.databases > 0 {
        return Err(Refusal::conflict(
            "in-use",
            "The account still has something",
            format!(
                "{} still has {} sites and {} databases.",
                account.name, uses.sites, uses.databases
            ),
        )
        .remedy("Delete its sites first."));
    }
    for token in tx
        .tokens()
        .all(&TokenFilter {
            account: Some(id),
            ..TokenFilter::default()
        })
        .await?
    {
        tokens::forget(&tx, token.id).await?;
    }
    tx.accounts().delete(id, Some(account.version)).await?;
    let (subject, data) = (format!("account/{id}"), json!({"name": account.name}));
    caller
        .did_for(&tx, "account.delete", subject, account.reseller, data)
        .await?;
    tx.commit().await?;
    Ok(())
}
