//! The routing table of the edges, made from the records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use undine_api::edge::{Certificate, Panel, PanelInstance, Route, RouteUpdate, Target};
use undine_model::lifecycle::{ServerState, SiteState};
use undine_model::{AccountId, ServerId, SiteId, epoch_address};
use undine_store::{
    Account, Db, InstanceFilter, ResellerFilter, ResellerState, RouteChanges, Server, ServerFilter,
    Site, SiteCertificateFilter, SiteFilter, Tx, Wanted,
};

use crate::app::brand::{self, Brand, Owner};
use crate::app::reseller_suspend::is_off;
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::Result;

/// Servers answer visitors' requests, through the edges, on this port.
const HTTP: u16 = 80;
/// An instance that has been silent for longer is not told to the edges.
pub const INSTANCE_SILENT_MS: i64 = 60_000;

/// What an edge must know after this version.
pub async fn update_after(control: &Control, version: u64) -> Result<RouteUpdate> {
    let brands = brand::now(control).await?;
    let panel = panel(control, &brands).await?;
    match control.store.routes().after(version).await? {
        RouteChanges::Everything { version } => Ok(RouteUpdate {
            version,
            whole: true,
            routes: all(control, &brands).await?,
            removed: Vec::new(),
            panel,
        }),
        RouteChanges::Hosts { version, hosts } => {
            let mut update = RouteUpdate {
                version,
                whole: false,
                routes: vec![],
                removed: vec![],
                panel,
            };
            for host in hosts
                .into_iter()
                .filter(|host| !update.panel.hosts.contains(host))
            {
                match of_host(control, &brands, &host).await? {
                    Some(route) => update.routes.push(route),
                    None => update.removed.push(host),
                }
            }
            Ok(update)
        }
    }
}

/// Whose brands there are.
type Brands = [(Owner, Brand)];

async fn panel(control: &Control, brands: &Brands) -> Result<Panel> {
    let host = control.cluster.panel_host();
    let certificate = certificate(control, &host).await?;
    let mut hosts = vec![host];
    hosts.extend(brands.iter().filter_map(|(_, brand)| brand.host.clone()));
    let alive_since = now_ms() - INSTANCE_SILENT_MS;
    let instances = control
        .store
        .instances()
        .all(&InstanceFilter::default())
        .await?;
    Ok(Panel {
        certificate,
        hosts,
        instances: instances
            .into_iter()
            .filter(|instance| instance.heartbeat_at > alive_since)
            .filter_map(|instance| {
                Some(PanelInstance {
                    id: instance.id,
                    address: instance.internal_url.parse().ok()?,
                })
            })
            .collect(),
    })
}

async fn certificate(control: &Control, host: &str) -> Result<Option<Certificate>> {
    let filter = SiteCertificateFilter {
        host: Some(host.to_owned()),
    };
    let kept = control.store.certificates().find_by(&filter).await?;
    Ok(kept.and_then(|kept| opened(control, &kept)))
}

fn opened(control: &Control, kept: &undine_store::SiteCertificate) -> Option<Certificate> {
    match control
        .secrets
        .open(&format!("certificate/{}", kept.host), &kept.encrypted_key)
    {
        Ok(key) => Some(Certificate {
            chain: kept.chain_pem.clone(),
            key: key.to_string(),
        }),
        Err(error) => {
            tracing::error!(host = kept.host, %error, "a certificate's key cannot be opened");
            None
        }
    }
}

fn words_of(brands: &Brands, owner: Owner) -> Option<String> {
    let found = brands.iter().find(|(whose, _)| *whose == owner);
    found.and_then(|(_, brand)| brand.suspended.clone())
}

async fn of_host(control: &Control, brands: &Brands, host: &str) -> Result<Option<Route>> {
    let Some(site) = control.store.sites().by_name(host).await? else {
        return Ok(None);
    };
    let Some(server) = control.store.servers().find(site.server).await? else {
        return Ok(None);
    };
    let account = control.store.accounts().find(site.account).await?;
    let suspended = match &account {
        Some(account) => is_off(&control.store, account).await?,
        None => true,
    };
    let seller = account.and_then(|account| account.reseller);
    let words = words_of(brands, seller);
    let Some(target) = target(&site, &server, suspended, words) else {
        return Ok(None);
    };
    Ok(Some(route(
        host,
        &site,
        target,
        certificate(control, host).await?,
    )))
}

async fn all(control: &Control, brands: &Brands) -> Result<Vec<Route>> {
    let store = &control.store;
    let sites = store.sites().all(&SiteFilter::default()).await?;
    let mut aliases: BTreeMap<SiteId, Vec<_>> = store.sites().aliases(&sites).await?;
    let servers: BTreeMap<ServerId, Server> = store
        .servers()
        .all(&ServerFilter::default())
        .await?
        .into_iter()
        .map(|server| (server.id, server))
        .collect();
    let closed = ResellerFilter {
        state: Some(ResellerState::SuspendedWithCustomers),
        ..ResellerFilter::default()
    };
    let closed = store.resellers().all(&closed).await?;
    let closed: BTreeSet<Owner> = closed.into_iter().map(|it| Some(it.id)).collect();
    let off = |it: &Account| it.state.is_suspended() || closed.contains(&it.reseller);
    let suspended: BTreeMap<AccountId, (bool, Owner)> = store
        .accounts()
        .all(&Default::default())
        .await?
        .into_iter()
        .map(|it| (it.id, (off(&it), it.reseller)))
        .collect();
    let mut certificates: BTreeMap<String, Certificate> = store
        .certificates()
        .all(&SiteCertificateFilter::default())
        .await?
        .into_iter()
        .filter_map(|kept| Some((kept.host.clone(), opened(control, &kept)?)))
        .collect();
    let mut routes = Vec::new();
    for site in &sites {
        let Some(server) = servers.get(&site.server) else {
            continue;
        };
        let (off, seller) = suspended
            .get(&site.account)
            .copied()
            .unwrap_or((true, None));
        let words = words_of(brands, seller);
        let Some(target) = target(site, server, off, words) else {
            continue;
        };
        let names = aliases.remove(&site.id).unwrap_or_default();
        for name in std::iter::once(&site.domain).chain(&names) {
            let certificate = certificates.remove(name.as_str());
            routes.push(route(name.as_str(), site, target.clone(), certificate));
        }
    }
    Ok(routes)
}

fn route(host: &str, site: &Site, target: Target, certificate: Option<Certificate>) -> Route {
    Route {
        host: host.to_owned(),
        site: site.id,
        server: site.server,
        target,
        certificate,
        https_only: false,
    }
}

/// Do the edges know of the site? If not, its address leads nowhere.
pub fn is_routed(site: &Site) -> bool {
    match site.state {
        SiteState::Deleted | SiteState::Deleting | SiteState::Creating => false,
        // It failed before it ever answered.
        SiteState::Failed => site.applied_version > 0,
        SiteState::Suspended | SiteState::Active => true,
    }
}

/// None: the edges know nothing of the site.
fn target(
    site: &Site,
    server: &Server,
    account_suspended: bool,
    words: Option<String>,
) -> Option<Target> {
    if !is_routed(site) {
        return None;
    }
    if account_suspended || site.state == SiteState::Suspended {
        return Some(Target::Suspended { words });
    }
    Some(whereabouts(server))
}

/// Where the edges find a server: by the address of its epoch alone, which no earlier owner has.
fn whereabouts(server: &Server) -> Target {
    let address = match epoch_address(server.ipv6, server.epoch) {
        Ok(address) => address,
        Err(error) => {
            tracing::error!(server = %server.id, %error, "the edges cannot reach a server");
            return Target::Unavailable;
        }
    };
    let addresses = vec![SocketAddr::new(address.into(), HTTP)];
    if server.state == ServerState::Running {
        Target::Server { addresses }
    } else if comes_back(server.state, server.wanted, server.blank) {
        Target::Held { addresses }
    } else {
        Target::Unavailable
    }
}

/// Is it worth the visitors' wait? A start after it had run, a fail-over, a restart's first half:
/// yes. A server that never ran takes longer than anybody waits; one that stopped or failed may
/// stay away.
fn comes_back(state: ServerState, wanted: Wanted, blank: bool) -> bool {
    let on_its_way = matches!(state, ServerState::Starting | ServerState::Stopping);
    on_its_way && wanted == Wanted::Running && !blank
}

/// Within a transaction: the routes of all sites of a server changed.
pub async fn server_changed(tx: &Tx, server: ServerId) -> undine_store::Result<()> {
    let filter = SiteFilter {
        server: Some(server),
        ..SiteFilter::default()
    };
    let sites = tx.sites().all(&filter).await?;
    sites_changed(tx, &sites).await
}

/// Within a transaction: the routes of these sites changed.
pub async fn sites_changed(tx: &Tx, sites: &[Site]) -> undine_store::Result<()> {
    let aliases = tx.sites().aliases(sites).await?;
    let hosts: Vec<String> = sites
        .iter()
        .map(|site| site.domain.to_string())
        .chain(aliases.into_values().flatten().map(String::from))
        .collect();
    if hosts.is_empty() {
        return Ok(());
    }
    tx.routes().changed(hosts).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_wait_for_a_server_that_comes_back_and_for_no_other() {
        let waits: Vec<_> = ServerState::ALL
            .iter()
            .filter(|state| comes_back(**state, Wanted::Running, false))
            .collect();
        assert_eq!(waits, [&ServerState::Starting, &ServerState::Stopping]);
        for state in ServerState::ALL {
            assert!(!comes_back(*state, Wanted::Stopped, false), "{state}");
            assert!(!comes_back(*state, Wanted::Running, true), "{state}");
        }
    }
}
