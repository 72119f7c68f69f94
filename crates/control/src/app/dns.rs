//! What must stand in DNS for a site and what does: looked up when somebody looks, told to their
//! page when it changes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::Semaphore;
use undine_api::public::{
    DnsName, DnsRecord, DnsSettings, DnsState, Site, SiteDns, UpdateDnsSettings,
};
use undine_model::{DomainName, SiteId};
use undine_store::Db;

use super::caller::{Caller, Expected};
use super::sites;
use crate::clock::now_ms;
use crate::control::Control;
use crate::dns::{DnsPolicy, PORT, judge, look_up};
use crate::operations::event_of;
use crate::refusal::{Refusal, Result, chain};

/// So many names are looked up at once, of one site and of all.
const AT_ONCE: usize = 8;
static TURNS: Semaphore = Semaphore::const_new(32);
/// What was looked up is not looked up again before this time.
const FRESH_MS: i64 = 3_000;
/// A page that is open has it looked up again after this time while something is wrong …
const AGAIN_MS: i64 = 8_000;
/// … and after this when all is well.
const WELL_MS: i64 = 60_000;
/// What nobody looked at for so long is forgotten.
const KEPT_MS: i64 = 10 * 60_000;
const MOST: usize = 20;

/// What this instance has looked up lately. Another one looks for itself.
#[derive(Default)]
pub struct DnsBook(Mutex<Book>);

#[derive(Default)]
struct Book {
    last: HashMap<SiteId, SiteDns>,
    busy: HashSet<SiteId>,
}

impl DnsBook {
    fn open(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the site's owner and the API are shown: looked up now, or moments ago.
pub async fn check(control: &Control, caller: &Caller, id: SiteId) -> Result<SiteDns> {
    let site = sites::get(control, caller, id).await?;
    let now = now_ms();
    match known(control, &site) {
        Some(last) if now - last.checked_at < FRESH_MS => Ok(last),
        _ => look(control, &site).await,
    }
}

/// What is known; it is looked up meanwhile when it is old. A page waits a moment for the first
/// time; then none means that its name servers are slow.
pub async fn glance(control: &Control, site: &Site, patience: Duration) -> Option<SiteDns> {
    let last = known(control, site);
    let old = last.as_ref().is_none_or(|it| {
        let well = it.names.iter().all(|name| name.state == DnsState::Here);
        now_ms() - it.checked_at > if well { WELL_MS } else { AGAIN_MS }
    });
    if !old || !control.dns.open().busy.insert(site.id) {
        return last;
    }
    let (this, wanted) = (control.clone(), site.clone());
    let task = tokio::spawn(async move {
        let found = look(&this, &wanted).await;
        this.dns.open().busy.remove(&wanted.id);
        found
    });
    if last.is_some() {
        return last;
    }
    let found = tokio::time::timeout(patience, task).await.ok()?.ok()?;
    found
        .inspect_err(|error| tracing::warn!(error = %chain(error), "DNS was not looked up"))
        .ok()
}

fn names(site: &Site) -> Vec<DomainName> {
    std::iter::once(&site.domain)
        .chain(&site.aliases)
        .cloned()
        .collect()
}

/// What was looked up of the site as it is now.
fn known(control: &Control, site: &Site) -> Option<SiteDns> {
    let book = control.dns.open();
    let last = book.last.get(&site.id)?;
    let same = last.names.iter().map(|it| &it.name).eq(&names(site));
    same.then(|| last.clone())
}

async fn look(control: &Control, site: &Site) -> Result<SiteDns> {
    let policy = DnsPolicy::of(&control.store).await?;
    let wanted = policy.wanted(&control.store).await?;
    let resolver = policy.resolver().map_err(|error| error.to_string());
    let one = |name: DomainName| {
        let (resolver, wanted) = (&resolver, &wanted);
        async move {
            let _turn = TURNS.acquire().await;
            let found = match resolver {
                Ok(resolver) => look_up(resolver, &name).await,
                Err(why) => Err(format!("no name server can be asked: {why}")),
            };
            judge(&name, wanted, found)
        }
    };
    let found: Vec<DnsName> = futures_util::stream::iter(names(site))
        .map(one)
        .buffered(AT_ONCE)
        .collect()
        .await;
    let dns = SiteDns {
        records: records(site, &wanted),
        names: found,
        checked_at: now_ms(),
    };
    let changed = keep(control, site.id, dns.clone());
    if changed {
        // Whoever has the page open sees it at once, whichever instance they are on.
        let event = event_of("site.dns", site.id.uuid(), Some(site.account), json!({}));
        control.store.events().announce(vec![event]).await?;
    }
    Ok(dns)
}

fn keep(control: &Control, id: SiteId, dns: SiteDns) -> bool {
    let mut book = control.dns.open();
    let since = dns.checked_at - KEPT_MS;
    book.last.retain(|_, it| it.checked_at > since);
    let names = dns.names.clone();
    let last = book.last.insert(id, dns);
    last.is_none_or(|last| last.names != names)
}

fn records(site: &Site, wanted: &BTreeSet<IpAddr>) -> Vec<DnsRecord> {
    let of = |name: DomainName| {
        wanted.iter().map(move |value| DnsRecord {
            name: name.clone(),
            kind: if value.is_ipv4() { "A" } else { "AAAA" }.to_owned(),
            value: *value,
        })
    };
    names(site).into_iter().flat_map(of).collect()
}

async fn show(db: &impl Db, policy: DnsPolicy, version: i64) -> Result<DnsSettings> {
    let wanted = policy.wanted(db).await?;
    let plain = |address: &SocketAddr| match address.port() {
        PORT => address.ip().to_string(),
        _ => address.to_string(),
    };
    Ok(DnsSettings {
        name_servers: policy.name_servers.iter().map(plain).collect(),
        addresses: policy.addresses,
        wanted: wanted.into_iter().collect(),
        version,
    })
}

async fn read(db: &impl Db) -> Result<(DnsPolicy, i64)> {
    let setting = db.settings().find(DnsPolicy::KEY).await?;
    let version = setting.map_or(0, |setting| setting.version);
    Ok((DnsPolicy::of(db).await?, version))
}

/// Where visitors must be led, and who is asked.
pub async fn settings(control: &Control) -> Result<DnsSettings> {
    let (policy, version) = read(&control.store).await?;
    show(&control.store, policy, version).await
}

fn server(text: &str) -> Result<SocketAddr> {
    let text = text.trim();
    let plain = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    text.parse().or_else(|_| plain()).map_err(|_| {
        Refusal::invalid("name_servers", format!("`{text}` is no address."))
            .remedy("Write addresses like 9.9.9.9 or [2001:db8::1]:5353.")
    })
}

fn next(now: &DnsPolicy, wish: UpdateDnsSettings) -> Result<DnsPolicy> {
    let name_servers = match wish.name_servers {
        Some(all) => all.iter().map(|it| server(it)).collect::<Result<_>>()?,
        None => now.name_servers.clone(),
    };
    let next = DnsPolicy {
        addresses: wish.addresses.unwrap_or_else(|| now.addresses.clone()),
        name_servers,
    };
    if next.addresses.len() > MOST || next.name_servers.len() > MOST {
        let field = if next.addresses.len() > MOST {
            "addresses"
        } else {
            "name_servers"
        };
        return Err(Refusal::invalid(
            field,
            format!("At most {MOST} are enough for anybody."),
        ));
    }
    if next.addresses.iter().any(IpAddr::is_unspecified) {
        return Err(Refusal::invalid(
            "addresses",
            "No domain can lead to an address of zeros.",
        ));
    }
    Ok(next)
}

/// Changes that, from now on.
pub async fn change(
    control: &Control,
    caller: &Caller,
    expected: Expected,
    wish: UpdateDnsSettings,
) -> Result<DnsSettings> {
    let tx = control.store.begin().await?;
    let (now, version) = read(&tx).await?;
    expected.check("setting", version)?;
    let next = next(&now, wish)?;
    let settings = tx.settings();
    if version > 0 {
        settings
            .update(DnsPolicy::KEY, &next, version, now_ms())
            .await?;
    } else if !settings.put_new(DnsPolicy::KEY, &next, now_ms()).await? {
        return Err(Refusal::unavailable(
            "Somebody else changes it at this moment.",
        ));
    }
    let data = json!({"before": now, "after": next});
    let subject = "settings/dns".to_owned();
    caller.did(&tx, "settings.dns", subject, None, data).await?;
    tx.commit().await?;
    control.dns.open().last.clear();
    show(&control.store, next, version + 1).await
}
