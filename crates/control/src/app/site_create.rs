//! Making a site: whose, where, within the plan and the server's room, then the operation.

use serde_json::json;
use undine_api::public::{CreateSite, SiteOperation};
use undine_manifest::SiteSettings;
use undine_model::lifecycle::{ServerState, SiteState};
use undine_model::{Bytes, DomainName, Slug};
use undine_store::{
    Account, AccountState, Db, ManifestChange, ReplicaFilter, Server, ServerFilter, Site,
    SiteFilter, Tx, Wanted,
};

use super::caller::Caller;
use super::plans::limits_of;
use super::reseller_suspend::takes;
use super::{accounts, brand, operations, reseller_limits, servers, sites};
use crate::clock::{new_id, now_ms};
use crate::control::Control;
use crate::operations::{NewOperation, start, wake};
use crate::refusal::{Refusal, Result};

/// A site has at most so many further names.
const MOST_ALIASES: usize = 50;

/// Makes a site and the operation that brings it up.
pub async fn create(control: &Control, caller: &Caller, wish: CreateSite) -> Result<SiteOperation> {
    let account = accounts::meant(control, caller, wish.account.as_deref()).await?;
    if account.state != AccountState::Active || takes(&control.store, &account).await? {
        return Err(Refusal::conflict(
            "account-suspended",
            "The account is suspended",
            format!("{} gets no new sites while it is suspended.", account.name),
        ));
    }
    check_names(control, &wish.domain, &wish.aliases)?;
    check_settings(&wish.settings)?;
    let server = choose_server(control, &wish).await?;
    check_runtime(control, &server, &wish.runtime).await?;
    let uid = control.store.counters().next_site_uid().await?;
    let now = now_ms();
    let site = Site {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        domain: wish.domain,
        account: account.id,
        server: server.id,
        uid,
        runtime: wish.runtime,
        settings: json!(wish.settings),
        state: SiteState::Creating,
        current_release: None,
        applied_version: 0,
        error: None,
        gone_at: None,
        state_before: None,
    };
    let tx = control.store.begin().await?;
    let account = tx.accounts().lock(account.id).await?;
    within_plan(&tx, &account).await?;
    reseller_limits::allows_site(&tx, &account).await?;
    let server = tx.servers().lock(server.id).await?;
    has_room(control, &tx, &server, &account).await?;
    free_names(&tx, &site.domain, &wish.aliases).await?;
    tx.sites().create(&site, &wish.aliases).await?;
    let version = tx
        .manifests()
        .changed(server.id, &[ManifestChange::Site(site.id)])
        .await?;
    let operation = start(
        &tx,
        NewOperation {
            kind: "site.create",
            subjects: vec![site.id.uuid(), server.id.uuid()],
            account: Some(account.id),
            params: json!({"site": site.id, "server": server.id, "manifest_version": version}),
            reason: format!("asked for by {}", caller.who()),
        },
    )
    .await?;
    let data = json!({"domain": site.domain, "server": server.id});
    caller
        .did(
            &tx,
            "site.create",
            format!("site/{}", site.id),
            Some(account.id),
            data,
        )
        .await?;
    let shown = SiteOperation {
        site: sites::show(&tx, site).await?,
        operation: operations::show(&tx, operation).await?,
    };
    tx.commit().await?;
    wake(control);
    Ok(shown)
}

/// Names that can be had, apart from being taken.
pub fn check_names(control: &Control, domain: &DomainName, aliases: &[DomainName]) -> Result<()> {
    if aliases.len() > MOST_ALIASES {
        return Err(Refusal::invalid(
            "aliases",
            format!("A site has at most {MOST_ALIASES} aliases."),
        ));
    }
    let panel = control.cluster.panel_host();
    for (field, name) in
        std::iter::once(("domain", domain)).chain(aliases.iter().map(|alias| ("aliases", alias)))
    {
        if name.as_str() == panel {
            return Err(Refusal::invalid(
                field,
                format!("{name} is the panel of this cluster."),
            ));
        }
    }
    Ok(())
}

/// Settings that cannot do harm; the guest checks the rest with the services themselves.
pub fn check_settings(settings: &SiteSettings) -> Result<()> {
    // The rules are the server's own: what is refused here would be refused there, later.
    let broken = undine_manifest::validate::settings(settings);
    let Some(first) = broken.first() else {
        return Ok(());
    };
    let all: Vec<String> = broken
        .iter()
        .map(|it| format!("{}: {}", it.field, it.reason))
        .collect();
    Err(Refusal::invalid(
        &first.field,
        format!("{}.", all.join("; ")),
    ))
}

/// The server that is named, or the fitting one with the fewest sites.
async fn choose_server(control: &Control, wish: &CreateSite) -> Result<Server> {
    if let Some(text) = &wish.server {
        let server = servers::named(control, text).await?;
        if server.wanted == Wanted::Stopped || server.state == ServerState::Deleting {
            return Err(Refusal::conflict(
                "server-stopped",
                "The server is stopped",
                format!("{} is {}.", server.name, server.state),
            )
            .field("server")
            .remedy("Start it first, or choose another one."));
        }
        return Ok(server);
    }
    let mut best: Option<(u64, Server)> = None;
    let up = ServerFilter {
        state: Some(ServerState::Running),
        ..ServerFilter::default()
    };
    for server in control.store.servers().all(&up).await? {
        if check_runtime(control, &server, &wish.runtime)
            .await
            .is_err()
        {
            continue;
        }
        let filter = SiteFilter {
            server: Some(server.id),
            ..SiteFilter::default()
        };
        let sites = control.store.sites().count(&filter).await?;
        if best.as_ref().is_none_or(|(fewest, _)| sites < *fewest) {
            best = Some((sites, server));
        }
    }
    best.map(|(_, server)| server).ok_or_else(|| {
        Refusal::conflict(
            "no-server",
            "No server can run it",
            format!("No server that is up runs `{}`.", wish.runtime),
        )
        .field("runtime")
        .remedy("Make a server with a profile that has this runtime.")
    })
}

/// The server's profile has the runtime.
pub async fn check_runtime(control: &Control, server: &Server, runtime: &Slug) -> Result<()> {
    let profile = crate::manifests::profile_of(control, server)
        .await
        .map_err(|trouble| {
            Refusal::conflict("no-profile", "The profile is gone", trouble.to_string())
        })?;
    if profile.runtimes.contains_key(runtime) {
        return Ok(());
    }
    let known: Vec<String> = profile.runtimes.keys().map(ToString::to_string).collect();
    Err(Refusal::invalid(
        "runtime",
        format!(
            "The server {} runs {}, not `{runtime}`.",
            server.name,
            known.join(", ")
        ),
    )
    .remedy("Choose one of these, or a server with another profile."))
}

async fn within_plan(tx: &Tx, account: &Account) -> Result<()> {
    let plan = tx.plans().get(account.plan).await?;
    let limits = limits_of(&plan);
    let filter = SiteFilter {
        account: Some(account.id),
        ..SiteFilter::default()
    };
    let sites = tx.sites().count(&filter).await?;
    if sites < u64::from(limits.sites) {
        return Ok(());
    }
    Err(Refusal::conflict(
        "plan-exceeded",
        "The plan allows no more",
        format!(
            "{} has {sites} of the {} sites that the plan {} allows.",
            account.name, limits.sites, plan.name
        ),
    )
    .remedy(
        "Delete a site for good (a deleted one counts for a day), or move the account to a larger plan.",
    ))
}

/// The server has room: says by what it is full, and how much.
async fn has_room(control: &Control, tx: &Tx, server: &Server, account: &Account) -> Result<()> {
    let full = |what: String| {
        Refusal::conflict(
            "server-full",
            "The server is full",
            format!("{} is full: {what}.", server.name),
        )
        .field("server")
        .remedy("Choose another server, or make one.")
    };
    let by_account = tx.sites().by_account(server.id).await?;
    let sites: u64 = by_account.iter().map(|(_, count)| count).sum();
    let most = control.cluster.sites_per_server;
    if sites >= u64::from(most) {
        return Err(full(format!("it has {sites} of {most} sites")));
    }
    let wanted = limits_of(&tx.plans().get(account.plan).await?).site.disk;
    if wanted > server.disk {
        return Err(full(format!(
            "a site of the plan may use {wanted} of disk, the whole server has {}",
            server.disk
        )));
    }
    let mut promised = 0_u64;
    for (account, count) in by_account {
        let account = tx.accounts().get(account).await?;
        let quota = limits_of(&tx.plans().get(account.plan).await?).site.disk.0;
        promised = promised.saturating_add(quota.saturating_mul(count));
    }
    let most = Bytes(
        server
            .disk
            .0
            .saturating_mul(u64::from(control.cluster.disk_overcommit)),
    );
    if promised + wanted.0 > most.0 {
        return Err(full(format!(
            "its sites are promised {} of disk and this one needs {wanted}, {most} may be promised",
            Bytes(promised)
        )));
    }
    let filter = ReplicaFilter {
        server: Some(server.id),
        ..ReplicaFilter::default()
    };
    let used = tx
        .replicas()
        .all(&filter)
        .await?
        .iter()
        .map(|r| r.bytes.0)
        .max()
        .unwrap_or(0);
    if used >= server.disk.0 / 20 * 19 {
        return Err(full(format!(
            "its disk holds {} of {}",
            Bytes(used),
            server.disk
        )));
    }
    Ok(())
}

/// Says which name is taken; the unique index has the last word among sites, and until the end
/// of the transaction no panel gets a name.
pub async fn free_names(tx: &Tx, domain: &DomainName, aliases: &[DomainName]) -> Result<()> {
    tx.names_for_sites().await?;
    for (field, name) in
        std::iter::once(("domain", domain)).chain(aliases.iter().map(|alias| ("aliases", alias)))
    {
        let used = tx.sites().by_name(name.as_str()).await?.is_some();
        if used || brand::is_panel(tx, name.as_str()).await? {
            return Err(taken(field, name));
        }
    }
    Ok(())
}

fn taken(field: &str, name: &DomainName) -> Refusal {
    Refusal::conflict(
        "domain-taken",
        "The domain exists already",
        format!("A site has the name {name} already."),
    )
    .field(field)
    .remedy(
        "Choose another name, or remove it from that site first; a deleted site keeps its names for a \
         day, unless it is deleted for good.",
    )
}
