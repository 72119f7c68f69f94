//! `bench panel`: how quickly one instance of control writes the panel's pages, among few
//! accounts and among many. It starts an instance of its own, on SQLite, without any node.

mod guest;
mod instance;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::flags::Flags;
use super::report::{self, Machine};
use super::stats::thousandths;
use crate::command::ask;
use crate::machine::{self, FOR_PANEL, cargo};
use guest::Guest;
use instance::Instance;

/// Accounts, one site each.
const CROWDS: [u32; 2] = [10, 10_000];
/// What the issue promises of the domain list of 10,000 accounts.
const PROMISED_MS: f64 = 50.0;
/// Tells what was measured as JSON; times are in microseconds.
const SCRIPT: &str = r#"done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('\n{"requests":%d,"duration":%d,"p50":%d,"p99":%d,"failed":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let flags = Flags::read(arguments, &["seconds"], &["release"])?;
    let seconds: u32 = flags.number("seconds", 30)?;
    machine::provide(&[FOR_PANEL], true)?;
    let profile = if flags.has("release") {
        "release"
    } else {
        "dev"
    };
    cargo(&["build", "--profile", profile, "-p", "undine-control"])?;
    cargo(&[
        "build",
        "--profile",
        profile,
        "-p",
        "undine-store",
        "--example",
        "crowd",
    ])?;
    let instance = Instance::start(flags.has("release"))?;
    std::fs::write(instance.folder().join("told.lua"), SCRIPT)?;
    let owner = Guest::come_in(instance.address(), &instance.owner_link()?, "owner")?;
    let (mut runs, mut filled) = (Vec::new(), 0);
    for accounts in CROWDS {
        instance.fill(filled, accounts)?;
        filled = accounts;
        let link = owner.invites(&instance.api()?)?;
        let customer = Guest::come_in(instance.address(), &link, &format!("customer-{accounts}"))?;
        for (page, path, who) in [
            ("domain list of a customer", "/sites", &customer),
            ("domain list of the provider", "/sites", &owner),
            ("accounts", "/accounts", &owner),
            ("cluster", "/cluster", &owner),
        ] {
            who.sees(path)?;
            let mut run = measured(&instance, who, path, seconds)?;
            run["accounts"] = json!(accounts);
            run["page"] = json!(page);
            runs.push(run);
        }
    }
    show(&runs);
    report::write(
        "panel",
        &Machine::of("not used"),
        &json!({"runs": runs, "profile": profile, "seconds": seconds, "connections": 8, "store": "SQLite"}),
    )?;
    kept(&runs)
}

/// One page, asked for by eight at a time.
fn measured(instance: &Instance, who: &Guest, path: &str, seconds: u32) -> Result<Value> {
    let script = instance.folder().join("told.lua");
    let told = ask(
        "wrk",
        &[
            "-t2",
            "-c8",
            &format!("-d{seconds}s"),
            "-s",
            &script.to_string_lossy(),
            "-H",
            &who.header(),
            &format!("http://{}{path}", instance.address()),
        ],
    )?;
    let line = told.lines().rev().find(|line| line.starts_with('{'));
    let told: Value = serde_json::from_str(line.context("wrk told nothing")?)?;
    let number = |name: &str| told[name].as_f64().unwrap_or_default();
    ensure!(
        number("failed") == 0.0 && number("requests") > 0.0,
        "{path} failed {} times of {}; see {}",
        number("failed"),
        number("requests"),
        instance.log().display()
    );
    Ok(json!({
        "instances": 1,
        "requests_per_s": thousandths(number("requests") / (number("duration") / 1e6)),
        "p50_ms": thousandths(number("p50") / 1e3),
        "p99_ms": thousandths(number("p99") / 1e3),
    }))
}

fn show(runs: &[Value]) {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let columns = ["page", "accounts", "requests_per_s", "p50_ms", "p99_ms"];
    let row = |run: &Value| columns.map(|column| text(&run[column])).to_vec();
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    report::table(
        &["page", "accounts", "requests/s", "p50 ms", "p99 ms"],
        &rows,
    );
}

/// Is what the domain lists promise kept?
fn kept(runs: &[Value]) -> Result<()> {
    let most = runs
        .iter()
        .filter(|run| {
            run["page"]
                .as_str()
                .is_some_and(|page| page.starts_with("domain"))
        })
        .filter_map(|run| run["p99_ms"].as_f64())
        .fold(0.0, f64::max);
    ensure!(
        most <= PROMISED_MS,
        "a domain list took {most} ms at the 99th of a hundred, promised are {PROMISED_MS} ms"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_domain_list_fails_the_bench_and_a_slow_other_page_does_not() {
        let run = |page: &str, p99: f64| json!({"page": page, "p99_ms": p99});
        assert!(kept(&[run("domain list of a customer", 49.0), run("cluster", 90.0)]).is_ok());
        assert!(kept(&[run("domain list of the provider", 51.0)]).is_err());
    }
}
