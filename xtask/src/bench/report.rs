//! What a bench leaves: a table for people, a JSON file that names the machine.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::command::ask;
use crate::machine;
use crate::up::layout;

/// The machine that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    accelerator: String,
    date: String,
    commit: String,
}

impl Machine {
    /// This machine; the accelerator is what its nodes say of themselves.
    pub fn of(accelerator: &str) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let date = ask("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]).unwrap_or_default();
        let checkout = layout::checkout();
        let commit = ask(
            "git",
            &[
                "-C",
                &checkout.to_string_lossy(),
                "rev-parse",
                "--short",
                "HEAD",
            ],
        );
        Self {
            cpu: cpu_model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: machine::memory_mib(),
            kernel: kernel.trim().to_owned(),
            accelerator: accelerator.to_owned(),
            date: date.trim().to_owned(),
            commit: commit.unwrap_or_default().trim().to_owned(),
        }
    }
}

fn cpu_model(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// Writes `target/bench/NAME.json`, the machine first.
pub fn write(name: &str, machine: &Machine, result: &Value) -> Result<()> {
    let folder = layout::checkout().join("target/bench");
    let path = folder.join(format!("{name}.json"));
    let mut whole = json!({ "bench": name, "machine": machine });
    if let (Some(whole), Some(result)) = (whole.as_object_mut(), result.as_object()) {
        whole.extend(result.clone());
    }
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&path, format!("{whole:#}\n")))
        .with_context(|| format!("{} could not be written", path.display()))?;
    println!(
        "\n{} ({} cores, {}, {} MiB, kernel {})\nThe same for programs: {}",
        machine.cpu,
        machine.cores,
        machine.accelerator,
        machine.memory_mib,
        machine.kernel,
        path.display()
    );
    Ok(())
}

/// Prints rows below their titles; the first column is text, the others are figures.
pub fn table(titles: &[&str], rows: &[Vec<String>]) {
    print!("{}", laid_out(titles, rows));
}

fn laid_out(titles: &[&str], rows: &[Vec<String>]) -> String {
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    let width = |column: usize| {
        std::iter::once(&titles)
            .chain(rows)
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let mut text = String::from("\n");
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or(0);
            if column == 0 {
                line.push_str(&format!("  {cell:width$}"));
            } else {
                line.push_str(&format!("  {cell:>width$}"));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Seconds, as a table shows them.
pub fn seconds(value: f64) -> String {
    format!("{value:.2} s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_its_columns_up() {
        let rows = [
            vec!["static".to_owned(), "0.50 s".to_owned()],
            vec!["php".to_owned(), "11.50 s".to_owned()],
        ];
        assert_eq!(
            laid_out(&["kind", "p50"], &rows),
            "\n  kind        p50\n  static   0.50 s\n  php     11.50 s\n"
        );
    }

    #[test]
    fn the_processor_is_named_as_the_kernel_names_it() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t: fpu\n";
        assert_eq!(cpu_model(text), "Some CPU @ 2.0GHz");
        assert_eq!(cpu_model(""), "unknown");
    }
}
