//! Accounts: the customers of the provider and of its resellers.

use serde_json::json;
use undine_api::public::{Account, AccountState, AccountUse, CreateAccount, List};
use undine_model::{AccountId, Slug};
use undine_store::AccountState as Kept;
use undine_store::{AccountFilter, DatabaseFilter, Db, SiteFilter};

use super::caller::Caller;
use super::paging::PageWish;
use super::reseller_suspend::takes;
use super::{plans, reseller_limits};
use crate::clock::{new_id, now_ms};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// An account as the API shows it.
pub(super) async fn show(db: &impl Db, account: undine_store::Account) -> Result<Account> {
    let sites = SiteFilter {
        account: Some(account.id),
        ..SiteFilter::default()
    };
    let databases = DatabaseFilter {
        account: Some(account.id),
        ..DatabaseFilter::default()
    };
    let uses = AccountUse {
        sites: db.sites().count(&sites).await? as u32,
        databases: db.databases().count(&databases).await? as u32,
    };
    let state = match account.state {
        Kept::Active if takes(db, &account).await? => AccountState::SuspendedWithReseller,
        Kept::Active => AccountState::Active,
        Kept::Suspended | Kept::Held => AccountState::Suspended,
        Kept::Deleting => AccountState::Deleting,
    };
    Ok(Account {
        id: account.id,
        name: account.name,
        plan: account.plan,
        state,
        uses,
        reseller: account.reseller,
        created_at: account.created_at,
        version: account.version,
    })
}

/// One page of the accounts that the caller may see.
pub async fn all(
    control: &Control,
    caller: &Caller,
    wish: &PageWish,
    name: Option<Slug>,
) -> Result<List<Account>> {
    if caller.sites.is_some() {
        // Whoever reaches single sites knows of no account.
        return Ok(List {
            items: Vec::new(),
            next: None,
        });
    }
    if let Some(own) = caller.account().filter(|_| !caller.sells()) {
        let own = get(control, caller, own).await?;
        let items = Some(own).filter(|own| name.is_none_or(|name| name == own.name));
        return Ok(List {
            items: items.into_iter().collect(),
            next: None,
        });
    }
    let filter = AccountFilter {
        name,
        reseller: caller.reseller(),
        ..AccountFilter::default()
    };
    let page = control
        .store
        .accounts()
        .list(&filter, wish.request(false)?)
        .await?;
    let mut items = Vec::with_capacity(page.items.len());
    for account in page.items {
        items.push(show(&control.store, account).await?);
    }
    Ok(List {
        items,
        next: page.next.map(|id| id.to_string()),
    })
}

/// One account.
pub async fn get(control: &Control, caller: &Caller, id: AccountId) -> Result<Account> {
    let account = reach(control, caller, id).await?;
    show(&control.store, account).await
}

/// The account, if the caller may know of it.
pub async fn reach(
    control: &Control,
    caller: &Caller,
    id: AccountId,
) -> Result<undine_store::Account> {
    match control.store.accounts().find(id).await? {
        Some(account) if caller.reaches(&account) => Ok(account),
        Some(_) => Err(caller.stranger(control, "account", &id.to_string()).await),
        None => Err(Refusal::not_found("account", &id.to_string())),
    }
}

/// The account that a request means: the named one, or the caller's own.
pub async fn meant(
    control: &Control,
    caller: &Caller,
    named: Option<&str>,
) -> Result<undine_store::Account> {
    let Some(text) = named else {
        if caller.sites.is_some() {
            return Err(caller.only_sites());
        }
        let Some(own) = caller.account().filter(|_| !caller.sells()) else {
            return Err(Refusal::invalid(
                "account",
                "Say whose it is to be: an account's id or name.",
            ));
        };
        return Ok(control.store.accounts().get(own).await?);
    };
    let found = match text.parse::<AccountId>() {
        Ok(id) => control.store.accounts().find(id).await?,
        Err(_) => match text.parse() {
            Ok(name) => {
                let filter = AccountFilter {
                    name: Some(name),
                    ..AccountFilter::default()
                };
                control.store.accounts().find_by(&filter).await?
            }
            Err(_) => None,
        },
    };
    match found {
        Some(account) if caller.reaches(&account) => Ok(account),
        Some(account) => Err(caller
            .stranger(control, "account", &account.id.to_string())
            .await),
        None => Err(Refusal::not_found("account", text).field("account")),
    }
}

/// Makes an account.
pub async fn create(control: &Control, caller: &Caller, wish: CreateAccount) -> Result<Account> {
    let plan = plans::named(control, caller, &wish.plan).await?;
    let now = now_ms();
    let account = undine_store::Account {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        name: wish.name,
        plan: plan.id,
        state: Kept::Active,
        reseller: plan.reseller,
    };
    let tx = control.store.begin().await?;
    if let Some(reseller) = account.reseller {
        reseller_limits::allows_account(&tx, reseller, (0, 0)).await?;
    }
    tx.accounts().insert(&account).await?;
    let subject = format!("account/{}", account.id);
    caller
        .did(
            &tx,
            "account.create",
            subject,
            Some(account.id),
            json!({"name": account.name}),
        )
        .await?;
    tx.commit().await?;
    show(&control.store, account).await
}
