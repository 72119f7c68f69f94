//! What the bench tells: recoveries by kind, phases, visitors, writes.

use serde_json::{Map, Value, json};

use super::Recovery;
use super::phases::NAMES;
use crate::bench::stats::{Summary, summary, thousandths};
use crate::chaos::checker;
use crate::trial::fleet::Content;
use crate::trial::journal::{Found, Log};

/// Everything, for a file.
pub fn result(all: &[Recovery], resync_s: &[f64], log: &Log, found: &[Found]) -> Value {
    let whole = |contents: &[Content]| {
        let ours = all.iter().filter(|it| contents.contains(&it.content));
        summary(&ours.map(|it| it.phases.whole_s).collect::<Vec<_>>())
    };
    let detect: Vec<f64> = all.iter().map(|it| it.phases.detect_s).collect();
    let failed: Vec<&str> = log
        .reads
        .iter()
        .filter_map(|it| it.trouble.as_deref())
        .collect();
    let lost = checker::lost(&log.writes, found);
    let unacked = log.writes.iter().filter(|it| !it.is_acked).count();
    json!({
        "rounds": resync_s.len(),
        "recovery_s": whole(&[Content::Static, Content::Php]).map(Summary::rounded),
        "recovery_wordpress_s": whole(&[Content::WordPress]).map(Summary::rounded),
        "recovery_static_s": whole(&[Content::Static]).map(Summary::rounded),
        "recovery_php_s": whole(&[Content::Php]).map(Summary::rounded),
        "detect_s": summary(&detect).map(Summary::rounded),
        "phases_s": {
            "static_php": phases(all, &[Content::Static, Content::Php]),
            "wordpress": phases(all, &[Content::WordPress]),
        },
        "requests": log.reads.len(),
        "failed_requests": failed.len(),
        "failures": failed.iter().take(20).collect::<Vec<_>>(),
        "acked_writes": log.writes.iter().filter(|it| it.is_acked).count(),
        "unacknowledged_writes": unacked,
        "lost_writes": lost.len(),
        "lost": lost.iter().take(20).collect::<Vec<_>>(),
        "resync_s": summary(resync_s).map(Summary::rounded),
        "recoveries": all.iter().map(one).collect::<Vec<_>>(),
    })
}

fn phases(all: &[Recovery], contents: &[Content]) -> Value {
    let ours: Vec<[f64; 6]> = all
        .iter()
        .filter(|it| contents.contains(&it.content))
        .map(|it| it.phases.parts())
        .collect();
    let mut told = Map::new();
    for (at, name) in NAMES.iter().enumerate() {
        let values: Vec<f64> = ours.iter().map(|parts| parts[at]).collect();
        told.insert(
            (*name).to_owned(),
            json!(summary(&values).map(Summary::rounded)),
        );
    }
    Value::Object(told)
}

fn one(recovery: &Recovery) -> Value {
    let parts = NAMES.iter().zip(recovery.phases.parts());
    let parts: Map<String, Value> = parts
        .map(|(name, s)| ((*name).to_owned(), json!(thousandths(s))))
        .collect();
    json!({
        "round": recovery.round, "server": recovery.server, "content": recovery.content,
        "whole_s": thousandths(recovery.phases.whole_s), "phases_s": parts,
    })
}

/// For people.
pub fn print(result: &Value) {
    println!("\n  kill to right page      n    p50     p95     max");
    for (title, name) in [
        ("static and PHP", "recovery_s"),
        ("WordPress", "recovery_wordpress_s"),
        ("detection alone", "detect_s"),
        ("copies in sync again", "resync_s"),
    ] {
        let it = &result[name];
        let s = |field: &str| it[field].as_f64().unwrap_or(f64::NAN);
        println!(
            "  {title:20} {:4} {:6.2} {:7.2} {:7.2}",
            it["n"].as_u64().unwrap_or(0),
            s("p50"),
            s("p95"),
            s("max")
        );
    }
    println!(
        "  {} requests, {} failed; {} writes acknowledged, {} lost",
        result["requests"],
        result["failed_requests"],
        result["acked_writes"],
        result["lost_writes"]
    );
    for word in ["failures", "lost"] {
        for it in result[word].as_array().into_iter().flatten() {
            println!("    {it}");
        }
    }
}
