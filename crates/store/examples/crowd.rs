//! Fills a store that `undine-control init` made with accounts that have one site each, in place
//! of years of customers: for benches of what reads the store.
//!
//! `crowd URL FIRST LAST` makes the accounts FIRST to LAST, the last one excluded.

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use undine_model::lifecycle::{ServerState, SiteState};
use undine_model::{Bytes, Id, MilliCpu, ServerId};
use undine_store::{
    Account, AccountState, Db, NEW, PlanFilter, Server, ServerFilter, Site, Store, Wanted,
};

/// Rows in one transaction.
const AT_ONCE: u32 = 500;
const FIRST_UID: u32 = 20_000;

type Done<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Done<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [url, first, last] = words.as_slice() else {
        return Err("usage: crowd URL FIRST LAST".into());
    };
    let (first, last): (u32, u32) = (first.parse()?, last.parse()?);
    let store = Store::connect(url).await?;
    let server = server(&store).await?;
    let mut from = first;
    while from < last {
        let to = last.min(from + AT_ONCE);
        fill(&store, server, from..to).await?;
        from = to;
    }
    store.close().await;
    Ok(())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

/// An id of the row with this number: rising, and never the same for two tables.
fn id<K>(table: u8, number: u32) -> Id<K> {
    let mut rest = [table; 10];
    rest[6..].copy_from_slice(&number.to_be_bytes());
    Id::from_parts(now().unsigned_abs(), rest)
}

/// One transaction of accounts with their sites.
async fn fill(store: &Store, server: ServerId, numbers: std::ops::Range<u32>) -> Done<()> {
    let plan = store.plans().all(&PlanFilter::default()).await?;
    let plan = plan.first().ok_or("`undine-control init` makes the plan")?;
    let tx = store.begin().await?;
    for n in numbers {
        let account = Account {
            id: id(1, n),
            version: NEW,
            created_at: now(),
            updated_at: now(),
            name: format!("customer-{n}").parse()?,
            plan: plan.id,
            state: AccountState::Active,
            reseller: None,
        };
        tx.accounts().insert(&account).await?;
        let site = Site {
            id: id(2, n),
            version: NEW,
            created_at: now(),
            updated_at: now(),
            domain: format!("site-{n}.example").parse()?,
            account: account.id,
            server,
            uid: FIRST_UID + n,
            runtime: "static".parse()?,
            settings: serde_json::json!({"document_root": ""}),
            state: SiteState::Active,
            current_release: None,
            applied_version: 0,
            error: None,
            gone_at: None,
            state_before: None,
        };
        tx.sites().create(&site, &[]).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The server of all of them, made at the first call.
async fn server(store: &Store) -> Done<ServerId> {
    let all = store.servers().all(&ServerFilter::default()).await?;
    if let Some(first) = all.first() {
        return Ok(first.id);
    }
    let server = Server {
        id: id(3, 0),
        version: NEW,
        created_at: now(),
        updated_at: now(),
        name: "static-1".parse()?,
        profile: "static".parse()?,
        image_hash: None,
        node: None,
        state: ServerState::Stopped,
        wanted: Wanted::Stopped,
        epoch: 1,
        memory: Bytes::mib(512),
        vcpus: 1,
        cpu: MilliCpu(1_000),
        disk: Bytes::gib(2),
        replica_count: 1,
        slots: 1,
        importance: 5,
        blank: true,
        template: false,
        smtp: false,
        mac: "02:75:6e:00:01:01".to_owned(),
        ipv4: std::net::Ipv4Addr::new(10, 214, 1, 1),
        ipv6: "fd5e:d1e0:214::1:1".parse()?,
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
        machine: None,
        cpu_model: None,
        operation: None,
        error: None,
        reason: "made for a bench".to_owned(),
        scrubbed_at: None,
        manifest_version: 0,
        manifest_applied: 0,
    };
    store.servers().insert(&server).await?;
    Ok(server.id)
}
