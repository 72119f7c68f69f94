//! Ganeti's htools text format (`hbal -t`): reading with exact error positions, and writing.
//! Long because reader and writer of a section stand together.
//!
//! Five sections, one empty line apart, columns divided by `|`: groups, nodes, instances, cluster
//! tags, instance policies. Format: the manual page htools(1) of Ganeti 3.0.

use std::collections::HashMap;
use std::fmt::Write as _;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("line {line}, field {field}: {what}")]
pub struct TextError {
    /// Line, counted from 1 (0: the text as a whole).
    pub line: usize,
    /// Name of the field as in htools(1).
    pub field: &'static str,
    /// What is wrong with it.
    pub what: String,
}

/// One node as the text has it.
#[derive(Debug, Clone, PartialEq)]
pub struct TextNode {
    /// Name.
    pub name: String,
    /// Total memory, MiB.
    pub total_memory: i64,
    /// Memory the node itself uses, MiB.
    pub node_memory: i64,
    /// Free memory as reported, MiB.
    pub free_memory: i64,
    /// Total disk, MiB.
    pub total_disk: i64,
    /// Free disk, MiB.
    pub free_disk: i64,
    /// Physical cores.
    pub cores: i64,
    /// The node is off line and may take nothing.
    pub offline: bool,
    /// Index of its group.
    pub group: usize,
    /// Spindles.
    pub spindles: i64,
    /// Tags.
    pub tags: Vec<String>,
    /// Cores that the node itself uses.
    pub node_cpu: i64,
    /// Relative speed of a core.
    pub cpu_speed: f64,
    /// The line's columns, for writing what we do not use back unchanged.
    columns: Vec<String>,
}

/// One instance (a server) as the text has it.
#[derive(Debug, Clone, PartialEq)]
pub struct TextInstance {
    /// Name.
    pub name: String,
    /// Memory, MiB.
    pub memory: i64,
    /// Disk, MiB.
    pub disk: i64,
    /// Virtual CPUs.
    pub vcpus: i64,
    /// It runs (and so uses memory).
    pub running: bool,
    /// It may be moved, and counts for N+1.
    pub auto_balance: bool,
    /// Index of the primary node.
    pub primary: usize,
    /// Index of the secondary node.
    pub secondary: Option<usize>,
    /// Template of its disk.
    pub template: Template,
    /// Tags.
    pub tags: Vec<String>,
    /// Spindles it uses.
    pub spindle_use: i64,
    /// CPU, memory, disk and network load from the `-U` file; one each when it says nothing.
    pub load: [f64; 4],
    columns: Vec<String>,
}

/// How an instance's disk can follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// Storage seen by all nodes: a move copies memory only.
    Shared,
    /// Mirrored to the secondary node.
    Drbd,
    /// On the primary node only: it never moves.
    Local,
    /// No disk: it never moves.
    Diskless,
}

/// A whole text.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    groups: Vec<String>,
    group_names: Vec<String>,
    /// The nodes.
    pub nodes: Vec<TextNode>,
    /// The instances.
    pub instances: Vec<TextInstance>,
    /// The cluster's tags.
    pub tags: Vec<String>,
    policies: Vec<String>,
    /// Most virtual CPUs a core may carry.
    pub vcpu_ratio: f64,
    /// Most instance spindles a spindle may carry.
    pub spindle_ratio: f64,
}

fn bad(line: usize, field: &'static str, what: impl Into<String>) -> TextError {
    TextError {
        line,
        field,
        what: what.into(),
    }
}

struct Line<'a> {
    no: usize,
    columns: Vec<&'a str>,
}

impl<'a> Line<'a> {
    fn new(no: usize, text: &'a str, least: usize, kind: &'static str) -> Result<Self, TextError> {
        let columns: Vec<&str> = text.split('|').collect();
        if columns.len() < least {
            return Err(bad(
                no,
                kind,
                format!(
                    "{} columns where at least {least} are needed",
                    columns.len()
                ),
            ));
        }
        Ok(Self { no, columns })
    }

    fn get(&self, at: usize) -> &'a str {
        self.columns.get(at).copied().unwrap_or("")
    }

    fn name(&self, at: usize, field: &'static str) -> Result<String, TextError> {
        match self.get(at).trim() {
            "" => Err(bad(self.no, field, "is empty")),
            name => Ok(name.to_owned()),
        }
    }

    fn number(&self, at: usize, field: &'static str, missing: i64) -> Result<i64, TextError> {
        let text = self.get(at).trim();
        if text.is_empty() && at >= self.columns.len() {
            return Ok(missing);
        }
        let value: f64 = text
            .parse()
            .map_err(|_| bad(self.no, field, format!("{text:?} is no number")))?;
        if !value.is_finite() || value < 0.0 {
            return Err(bad(
                self.no,
                field,
                format!("{text} is not a number of zero or more"),
            ));
        }
        if value > 1e13 {
            return Err(bad(
                self.no,
                field,
                format!("{text} is beyond any real machine"),
            ));
        }
        Ok(value as i64)
    }

    fn letter(
        &self,
        at: usize,
        field: &'static str,
        allowed: &[&str],
    ) -> Result<&'a str, TextError> {
        let text = self.get(at).trim();
        if allowed.contains(&text) {
            Ok(text)
        } else {
            Err(bad(
                self.no,
                field,
                format!("{text:?} is none of {}", allowed.join(", ")),
            ))
        }
    }

    fn owned(&self) -> Vec<String> {
        self.columns.iter().map(|c| (*c).to_owned()).collect()
    }
}

fn tags(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Divides the text into its five sections of numbered lines.
fn sections(text: &str) -> [Vec<(usize, &str)>; 5] {
    let mut out: [Vec<(usize, &str)>; 5] = Default::default();
    let mut at = 0;
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            at = (at + 1).min(4);
        } else {
            out[at].push((i + 1, line));
        }
    }
    out
}

impl Text {
    /// Reads the content of a `-t` file.
    ///
    /// # Errors
    /// The first line and field that is malformed, unknown or contradictory.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let [groups, nodes, instances, tag_lines, policies] = sections(text);
        let mut group_ids = HashMap::new();
        let mut group_names = Vec::new();
        for (i, (no, line)) in groups.iter().enumerate() {
            let line = Line::new(*no, line, 2, "group")?;
            group_names.push(line.name(0, "group name")?);
            group_ids.insert(line.name(1, "group uuid")?, i);
        }
        if groups.is_empty() {
            return Err(bad(0, "groups", "the text has no node group"));
        }
        let nodes = parse_nodes(&nodes, &group_ids)?;
        let instances = parse_instances(&instances, &nodes)?;
        let (vcpu_ratio, spindle_ratio) = parse_policies(&policies)?;
        Ok(Self {
            groups: groups.iter().map(|(_, l)| (*l).to_owned()).collect(),
            group_names,
            nodes,
            instances,
            tags: tag_lines.iter().map(|(_, l)| l.trim().to_owned()).collect(),
            policies: policies.iter().map(|(_, l)| (*l).to_owned()).collect(),
            vcpu_ratio,
            spindle_ratio,
        })
    }

    /// Names of the node groups.
    #[must_use]
    pub fn group_names(&self) -> &[String] {
        &self.group_names
    }

    /// Reads the content of a `-U` file (`instance cpu memory disk net`) into the instances.
    ///
    /// # Errors
    /// The line and field that is malformed, or names an unknown instance.
    pub fn apply_load(&mut self, text: &str) -> Result<(), TextError> {
        const FIELDS: [&str; 4] = ["cpu", "memory", "disk", "net"];
        let by_name: HashMap<String, usize> = self
            .instances
            .iter()
            .enumerate()
            .map(|(i, s)| (s.name.clone(), i))
            .collect();
        for (i, line) in text
            .lines()
            .enumerate()
            .filter(|(_, l)| !l.trim().is_empty())
        {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default();
            let Some(&at) = by_name.get(name) else {
                return Err(bad(i + 1, "instance", format!("{name:?} is unknown")));
            };
            for (k, field) in FIELDS.into_iter().enumerate() {
                let word = words
                    .next()
                    .ok_or_else(|| bad(i + 1, field, "is missing"))?;
                let value: f64 = word
                    .parse()
                    .map_err(|_| bad(i + 1, field, format!("{word:?} is no number")))?;
                if !(0.0..=1e9).contains(&value) {
                    return Err(bad(i + 1, field, format!("{word} is no load")));
                }
                self.instances[at].load[k] = value;
            }
            if words.next().is_some() {
                return Err(bad(i + 1, "line", "has more than five columns"));
            }
        }
        Ok(())
    }

    /// Writes the text with the given primary and secondary of each instance; free memory and disk
    /// are computed anew (hbal's own `-S` leaves free memory stale).
    #[must_use]
    pub fn render(&self, places: &[(usize, Option<usize>)]) -> String {
        let mut memory: Vec<i64> = self.nodes.iter().map(|n| n.free_memory).collect();
        let mut disk: Vec<i64> = self.nodes.iter().map(|n| n.free_disk).collect();
        for (s, &(primary, secondary)) in self.instances.iter().zip(places) {
            if s.running {
                memory[s.primary] += s.memory;
                memory[primary] -= s.memory;
            }
            if s.template == Template::Drbd {
                for n in [Some(s.primary), s.secondary].into_iter().flatten() {
                    disk[n] += s.disk;
                }
                for n in [Some(primary), secondary].into_iter().flatten() {
                    disk[n] -= s.disk;
                }
            }
        }
        let mut out = String::new();
        for g in &self.groups {
            let _ = writeln!(out, "{g}");
        }
        out.push('\n');
        for (i, n) in self.nodes.iter().enumerate() {
            let mut columns = n.columns.clone();
            columns[3] = memory[i].to_string();
            columns[5] = disk[i].to_string();
            let _ = writeln!(out, "{}", columns.join("|"));
        }
        out.push('\n');
        for (s, &(primary, secondary)) in self.instances.iter().zip(places) {
            let mut columns = s.columns.clone();
            columns[6].clone_from(&self.nodes[primary].name);
            columns[7] = secondary.map_or(String::new(), |n| self.nodes[n].name.clone());
            let _ = writeln!(out, "{}", columns.join("|"));
        }
        out.push('\n');
        for t in &self.tags {
            let _ = writeln!(out, "{t}");
        }
        out.push('\n');
        for p in &self.policies {
            let _ = writeln!(out, "{p}");
        }
        out
    }

    /// Where each instance is now.
    #[must_use]
    pub fn places(&self) -> Vec<(usize, Option<usize>)> {
        self.instances
            .iter()
            .map(|s| (s.primary, s.secondary))
            .collect()
    }
}

fn parse_nodes(
    lines: &[(usize, &str)],
    groups: &HashMap<String, usize>,
) -> Result<Vec<TextNode>, TextError> {
    let mut seen = HashMap::new();
    let mut out = Vec::with_capacity(lines.len());
    for (no, text) in lines {
        let line = Line::new(*no, text, 8, "node")?;
        let name = line.name(0, "node name")?;
        if seen.insert(name.clone(), ()).is_some() {
            return Err(bad(*no, "node name", format!("{name:?} stands twice")));
        }
        let state = line.letter(7, "offline", &["N", "Y", "M"])?;
        let group = line.name(8, "group")?;
        let group = *groups
            .get(&group)
            .ok_or_else(|| bad(*no, "group", format!("{group:?} is unknown")))?;
        let speed = line.get(14).trim();
        let cpu_speed: f64 = if speed.is_empty() {
            1.0
        } else {
            speed
                .parse()
                .map_err(|_| bad(*no, "cpu_speed", format!("{speed:?} is no number")))?
        };
        if !(1e-6..=1e6).contains(&cpu_speed) {
            return Err(bad(*no, "cpu_speed", format!("{speed} is no speed")));
        }
        let node = TextNode {
            name,
            total_memory: line.number(1, "total_memory", 0)?,
            node_memory: line.number(2, "node_memory", 0)?,
            free_memory: line.number(3, "free_memory", 0)?,
            total_disk: line.number(4, "total_disk", 0)?,
            free_disk: line.number(5, "free_disk", 0)?,
            cores: line.number(6, "cores", 0)?,
            offline: state != "N",
            group,
            spindles: line.number(9, "spindles", 1)?,
            tags: tags(line.get(10)),
            node_cpu: line.number(13, "node_cpu", 0)?,
            cpu_speed,
            columns: line.owned(),
        };
        if !node.offline {
            for (value, field) in [
                (node.total_memory, "total_memory"),
                (node.total_disk, "total_disk"),
                (node.cores, "cores"),
            ] {
                if value == 0 {
                    return Err(bad(*no, field, "an on-line node has none"));
                }
            }
        }
        out.push(node);
    }
    if out.is_empty() {
        return Err(bad(0, "nodes", "the text has no node"));
    }
    Ok(out)
}

fn template(line: &Line<'_>) -> Result<Template, TextError> {
    Ok(match line.get(8).trim() {
        "ext" | "rbd" | "sharedfile" | "blockdev" | "gluster" => Template::Shared,
        "drbd" => Template::Drbd,
        "plain" | "file" => Template::Local,
        "diskless" => Template::Diskless,
        other => {
            return Err(bad(
                line.no,
                "disk_template",
                format!("{other:?} is no disk template"),
            ));
        }
    })
}

fn parse_instances(
    lines: &[(usize, &str)],
    nodes: &[TextNode],
) -> Result<Vec<TextInstance>, TextError> {
    let ids: HashMap<&str, usize> = nodes
        .iter()
        .enumerate()
        .map(|(i, n)| (n.name.as_str(), i))
        .collect();
    let mut seen = HashMap::new();
    let mut out = Vec::with_capacity(lines.len());
    for (no, text) in lines {
        let line = Line::new(*no, text, 10, "instance")?;
        let find = |at: usize, field: &'static str| {
            let name = line.name(at, field)?;
            ids.get(name.as_str())
                .copied()
                .ok_or_else(|| bad(*no, field, format!("{name:?} is unknown")))
        };
        let name = line.name(0, "instance name")?;
        if seen.insert(name.clone(), ()).is_some() {
            return Err(bad(*no, "instance name", format!("{name:?} stands twice")));
        }
        if line.get(12).trim() == "Y" {
            return Err(bad(
                *no,
                "forthcoming",
                "instances yet to come are not supported",
            ));
        }
        let template = template(&line)?;
        let primary = find(6, "primary")?;
        let secondary = if line.get(7).trim().is_empty() {
            None
        } else {
            Some(find(7, "secondary")?)
        };
        if secondary == Some(primary) {
            return Err(bad(*no, "secondary", "is the primary node as well"));
        }
        if (template == Template::Drbd) != secondary.is_some() {
            return Err(bad(
                *no,
                "secondary",
                "drbd needs one, and no other template has one",
            ));
        }
        out.push(TextInstance {
            name,
            memory: line.number(1, "memory", 0)?,
            disk: line.number(2, "disk", 0)?,
            vcpus: line.number(3, "vcpus", 0)?,
            running: matches!(line.get(4).trim(), "running" | "ERROR_up"),
            auto_balance: line.letter(5, "auto_balance", &["Y", "N"])? == "Y",
            primary,
            secondary,
            template,
            tags: tags(line.get(9)),
            spindle_use: line.number(10, "spindle_use", 1)?,
            load: [1.0; 4],
            columns: line.owned(),
        });
    }
    Ok(out)
}

/// The vCPU and spindle ratio of the first policy line; Ganeti's own defaults without one.
fn parse_policies(lines: &[(usize, &str)]) -> Result<(f64, f64), TextError> {
    let Some((no, text)) = lines.first() else {
        return Ok((4.0, 32.0));
    };
    let line = Line::new(*no, text, 6, "policy")?;
    let ratio = |at: usize, field: &'static str| {
        let value: f64 = line
            .get(at)
            .trim()
            .parse()
            .map_err(|_| bad(*no, field, format!("{:?} is no number", line.get(at))))?;
        if (1e-6..=1e9).contains(&value) {
            Ok(value)
        } else {
            Err(bad(*no, field, format!("{value} is no ratio")))
        }
    };
    Ok((ratio(4, "vcpu_ratio")?, ratio(5, "spindle_ratio")?))
}
