//! `bench start`: a server that is down comes up, from a RAM template and by cold boot, until it
//! is healthy: data disk mounted, manifest applied, its own request answered.
//!
//! Two clocks: the caller's, from `POST start` to the operation's end, and the node's, from
//! control's request to each step's end. The first start from a template on a node takes the
//! template; it is reported apart.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::api::{Api, text};
use super::cluster::Cluster;
use super::elsewhere::{self, Elsewhere};
use super::flags::Flags;
use super::ground::{self, APP_ACCOUNT, BOOT};
use super::report::{self, seconds, table};
use super::stats::{Summary, summary, thousandths};
use crate::up::{self, layout};

/// What is measured: its name, the profile of its server, the application on it.
const KINDS: [(&str, &str, Option<&str>); 3] = [
    ("static", "static", None),
    ("web-php", "web-php", None),
    ("wordpress", "web-php", Some("wordpress")),
];

/// One start.
pub(super) struct Start {
    /// By the caller's clock.
    pub(super) whole_s: f64,
    /// By the node's clock, each step's end.
    steps_s: BTreeMap<String, f64>,
    /// Not by cold boot.
    pub(super) from_template: bool,
    /// Why it was by cold boot all the same.
    pub(super) fallback: String,
}

/// The starts of one kind of server.
struct Measured {
    kind: &'static str,
    taking_s: f64,
    template: Vec<Start>,
    cold: Vec<Start>,
}

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let flags = Flags::read(arguments, &["runs", "cold", "only"], &[])?;
    let (runs, cold): (usize, usize) = (flags.number("runs", 10)?, flags.number("cold", 3)?);
    ensure!(runs > 0 && cold > 0, "--runs and --cold take at least 1");
    let only = flags.text("only");
    if let Some(name) = only
        .into_iter()
        .flat_map(|names| names.split(','))
        .find(|name| *name != "elsewhere" && !KINDS.iter().any(|(kind, ..)| kind == name))
    {
        bail!("--only takes static, web-php, wordpress, elsewhere, not `{name}`");
    }
    let cluster = Cluster::open()?;
    ground::sweep(cluster.api())?;
    let mut measured = Vec::new();
    for (kind, profile, app) in KINDS {
        if only.is_none_or(|names| names.split(',').any(|name| name == kind)) {
            measured.push(measure(&cluster, kind, profile, app, (runs, cold))?);
            // What is known so far is kept, whatever comes of the rest.
            tell(&cluster, &measured, None)?;
        }
    }
    if only.is_none_or(|names| names.split(',').any(|name| name == "elsewhere")) {
        let elsewhere = elsewhere::measure(&cluster, runs)?;
        tell(&cluster, &measured, elsewhere.as_ref())?;
    }
    ground::sweep(cluster.api())
}

fn measure(
    cluster: &Cluster,
    kind: &'static str,
    profile: &str,
    app: Option<&str>,
    (runs, cold): (usize, usize),
) -> Result<Measured> {
    let api = cluster.api();
    let name = format!("{}{kind}", ground::PREFIX);
    let id = ground::server(api, &name, profile, &json!({ "template": false }))?;
    if let Some(app) = app {
        install(cluster, app, &id)?;
    }
    let mut measured = Measured {
        kind,
        taking_s: 0.0,
        template: Vec::new(),
        cold: Vec::new(),
    };
    for index in 1..=cold {
        measured.cold.push(start(api, kind, &id)?);
        say(kind, "cold", index, measured.cold.last());
    }
    api.patch(&format!("/v1/servers/{id}"), &json!({ "template": true }))?;
    let taking = start(api, kind, &id)?;
    say(kind, "first, takes the template", 1, Some(&taking));
    measured.taking_s = taking.whole_s;
    for index in 1..=runs {
        measured.template.push(start(api, kind, &id)?);
        say(kind, "template", index, measured.template.last());
    }
    Ok(measured)
}

pub(super) fn say(kind: &str, how: &str, index: usize, start: Option<&Start>) {
    if let Some(start) = start {
        let steps: Vec<String> = in_order(&start.steps_s)
            .iter()
            .map(|(name, at)| format!("{name} {at:.2}"))
            .collect();
        println!(
            "{kind}, {how} {index}: {:.2} s (node: {}) {}",
            start.whole_s,
            steps.join(", "),
            start.fallback
        );
    }
}

fn in_order(steps: &BTreeMap<String, f64>) -> Vec<(&String, &f64)> {
    let mut list: Vec<_> = steps.iter().collect();
    list.sort_by(|one, other| one.1.total_cmp(other.1));
    list
}

/// Puts an application into a new site on the server.
fn install(cluster: &Cluster, app: &str, server: &str) -> Result<()> {
    let api = cluster.api();
    ground::account_on(api, APP_ACCOUNT, "standard")?;
    let host = format!("app-{}.{}", &up::secret()?[..6], cluster.domain);
    let wish = json!({
        "domain": host, "account": APP_ACCOUNT, "server": server, "runtime": "php",
    });
    let made = api.post("/v1/sites", &wish)?;
    api.wait(&made, BOOT)?;
    println!("installing {app} into {host}");
    let answers = json!({
        "title": "Bench", "user": "admin", "password": up::secret()?,
        "email": "admin@example.com",
    });
    let path = format!("/v1/sites/{}/app", text(&made["site"], "id"));
    let installed = api.ask(&path, &json!({ "app": app, "answers": answers }))?;
    api.wait(&installed, BOOT).map(drop)
}

/// Stops the server, then measures its start.
pub(super) fn start(api: &Api, kind: &str, id: &str) -> Result<Start> {
    let path = format!("/v1/servers/{id}");
    api.act(&format!("{path}/stop"), BOOT)?;
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    api.act(&format!("{path}/start"), BOOT)?;
    let whole_s = begun.elapsed().as_secs_f64();
    let server = api.get(&path)?;
    let node = api.get(&format!("/v1/nodes/{}", text(&server, "node")))?;
    let file = layout::state(text(&node, "name"))
        .join("servers")
        .join(id)
        .join("state.json");
    let bytes = std::fs::read(&file)
        .with_context(|| format!("{kind}: {} cannot be read", file.display()))?;
    let state: Value = serde_json::from_slice(&bytes)?;
    Ok(told(whole_s, &state["start"]))
}

/// What the node says of a start.
fn told(whole_s: f64, report: &Value) -> Start {
    let steps = report["steps_s"].as_array().into_iter().flatten();
    Start {
        whole_s,
        steps_s: steps
            .filter_map(|step| Some((step[0].as_str()?.to_owned(), step[1].as_f64()?)))
            .collect(),
        from_template: report["from_template"] == json!(true),
        fallback: text(report, "fallback").to_owned(),
    }
}

fn whole(starts: &[Start]) -> Option<Summary> {
    summary(&starts.iter().map(|start| start.whole_s).collect::<Vec<_>>())
}

/// The median end of each step, by the node's clock.
fn steps(starts: &[Start]) -> BTreeMap<String, f64> {
    let mut by_step: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, at) in starts.iter().flat_map(|start| &start.steps_s) {
        by_step.entry(name).or_default().push(*at);
    }
    by_step
        .into_iter()
        .filter_map(|(name, ends)| Some((name.clone(), thousandths(summary(&ends)?.p50))))
        .collect()
}

/// How many were to come from a template and did not.
fn fallbacks(measured: &Measured) -> usize {
    let fell = |start: &&Start| !start.from_template;
    measured.template.iter().filter(fell).count()
}

fn tell(cluster: &Cluster, measured: &[Measured], elsewhere: Option<&Elsewhere>) -> Result<()> {
    let mut rows = Vec::new();
    let mut by_profile = serde_json::Map::new();
    for one in measured {
        let (Some(template), Some(cold)) = (whole(&one.template), whole(&one.cold)) else {
            continue;
        };
        rows.push(vec![
            one.kind.to_owned(),
            seconds(template.p50),
            seconds(template.max),
            seconds(cold.p50),
            format!("{:.1}", cold.p50 / template.p50),
            seconds(one.taking_s),
            fallbacks(one).to_string(),
        ]);
        let story = json!({
            "template_s": template.rounded(),
            "cold_s": cold.rounded(),
            "times_quicker": thousandths(cold.p50 / template.p50),
            "first_with_taking_s": thousandths(one.taking_s),
            "fell_back_to_cold": fallbacks(one),
            "node_template_steps_s": steps(&one.template),
            "node_cold_steps_s": steps(&one.cold),
        });
        by_profile.insert(one.kind.to_owned(), story);
    }
    table(
        &[
            "POST start to healthy",
            "template p50",
            "max",
            "cold p50",
            "times",
            "first (takes it)",
            "fell back",
        ],
        &rows,
    );
    let first = by_profile
        .get("static")
        .or_else(|| by_profile.values().next())
        .cloned()
        .unwrap_or_default();
    let result = json!({
        "template_s": first["template_s"], "cold_s": first["cold_s"], "by_profile": by_profile,
        "restored_elsewhere_s": elsewhere.map(|it| it.starts.rounded()),
        "elsewhere": elsewhere.map(|it| json!({
            "taken_on": it.taken_on, "restored_on": it.restored_on,
            "copied_after_s": thousandths(it.copied_after_s),
        })),
    });
    if let Some(it) = elsewhere {
        println!(
            "\n  taken on {}, copied to {} after {:.1} s, started there: p50 {} max {}",
            it.taken_on,
            it.restored_on,
            it.copied_after_s,
            seconds(it.starts.p50),
            seconds(it.starts.max)
        );
    }
    report::write("start", &cluster.machine, &result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_report_is_read_step_by_step() {
        let start = told(
            3.0,
            &json!({"from_template": true, "steps_s": [["vm", 0.5], ["health", 2.5]]}),
        );
        assert!(start.from_template && start.fallback.is_empty());
        assert_eq!(in_order(&start.steps_s)[0].0, "vm");
        assert_eq!(steps(&[start])["health"], 2.5);
    }

    #[test]
    fn a_start_that_fell_back_is_counted_apart() {
        let cold = told(9.0, &json!({"from_template": false, "fallback": "no room"}));
        let measured = Measured {
            kind: "static",
            taking_s: 0.0,
            template: vec![cold, told(2.0, &json!({"from_template": true}))],
            cold: Vec::new(),
        };
        assert_eq!(fallbacks(&measured), 1);
    }
}
