//! hbal as a process: its own run on a file, and its score of a state that we made.
//!
//! hbal needs minutes where we need parts of a second, so what it printed is kept beside the files
//! that it was given, under a name that their content decides: a bench that was broken off goes on
//! where it was, and a change of ours is compared with the same runs of hbal.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use undine_placement::htools::Text;

use super::usage::cpu_seconds;
use crate::files::{read, write_json};

/// What one run of hbal printed and cost.
pub(super) struct HbalRun {
    /// Score before.
    pub first: f64,
    /// Its moves.
    pub steps: Vec<Step>,
    /// Whether it came to its own end before the limit on moves.
    pub complete: bool,
    pub cpu_seconds: f64,
}

/// One move of hbal.
pub(super) struct Step {
    pub instance: String,
    /// Primary and secondary node afterwards.
    pub to: (String, Option<String>),
    pub score: f64,
}

/// What is kept of a run.
#[derive(Serialize, Deserialize)]
struct Kept {
    cpu_seconds: f64,
    output: String,
}

/// Where hbal is and where its runs are kept.
pub(super) struct Hbal<'a> {
    pub program: &'a str,
    /// No run may take more CPU seconds.
    pub most_seconds: u64,
    /// What was kept is not used.
    pub again: bool,
    /// Only what was kept is used, scores apart.
    pub kept: bool,
}

impl HbalRun {
    /// The score at its end.
    pub fn last(&self) -> f64 {
        self.steps.last().map_or(self.first, |s| s.score)
    }

    /// GiB copied up to and including each step.
    pub fn gib(&self, text: &Text) -> Vec<f64> {
        let mut moved = text.clone();
        let mut sum = 0.0;
        let node = |name: &str| text.nodes.iter().position(|n| n.name == name);
        let mut out = Vec::new();
        for step in &self.steps {
            let at = moved
                .instances
                .iter()
                .position(|i| i.name == step.instance)
                .zip(node(&step.to.0));
            if let Some((i, primary)) = at {
                let to = (primary, step.to.1.as_deref().and_then(node));
                sum += moved.instances[i].copied_gib(to);
                (moved.instances[i].primary, moved.instances[i].secondary) = to;
            }
            out.push(sum);
        }
        out
    }
}

impl Hbal<'_> {
    /// Runs hbal for at most `most` moves; `None` when there is no hbal or it was ended.
    pub fn run(&self, data: &Path, load: &Path, most: Option<usize>) -> Option<HbalRun> {
        let kept = kept_at(data, load, most)?;
        let known = (!self.again)
            .then(|| serde_json::from_str::<Kept>(&read(&kept).ok()?).ok())
            .flatten();
        let ran = match known {
            Some(ran) => ran,
            None if self.kept && most != Some(0) => return None,
            None => {
                let ran = self.start(data, load, most)?;
                // A bench that cannot keep its runs is still a bench.
                let _ = write_json(&kept, &ran);
                ran
            }
        };
        parse(&ran.output, most, ran.cpu_seconds)
    }

    fn start(&self, data: &Path, load: &Path, most: Option<usize>) -> Option<Kept> {
        let limit = format!("--cpu={}", self.most_seconds);
        let mut command = Command::new("prlimit");
        command
            .args([&limit, self.program, "-v", "-t"])
            .arg(data)
            .arg("-U")
            .arg(load);
        if let Some(most) = most {
            command.args(["-l", &most.to_string()]);
        }
        let before = cpu_seconds().1;
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let kept = Kept {
            cpu_seconds: cpu_seconds().1 - before,
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
        };
        output.status.success().then_some(kept)
    }
}

fn kept_at(data: &Path, load: &Path, most: Option<usize>) -> Option<PathBuf> {
    let content = read(data).ok()? + &read(load).ok()?;
    // FNV-1a: the same on every machine and in every version.
    let hash = content.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let most = most.map_or_else(|| "end".to_owned(), |m| m.to_string());
    Some(data.with_file_name(format!("hbal-{hash:016x}-{most}.json")))
}

fn parse(output: &str, most: Option<usize>, cpu_seconds: f64) -> Option<HbalRun> {
    let first: f64 = output
        .lines()
        .find_map(|l| l.strip_prefix("Initial score: "))?
        .trim()
        .parse()
        .ok()?;
    let steps: Vec<Step> = output.lines().filter_map(step).collect();
    Some(HbalRun {
        first,
        complete: most.is_none_or(|m| steps.len() < m),
        steps,
        cpu_seconds,
    })
}

/// A line such as `  12. vm3 node1:node2 => node4:node1 1.23456789 a=r:node4 f`.
fn step(line: &str) -> Option<Step> {
    let (number, rest) = line.trim_start().split_once(". ")?;
    number.parse::<usize>().ok()?;
    let words: Vec<&str> = rest.split(" a=").next()?.split_whitespace().collect();
    let [instance, _, "=>", to, score] = words[..] else {
        return None;
    };
    let to = match to.split_once(':') {
        Some((primary, secondary)) => (primary.to_owned(), Some(secondary.to_owned())),
        None => (to.to_owned(), None),
    };
    Some(Step {
        instance: instance.to_owned(),
        to,
        score: score.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hbals_lines_are_read_with_and_without_secondary() {
        let run = parse(
            "Initial score: 3.5\nTrying to minimize the CV...\n    \
             1. vm85 node7:node6 => node9:node7  1.5 a=r:node9 f\n    \
             2. vm6  node23        => node20         1.25 a=fa:node20\n\
             Cluster score improved from 3.5 to 1.25\n",
            Some(3),
            1.0,
        )
        .unwrap();
        assert_eq!(run.first, 3.5);
        assert_eq!(run.last(), 1.25);
        assert_eq!(run.steps[0].to, ("node9".into(), Some("node7".into())));
        assert_eq!(run.steps[1].to, ("node20".into(), None));
        assert!(run.complete);
    }
}
