//! `bench image`: two builds of the server image from nothing give one hash.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::flags::Flags;
use super::report::{self, Machine, seconds, table};
use super::stats::thousandths;
use crate::command::command;

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    Flags::read(arguments, &[], &[])?;
    let program = std::env::current_exe().context("this program's own file is unknown")?;
    let words = ["image", "--check-reproducible"];
    let begun = Instant::now();
    let mut child = command(&program.to_string_lossy(), words)
        .stdout(Stdio::piped())
        .spawn()
        .context("the build could not be started")?;
    let lines = BufReader::new(child.stdout.take().context("the build is mute")?).lines();
    let (mut hash, mut marks) = (None, Vec::new());
    for line in lines {
        let line = line?;
        println!("[{:6.1} s] {line}", begun.elapsed().as_secs_f64());
        if line.ends_with(" build") {
            marks.push(begun.elapsed().as_secs_f64());
        }
        if let Some((_, found)) = line.split_once("gave one hash: ") {
            hash = Some(found.to_owned());
        }
    }
    let status = child.wait()?;
    let whole = begun.elapsed().as_secs_f64();
    ensure!(status.success(), "the two builds are not the same");
    let hash = hash.context("the build told no hash")?;
    marks.push(whole);
    let each: Vec<f64> = marks
        .windows(2)
        .map(|pair| thousandths(pair[1] - pair[0]))
        .collect();
    let rows: Vec<Vec<String>> = each
        .iter()
        .enumerate()
        .map(|(index, took)| vec![format!("build {}", index + 1), seconds(*took), hash.clone()])
        .collect();
    table(&["server image", "took", "hash"], &rows);
    let machine = Machine::of("not used");
    report::write(
        "image",
        &machine,
        &json!({ "same": true, "hash": hash, "build_s": each }),
    )
}
