//! Sites: looking at them and at their logs.

use undine_api::guest::{Answer, Ask, Follow, LogKind, LogPiece, Logs};
use undine_api::public::{List, LogLines, Site};
use undine_model::lifecycle::ServerState;
use undine_model::{AccountId, DomainName, ServerId, SiteId};
use undine_store::{Db, SiteFilter};
use uuid::Uuid;

use super::caller::Caller;
use super::paging::PageWish;
use crate::control::{Control, PublicPorts};
use crate::manifests::settings_of;
use crate::refusal::{Refusal, Result};
use crate::routes::is_routed;

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
        routed: is_routed(&site),
        id: site.id,
        domain: site.domain,
        aliases,
        account: site.account,
        server: site.server,
        runtime: site.runtime,
        state: site.state,
        error: site.error,
        gone_at: site.gone_at,
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
    if let Some(ids) = &caller.sites {
        return some(control, caller, ids, &which).await;
    }
    let account = match (caller.account(), which.account) {
        (Some(_), Some(asked)) if caller.reseller().is_some() => {
            Some(super::accounts::reach(control, caller, asked).await?.id)
        }
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

/// The single sites that the caller reaches.
async fn some(
    control: &Control,
    caller: &Caller,
    ids: &[SiteId],
    which: &SiteWish,
) -> Result<List<Site>> {
    let mut items = Vec::new();
    for id in ids {
        let Some(site) = control.store.sites().find(*id).await? else {
            continue;
        };
        let fits = which.account.is_none_or(|it| it == site.account)
            && which.domain.as_ref().is_none_or(|it| *it == site.domain)
            && which.server.is_none_or(|it| it == site.server);
        if fits && caller.sees_site(site.account, site.id) {
            items.push(show(&control.store, site).await?);
        }
    }
    Ok(List { items, next: None })
}

/// The site, if the caller may know of it.
pub async fn reach(control: &Control, caller: &Caller, id: SiteId) -> Result<undine_store::Site> {
    match control.store.sites().find(id).await? {
        Some(site) if caller.sees_site(site.account, site.id) => Ok(site),
        Some(_) => Err(caller.stranger(control, "site", &id.to_string()).await),
        None => Err(Refusal::not_found("site", &id.to_string())),
    }
}

/// The sites of an account that somebody names by their domains or ids.
pub(super) async fn named(
    control: &Control,
    account: AccountId,
    names: &[String],
) -> Result<Vec<Uuid>> {
    let mut ids = Vec::with_capacity(names.len());
    for name in names {
        let found = match name.parse::<SiteId>() {
            Ok(id) => control.store.sites().find(id).await?,
            Err(_) => control.store.sites().by_name(&name.to_lowercase()).await?,
        };
        let found = found.filter(|site| site.account == account);
        let unknown = || {
            Refusal::invalid("sites", format!("The account has no site `{name:.80}`."))
                .remedy("Write the domains of its sites.")
        };
        let id = found.ok_or_else(unknown)?.id.uuid();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// One site.
pub async fn get(control: &Control, caller: &Caller, id: SiteId) -> Result<Site> {
    let site = reach(control, caller, id).await?;
    show(&control.store, site).await
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

/// Texts that are looked for in a log are no longer.
const LONGEST_FIND: usize = 200;

/// What a site's log has said since a mark, or its last lines, of those with a text.
pub async fn follow(control: &Control, caller: &Caller, ask: Follow) -> Result<LogPiece> {
    if ask.find.chars().count() > LONGEST_FIND {
        return Err(Refusal::invalid(
            "find",
            format!("A text to find in a log has at most {LONGEST_FIND} letters."),
        ));
    }
    let site = reach(control, caller, ask.site).await?;
    let (server, client) = running_server(control, site.server).await?;
    match client
        .guest(server.id, server.epoch, Ask::Follow(ask))
        .await?
    {
        Answer::Followed(piece) => Ok(piece),
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
