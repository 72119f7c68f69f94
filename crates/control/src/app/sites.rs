//! Sites: looking at them, changing, suspending, trying again and deleting them.

use serde_json::json;
use undine_api::guest::{Answer, Ask, LogKind, Logs};
use undine_api::public::{List, LogLines, Site, SiteOperation, UpdateSite};
use undine_model::lifecycle::{ServerState, SiteState};
use undine_model::{AccountId, DomainName, ServerId, SiteId};
use undine_store::{Db, ManifestChange, SiteFilter, Tx};

use super::caller::{Caller, Expected};
use super::operations;
use super::paging::PageWish;
use super::site_create::{check_names, check_runtime, check_settings};
use crate::clock::now_ms;
use crate::control::{Control, PublicPorts};
use crate::manifests::settings_of;
use crate::operations::{NewOperation, start, wake};
use crate::refusal::{Refusal, Result};
use crate::routes::sites_changed;

/// A site as the API shows it.
pub async fn show(db: &impl Db, site: undine_store::Site) -> Result<Site> {
    let ports = ports(db).await?;
    let aliases = db.sites().aliases(std::slice::from_ref(&site)).await?;
    let aliases = aliases.into_values().flatten().collect();
    Ok(shown(site, aliases, ports))
}

/// Where the edges listen for visitors, from outside.
async fn ports(db: &impl Db) -> Result<PublicPorts> {
    Ok(db
        .settings()
        .get(PublicPorts::KEY)
        .await?
        .unwrap_or_default())
}

fn url_of(domain: &DomainName, ports: PublicPorts) -> String {
    match ports.http {
        80 => format!("http://{domain}/"),
        port => format!("http://{domain}:{port}/"),
    }
}

fn shown(site: undine_store::Site, aliases: Vec<DomainName>, ports: PublicPorts) -> Site {
    Site {
        settings: settings_of(&site),
        url: url_of(&site.domain, ports),
        id: site.id,
        domain: site.domain,
        aliases,
        account: site.account,
        server: site.server,
        runtime: site.runtime,
        state: site.state,
        error: site.error,
        current_release: site.current_release,
        uid: site.uid,
        created_at: site.created_at,
        updated_at: site.updated_at,
        version: site.version,
    }
}

/// Which sites.
#[derive(Debug, Clone, Default)]
pub struct SiteWish {
    /// With this domain.
    pub domain: Option<DomainName>,
    /// Of this account.
    pub account: Option<AccountId>,
    /// On this server.
    pub server: Option<ServerId>,
}

/// One page of the sites that the caller may see.
pub async fn all(
    control: &Control,
    caller: &Caller,
    wish: &PageWish,
    which: SiteWish,
) -> Result<List<Site>> {
    let account = match (caller.account(), which.account) {
        (Some(own), Some(asked)) if own != asked => {
            return Err(caller
                .stranger(control, "account", &asked.to_string())
                .await);
        }
        (own, asked) => own.or(asked),
    };
    let filter = SiteFilter {
        domain: which.domain,
        account,
        server: which.server,
        ..SiteFilter::default()
    };
    let page = control
        .store
        .sites()
        .list(&filter, wish.request(false)?)
        .await?;
    let mut aliases = control.store.sites().aliases(&page.items).await?;
    let next = page.next.map(|id| id.to_string());
    let ports = ports(&control.store).await?;
    let items = page
        .items
        .into_iter()
        .map(|site| {
            let names = aliases.remove(&site.id).unwrap_or_default();
            shown(site, names, ports)
        })
        .collect();
    Ok(List { items, next })
}

/// The site, if the caller may know of it.
pub async fn reach(control: &Control, caller: &Caller, id: SiteId) -> Result<undine_store::Site> {
    match control.store.sites().find(id).await? {
        Some(site) if caller.sees(site.account) => Ok(site),
        Some(_) => Err(caller.stranger(control, "site", &id.to_string()).await),
        None => Err(Refusal::not_found("site", &id.to_string())),
    }
}

/// One site.
pub async fn get(control: &Control, caller: &Caller, id: SiteId) -> Result<Site> {
    let site = reach(control, caller, id).await?;
    show(&control.store, site).await
}

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
            super::site_create::free_names(&tx, alias, &[])
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
    let operation = operate(&tx, caller, "site.update", &site, version).await?;
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

fn not_going(site: &undine_store::Site) -> Result<()> {
    if site.state == SiteState::Deleting {
        return Err(Refusal::conflict(
            "wrong-state",
            "The site is on its way out",
            "The site is being deleted.",
        ));
    }
    Ok(())
}

async fn operate(
    tx: &Tx,
    caller: &Caller,
    kind: &str,
    site: &undine_store::Site,
    version: u64,
) -> Result<undine_store::Operation> {
    start(
        tx,
        NewOperation {
            kind,
            subjects: vec![site.id.uuid(), site.server.uuid()],
            account: Some(site.account),
            params: json!({"site": site.id, "server": site.server, "manifest_version": version}),
            reason: format!("asked for by {}", caller.actor()),
        },
    )
    .await
}

/// Deletes a site with its content, its databases and its releases.
pub async fn delete(
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
    site.state = SiteState::Deleting;
    let site = tx.sites().update(&site, now_ms()).await?;
    sites_changed(&tx, std::slice::from_ref(&site)).await?;
    let mut changes = vec![ManifestChange::Site(id)];
    let filter = undine_store::DatabaseFilter {
        site: Some(id),
        ..Default::default()
    };
    for mut database in tx.databases().all(&filter).await? {
        changes.push(ManifestChange::Database(database.id));
        database.encrypted_password.clear();
        tx.databases().update(&database, now_ms()).await?;
    }
    let version = tx.manifests().changed(site.server, &changes).await?;
    let operation = operate(&tx, caller, "site.delete", &site, version).await?;
    caller
        .did(
            &tx,
            "site.delete",
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

/// The last lines of a site's log.
pub async fn logs(
    control: &Control,
    caller: &Caller,
    id: SiteId,
    log: LogKind,
    lines: u32,
) -> Result<LogLines> {
    let site = reach(control, caller, id).await?;
    let (server, client) = running_server(control, site.server).await?;
    let ask = Ask::Logs(Logs {
        site: id,
        log,
        lines: lines.min(1_000),
    });
    match client.guest(server.id, server.epoch, ask).await? {
        Answer::Logs(lines) => Ok(LogLines { lines }),
        _ => Err(Refusal::unavailable(
            "The server answered something else than its log.",
        )),
    }
}

/// A server that is up, and the client of its node.
pub async fn running_server(
    control: &Control,
    id: ServerId,
) -> Result<(undine_store::Server, crate::nodes::NodeClient)> {
    let server = control.store.servers().get(id).await?;
    let down = || {
        Refusal::of(
            503,
            "server-down",
            "The server is not up",
            format!("The server {} is {}.", server.name, server.state),
        )
        .remedy("Try again when it is up.")
    };
    if server.state != ServerState::Running {
        return Err(down());
    }
    let node = server.node.ok_or_else(down)?;
    let node = control.store.nodes().get(node).await?;
    let client = control
        .nodes
        .of(&node)
        .map_err(|error| Refusal::internal(&error))?;
    Ok((server, client))
}
