//! What benches make for themselves: a plan with high limits, an account, servers of their own.
//! All of it is found again and removed by name, also after a bench that broke off.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::api::{Api, text};

/// Account and plan.
pub const NAME: &str = "bench";
/// Servers of benches begin with this.
pub const PREFIX: &str = "bench-";
/// A cold boot under emulation on a busy machine ends within this.
pub const BOOT: Duration = Duration::from_secs(600);
/// Requests at a time when many sites are made or removed.
const AT_ONCE: usize = 8;
/// Sites that are waited for together.
const CHUNK: usize = 100;
/// A chunk ends within this.
const PATIENCE: Duration = Duration::from_secs(900);

const MIB: u64 = 1 << 20;

/// The account, on a plan that thousands of small sites fit into. Answers its id.
pub fn account(api: &Api) -> Result<String> {
    plan(api, NAME, 128, 16)?;
    account_on(api, NAME, NAME)
}

/// Makes a plan for many sites of so many MiB of memory and disk, when it is not there.
pub fn plan(api: &Api, name: &str, memory_mib: u64, disk_mib: u64) -> Result<()> {
    if api.find("/v1/plans", "name", name)?.is_some() {
        return Ok(());
    }
    let site = json!({
        "cpu": 1000, "memory": memory_mib * MIB, "processes": 50, "io_bytes_per_s": 100 * MIB,
        "iops": 5000, "disk": disk_mib * MIB, "inodes": 60 * disk_mib,
    });
    let limits = json!({ "sites": 100_000, "databases": 1000, "site": site });
    api.post("/v1/plans", &json!({ "name": name, "limits": limits }))?;
    Ok(())
}

/// The account with this name, made on this plan when it is not there. Answers its id.
pub fn account_on(api: &Api, name: &str, plan: &str) -> Result<String> {
    let account = match api.find("/v1/accounts", "name", name)? {
        Some(account) => account,
        None => api.post("/v1/accounts", &json!({ "name": name, "plan": plan }))?,
    };
    Ok(text(&account, "id").to_owned())
}

/// Makes a server and waits until it runs. Answers its id.
pub fn server(api: &Api, name: &str, profile: &str, more: &Value) -> Result<String> {
    println!("server {name} ({profile})");
    let mut wish = json!({ "name": name, "profile": profile });
    if let (Some(wish), Some(more)) = (wish.as_object_mut(), more.as_object()) {
        wish.extend(more.clone());
    }
    let answer = api.post("/v1/servers", &wish)?;
    let id = text(&answer["server"], "id").to_owned();
    api.wait(&answer, BOOT)
        .with_context(|| format!("server {name} does not come up"))?;
    Ok(id)
}

/// Removes the account's sites, and the servers of benches.
pub fn sweep(api: &Api) -> Result<()> {
    for account in [NAME, APP_ACCOUNT] {
        if let Some(account) = api.find("/v1/accounts", "name", account)? {
            remove_sites(api, text(&account, "id"))?;
        }
    }
    for server in api.all("/v1/servers")? {
        let name = text(&server, "name");
        if name.starts_with(PREFIX) {
            println!("removing server {name}");
            let answer = api.delete(&format!("/v1/servers/{}", text(&server, "id")))?;
            api.wait(&answer, BOOT)?;
        }
    }
    Ok(())
}

/// The account of benches that install applications: these need more room than a plain site.
pub const APP_ACCOUNT: &str = "bench-apps";

fn remove_sites(api: &Api, account: &str) -> Result<()> {
    let sites = api.all(&format!("/v1/sites?account={account}"))?;
    let ids: Vec<&str> = sites.iter().map(|site| text(site, "id")).collect();
    for (number, chunk) in ids.chunks(CHUNK).enumerate() {
        let operations = at_once(chunk, |id| api.delete(&format!("/v1/sites/{id}")))?;
        for operation in &operations {
            api.wait(operation, PATIENCE)?;
        }
        println!(
            "removed {} of {} sites",
            number * CHUNK + chunk.len(),
            ids.len()
        );
    }
    Ok(())
}

/// Fills a server with sites of a runtime until it has this many, many at once.
pub fn fill(api: &Api, server: &str, runtime: &str, hosts: &[String]) -> Result<f64> {
    let begun = Instant::now();
    for (number, chunk) in hosts.chunks(CHUNK).enumerate() {
        let part = Instant::now();
        let made = at_once(chunk, |host| {
            api.post("/v1/sites", &site(host, server, runtime))
        })?;
        for answer in &made {
            api.wait(answer, PATIENCE)?;
        }
        println!(
            "{} of {} {runtime} sites, {:.1} a second",
            number * CHUNK + chunk.len(),
            hosts.len(),
            chunk.len() as f64 / part.elapsed().as_secs_f64()
        );
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// A wish for a site.
pub fn site(host: &str, server: &str, runtime: &str) -> Value {
    json!({ "domain": host, "account": NAME, "server": server, "runtime": runtime })
}

/// Does the same for many things, several at a time; the answers come in no order.
fn at_once<T: Sync>(things: &[T], act: impl Fn(&T) -> Result<Value> + Sync) -> Result<Vec<Value>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut answers = Vec::new();
        while let Some(thing) = things.get(next.fetch_add(1, Ordering::Relaxed)) {
            answers.push(act(thing)?);
        }
        Ok(answers)
    };
    let results: Vec<Result<Vec<Value>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| match worker.join() {
                Ok(result) => result,
                Err(_) => bail!("a worker broke off"),
            })
            .collect()
    });
    let mut all = Vec::new();
    for result in results {
        all.extend(result?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once_and_a_failure_is_told() {
        let things: Vec<usize> = (0..50).collect();
        let mut done: Vec<u64> = at_once(&things, |thing| Ok(json!(thing)))
            .unwrap()
            .iter()
            .filter_map(Value::as_u64)
            .collect();
        done.sort_unstable();
        assert_eq!(done, (0..50).collect::<Vec<u64>>());
        let failed = at_once(&things, |thing| {
            if *thing == 7 {
                bail!("seven");
            }
            Ok(json!(thing))
        });
        assert_eq!(failed.unwrap_err().to_string(), "seven");
    }
}
