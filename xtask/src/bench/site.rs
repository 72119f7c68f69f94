//! `bench site`: from the call `POST site` to the first right answer through the edge, on servers
//! that run, empty and full.
//!
//! A new site's right answer is its own page "This site is ready": it comes from the server, under
//! the site's name. For PHP the bench also sends a first program along and waits for what it says,
//! which includes the start of the site's PHP.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::api::{number, text};
use super::cluster::Cluster;
use super::flags::Flags;
use super::report::{self, seconds, table};
use super::stats::{Summary, summary};
use super::{ground, tar};
use crate::up;

/// A new site's page has this.
const READY: &str = "This site is ready";
const PATIENCE: Duration = Duration::from_secs(120);

/// One row: so many sites made on a server that has so many.
struct Measured {
    kind: &'static str,
    sites_on_server: u64,
    first: Summary,
    program: Option<Summary>,
    all: Vec<f64>,
}

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let flags = Flags::read(arguments, &["runs", "static", "php"], &["keep"])?;
    let runs: usize = flags.number("runs", 30)?;
    ensure!(runs > 0, "--runs takes at least 1");
    let crowd = [
        ("static", flags.number("static", 2000)?),
        ("php", flags.number("php", 500)?),
    ];
    let cluster = Cluster::open()?;
    ground::sweep(cluster.api())?;
    ground::account(cluster.api())?;
    let bench = Bench {
        mark: up::secret()?[..6].to_owned(),
        cluster: &cluster,
        runs,
    };
    bench.measure(crowd)?;
    if flags.has("keep") {
        println!("the sites stay; the next bench removes them");
        return Ok(());
    }
    ground::sweep(cluster.api())
}

struct Bench<'a> {
    cluster: &'a Cluster,
    /// Keeps the names of this bench apart from those of another.
    mark: String,
    runs: usize,
}

impl Bench<'_> {
    fn measure(&self, crowd: [(&'static str, usize); 2]) -> Result<()> {
        let api = self.cluster.api();
        let mib = 1u64 << 20;
        let statics = ground::server(api, "bench-static", "static", &json!({}))?;
        let php = ground::server(
            api,
            "bench-php",
            "web-php",
            &json!({ "memory": 1024 * mib }),
        )?;
        let mut measured = Vec::new();
        for ((kind, most), server) in crowd.into_iter().zip([&statics, &php]) {
            measured.push(self.round(kind, server, "empty")?);
            let there = number(&api.get(&format!("/v1/servers/{server}"))?, "sites") as usize;
            if most > there {
                let hosts: Vec<String> = (there..most)
                    .map(|index| self.host(kind, "crowd", index))
                    .collect();
                let took = ground::fill(api, server, kind, &hosts)?;
                println!("{} {kind} sites in {took:.0} s", hosts.len());
                measured.push(self.round(kind, server, "full")?);
            }
            // What is known so far is kept, whatever comes of the rest.
            tell(self.cluster, &measured)?;
        }
        Ok(())
    }

    fn host(&self, kind: &str, round: &str, index: usize) -> String {
        format!(
            "{kind}-{round}-{index}-{}.{}",
            self.mark, self.cluster.domain
        )
    }

    /// Makes sites one after the other.
    fn round(&self, kind: &'static str, server: &str, round: &str) -> Result<Measured> {
        let api = self.cluster.api();
        let there = number(&api.get(&format!("/v1/servers/{server}"))?, "sites");
        let (mut all, mut programs) = (Vec::new(), Vec::new());
        for index in 0..self.runs {
            let host = self.host(kind, round, index);
            let begun = Instant::now();
            let made = api.post("/v1/sites", &ground::site(&host, server, kind))?;
            let called = begun.elapsed().as_secs_f64();
            let first = self.cluster.first_answer(&host, READY, begun)?;
            let operation = api.wait(&made, PATIENCE)?;
            all.push(first);
            println!(
                "{kind} {:2} of {} beside {there}: {first:.2} s (call {called:.2}; {})",
                index + 1,
                self.runs,
                steps(&operation)
            );
            if kind == "php" {
                programs.push(first + self.program(text(&made["site"], "id"), &host)?);
            }
        }
        let first = summary(&all).unwrap_or(Summary {
            n: 0,
            p50: 0.0,
            p95: 0.0,
            max: 0.0,
        });
        Ok(Measured {
            kind,
            sites_on_server: there,
            first,
            program: summary(&programs),
            all,
        })
    }

    /// From the upload of a first program to what it says.
    fn program(&self, site: &str, host: &str) -> Result<f64> {
        let program = b"<?php echo 'computed ', 6 * 7;";
        let archive = tar::archive(&[("index.php", program)]);
        let hash = super::hash(&archive);
        let path = format!("/v1/sites/{site}/releases?format=tar&sha256={hash}&activate=true");
        let begun = Instant::now();
        let sent = self
            .cluster
            .api()
            .upload(&path, "application/octet-stream", &archive)?;
        let took = self.cluster.first_answer(host, "computed 42", begun)?;
        self.cluster.api().wait(&sent, PATIENCE)?;
        Ok(took)
    }
}

/// How long each step of an operation took, by control's clock.
fn steps(operation: &Value) -> String {
    let steps = operation["steps"].as_array().into_iter().flatten();
    steps
        .map(|step| {
            let took = number(step, "ended_at").saturating_sub(number(step, "started_at"));
            format!("{} {:.2}", text(step, "name"), took as f64 / 1000.0)
        })
        .collect::<Vec<_>>()
        .join(", ")
}

fn tell(cluster: &Cluster, measured: &[Measured]) -> Result<()> {
    let rows: Vec<Vec<String>> = measured
        .iter()
        .map(|row| {
            vec![
                row.kind.to_owned(),
                row.sites_on_server.to_string(),
                row.first.n.to_string(),
                seconds(row.first.p50),
                seconds(row.first.p95),
                row.program.map_or_else(String::new, |it| seconds(it.p50)),
                row.program.map_or_else(String::new, |it| seconds(it.p95)),
            ]
        })
        .collect();
    table(
        &[
            "POST site to first right answer",
            "beside",
            "runs",
            "p50",
            "p95",
            "own PHP p50",
            "p95",
        ],
        &rows,
    );
    let growth = growth(measured);
    if let Some(growth) = growth {
        println!("\n  static, p50 among many / p50 at none: {growth:.2} (at most 2 is wanted)");
    }
    let runs: Vec<Value> = measured.iter().map(json).collect();
    report::write(
        "site",
        &cluster.machine,
        &json!({ "runs": runs, "static_p50_growth": growth }),
    )
}

fn json(row: &Measured) -> Value {
    json!({
        "kind": row.kind,
        "sites_on_server": row.sites_on_server,
        "first_answer_s": row.first.rounded(),
        "first_own_program_s": row.program.map(Summary::rounded),
        "all_s": row.all.iter().copied().map(super::stats::thousandths).collect::<Vec<_>>(),
    })
}

/// How much slower a static site is among many than on an empty server.
fn growth(measured: &[Measured]) -> Option<f64> {
    let mut statics = measured.iter().filter(|row| row.kind == "static");
    let (empty, full) = (statics.next()?, statics.next()?);
    (empty.first.p50 > 0.0).then(|| full.first.p50 / empty.first.p50)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &'static str, p50: f64) -> Measured {
        Measured {
            kind,
            sites_on_server: 0,
            first: summary(&[p50]).unwrap(),
            program: None,
            all: vec![p50],
        }
    }

    #[test]
    fn growth_compares_static_sites_with_static_sites() {
        let measured = [row("static", 0.5), row("php", 9.0), row("static", 0.75)];
        assert_eq!(growth(&measured), Some(1.5));
        assert_eq!(growth(&measured[..2]), None);
    }

    #[test]
    fn steps_are_told_with_their_seconds() {
        let operation = json!({"steps": [
            {"name": "apply", "started_at": 1000, "ended_at": 1250},
            {"name": "open", "started_at": 1250, "ended_at": null},
        ]});
        assert_eq!(steps(&operation), "apply 0.25, open 0.00");
    }
}
