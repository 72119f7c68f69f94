//! Databases of sites.

use serde_json::json;
use undine_api::public::{CreateDatabase, Database, DatabaseOperation, List};
use undine_model::{DatabaseId, SiteId};
use undine_store::{DatabaseFilter, Db, ManifestChange, Tx};

use super::caller::{Caller, Expected};
use super::paging::{PageWish, list};
use super::plans::limits_of;
use super::{operations, reseller_limits, sites};
use crate::clock::{new_id, new_secret, now_ms};
use crate::control::Control;
use crate::manifests::is_going;
use crate::operations::{NewOperation, start, wake};
use crate::refusal::{Refusal, Result};

fn show(database: undine_store::Database) -> Database {
    Database {
        id: database.id,
        site: database.site,
        account: database.account,
        server: database.server,
        name: database.name,
        user: database.username,
        created_at: database.created_at,
        version: database.version,
    }
}

/// One page of the databases that the caller may see.
pub async fn all(
    control: &Control,
    caller: &Caller,
    wish: &PageWish,
    site: Option<SiteId>,
) -> Result<List<Database>> {
    if let Some(site) = site {
        sites::reach(control, caller, site).await?;
    } else if let Some(own) = &caller.sites {
        return of_sites(control, caller, own).await;
    }
    let filter = DatabaseFilter {
        // Whoever reaches the site, sees its databases.
        account: caller.account().filter(|_| site.is_none()),
        site,
        ..DatabaseFilter::default()
    };
    Ok(list(
        control
            .store
            .databases()
            .list(&filter, wish.request(false)?)
            .await?,
        show,
    ))
}

/// The databases of the single sites that the caller reaches.
async fn of_sites(control: &Control, caller: &Caller, own: &[SiteId]) -> Result<List<Database>> {
    let mut items = Vec::new();
    for site in own {
        let filter = DatabaseFilter {
            site: Some(*site),
            ..DatabaseFilter::default()
        };
        let found = control.store.databases().all(&filter).await?;
        let seen = |it: &undine_store::Database| caller.sees_site(it.account, it.site);
        items.extend(found.into_iter().filter(seen).map(show));
    }
    Ok(List { items, next: None })
}

async fn reach(
    control: &Control,
    caller: &Caller,
    id: DatabaseId,
) -> Result<undine_store::Database> {
    match control.store.databases().find(id).await? {
        Some(database) if caller.sees_site(database.account, database.site) => Ok(database),
        Some(_) => Err(caller.stranger(control, "database", &id.to_string()).await),
        None => Err(Refusal::not_found("database", &id.to_string())),
    }
}

/// One database.
pub async fn get(control: &Control, caller: &Caller, id: DatabaseId) -> Result<Database> {
    Ok(show(reach(control, caller, id).await?))
}

fn check_name(name: &str) -> Result<()> {
    let good = (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if good {
        return Ok(());
    }
    Err(Refusal::invalid(
        "name",
        "A database's name has 1 to 32 of a-z, 0-9 and `_`, and starts with a letter.",
    ))
}

/// A record for a new database of a site, and its password. The server knows it with the site's
/// number before its name, so that two sites never meet.
pub fn fresh(
    control: &Control,
    site: &undine_store::Site,
    name: &str,
) -> (undine_store::Database, String) {
    let id: DatabaseId = new_id();
    let password = new_secret();
    let now = now_ms();
    let full = format!("s{}_{name}", site.uid);
    let database = undine_store::Database {
        id,
        version: 1,
        created_at: now,
        updated_at: now,
        server: site.server,
        account: site.account,
        site: site.id,
        username: full.clone(),
        name: full,
        encrypted_password: control
            .secrets
            .seal(&format!("database/{id}"), password.as_bytes()),
    };
    (database, password)
}

/// Within a transaction that holds the account: one more database is within the plan and within
/// what its reseller may have.
pub async fn within_plan(tx: &Tx, account: &undine_store::Account) -> Result<()> {
    let plan = tx.plans().get(account.plan).await?;
    let most = limits_of(&plan).databases;
    let filter = DatabaseFilter {
        account: Some(account.id),
        ..DatabaseFilter::default()
    };
    let have = tx.databases().count(&filter).await?;
    if have < u64::from(most) {
        return reseller_limits::allows_database(tx, account).await;
    }
    Err(Refusal::conflict(
        "plan-exceeded",
        "The plan allows no more",
        format!(
            "{} has {have} of the {most} databases that the plan {} allows.",
            account.name, plan.name
        ),
    )
    .remedy("Delete a database, or move the account to a larger plan."))
}

/// Makes a database and the operation that brings it to its server.
pub async fn create(
    control: &Control,
    caller: &Caller,
    wish: CreateDatabase,
) -> Result<DatabaseOperation> {
    check_name(&wish.name)?;
    let site = sites::reach(control, caller, wish.site).await?;
    super::site_change::not_going(&site)?;
    let (database, password) = fresh(control, &site, &wish.name);
    let tx = control.store.begin().await?;
    let account = tx.accounts().lock(site.account).await?;
    within_plan(&tx, &account).await?;
    let filter = DatabaseFilter {
        server: Some(site.server),
        name: Some(database.name.clone()),
        ..DatabaseFilter::default()
    };
    if tx.databases().find_by(&filter).await?.is_some() {
        return Err(Refusal::conflict(
            "taken",
            "The name is taken",
            format!("The site has a database `{}` already.", wish.name),
        )
        .field("name")
        .remedy("Choose another one."));
    }
    tx.databases().insert(&database).await?;
    let operation = operate(&tx, caller, "database.create", &database).await?;
    let data = json!({"name": database.name});
    let subject = format!("database/{}", database.id);
    caller
        .did(&tx, "database.create", subject, Some(site.account), data)
        .await?;
    let operation = operations::show(&tx, operation).await?;
    tx.commit().await?;
    wake(control);
    Ok(DatabaseOperation {
        database: show(database),
        password: Some(password),
        operation,
    })
}

async fn operate(
    tx: &Tx,
    caller: &Caller,
    kind: &str,
    database: &undine_store::Database,
) -> Result<undine_store::Operation> {
    let change = ManifestChange::Database(database.id);
    let version = tx.manifests().changed(database.server, &[change]).await?;
    start(
        tx,
        NewOperation {
            kind,
            subjects: vec![database.id.uuid(), database.site.uuid()],
            account: Some(database.account),
            params: json!({
                "database": database.id,
                "server": database.server,
                "manifest_version": version,
            }),
            reason: format!("asked for by {}", caller.who()),
        },
    )
    .await
}

/// Deletes a database with its content.
pub async fn delete(
    control: &Control,
    caller: &Caller,
    id: DatabaseId,
    expected: Expected,
) -> Result<DatabaseOperation> {
    let database = reach(control, caller, id).await?;
    expected.check("database", database.version)?;
    let tx = control.store.begin().await?;
    let mut database = tx.databases().lock(id).await?;
    if !is_going(&database) {
        expected.check("database", database.version)?;
    }
    database.encrypted_password.clear();
    let database = tx.databases().update(&database, now_ms()).await?;
    let operation = operate(&tx, caller, "database.delete", &database).await?;
    let data = json!({"name": database.name});
    caller
        .did(
            &tx,
            "database.delete",
            format!("database/{id}"),
            Some(database.account),
            data,
        )
        .await?;
    let operation = operations::show(&tx, operation).await?;
    tx.commit().await?;
    wake(control);
    Ok(DatabaseOperation {
        database: show(database),
        password: None,
        operation,
    })
}
