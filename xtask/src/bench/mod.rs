//! `bench`: measures what the project promises, on this machine. Each bench prints a table and
//! writes `target/bench/NAME.json`, which names the machine. The ones that need a cluster start
//! one when none runs; none of this is part of the tests.

pub mod api;
pub mod cluster;
mod copies;
mod elsewhere;
mod failover;
pub mod flags;
pub mod ground;
mod image;
mod load;
mod memory;
mod panel;
mod placement;
pub mod proc;
pub mod report;
mod site;
mod start;
pub mod stats;
mod survival;
pub mod tar;
pub mod wire;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

const USAGE: &str = "usage: cargo xtask bench NAME [options]

  site        POST of a site until its first right answer: empty, among 2,000 static, 500 PHP
                --runs N (30)  --static N (2000)  --php N (500)  --keep
  start       start of a server, from a template and by cold boot
                --runs N (10)  --cold N (3)  --only static,web-php,wordpress
  memory      memory of every program of ours and of QEMU beyond its guest's
                --minutes M (60)
  survival    control, an agent, an edge killed with -9 while visitors come
                --requests N (500)
  failover    nodes die under visitors: how long until their servers answer again, what is lost
                --rounds N (20)
  copies      one of two copies fails under visitors: how long the longest of them waited
                --runs N (5)
  panel       the panel's pages among 10 and 10,000 accounts, eight who ask at a time; people
              at one instance and at two, the domain list at one and at three
                --seconds N (30)  --people N (200)  --release
  image       two builds of the server image, one hash
  placement   the placement library; options go to `undine-placement bench`";

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let Some((name, rest)) = arguments.split_first() else {
        println!("{USAGE}");
        return Ok(());
    };
    match name.as_str() {
        "site" => site::run(rest),
        "start" => start::run(rest),
        "memory" => memory::run(rest),
        "survival" => survival::run(rest),
        "failover" => failover::run(rest),
        "copies" => copies::run(rest),
        "panel" => panel::run(rest),
        "image" => image::run(rest),
        "placement" => placement::run(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            return Ok(());
        }
        other => bail!("there is no bench `{other}`\n{USAGE}"),
    }
    .with_context(|| format!("bench {name}"))
}

/// SHA-256, hexadecimal.
pub fn hash(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}
