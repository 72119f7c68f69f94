//! Numbers, times and states as people read them; lines of charts; rows of operations.

use undine_api::public::{MetricResolution, MetricSubject, Operation, OperationStepState};
use undine_model::Bytes;
use undine_model::lifecycle::{NodeState, OperationState, ServerState, SiteState};
use uuid::Uuid;

use crate::app::caller::Caller;
use crate::app::observe::{self, MetricsWish};
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::Result;

/// Bytes, short.
pub fn bytes(bytes: f64) -> String {
    let mut value = bytes.max(0.0);
    for unit in ["B", "K", "M", "G"] {
        if value < 1_000.0 {
            return if value < 10.0 && unit != "B" {
                format!("{value:.1} {unit}")
            } else {
                format!("{value:.0} {unit}")
            };
        }
        value /= 1_024.0;
    }
    format!("{value:.1} T")
}

/// A size, short.
pub fn size(size: Bytes) -> String {
    bytes(size.0 as f64)
}

/// How long ago, in words.
pub fn ago(at: i64) -> String {
    let s = (now_ms() - at).max(0) / 1_000;
    match s {
        0..=1 => "now".to_owned(),
        2..=99 => format!("{s} s ago"),
        100..=5_999 => format!("{} min ago", s / 60),
        6_000..=172_799 => format!("{} h ago", s / 3_600),
        _ => format!("{} days ago", s / 86_400),
    }
}

/// Of a whole, in percent.
pub fn percent(part: f64, whole: f64) -> u32 {
    if whole <= 0.0 {
        0
    } else {
        (part / whole * 100.0).round().clamp(0.0, 100.0) as u32
    }
}

/// The shape and colour of a server's state.
pub fn server_class(state: ServerState) -> &'static str {
    match state.as_str() {
        "running" => "",
        "failed" => "bad",
        "stopped" => "off",
        _ => "busy",
    }
}

/// The shape and colour of a node's state.
pub fn node_class(state: NodeState) -> &'static str {
    match state.as_str() {
        "ready" => "",
        "cordoned" | "draining" => "off",
        "lost" | "failed" => "bad",
        _ => "warn",
    }
}

/// The shape, colour and word of a site's state.
pub fn site_state(state: SiteState) -> (&'static str, &'static str) {
    match state {
        SiteState::Creating => ("busy", "going live"),
        SiteState::Active => ("", "answers"),
        SiteState::Suspended => ("off", "suspended"),
        SiteState::Failed => ("bad", "failed"),
        SiteState::Deleted => ("off", "deleted"),
        SiteState::Deleting => ("busy", "being deleted"),
    }
}

/// A step of an operation.
pub struct StepRow {
    /// Its shape.
    pub class: &'static str,
    /// Its name.
    pub name: String,
    /// What it says of itself.
    pub note: String,
    /// How long it took.
    pub took: String,
}

/// An operation as a row.
pub struct OperationRow {
    /// Its id.
    pub id: String,
    /// When it began.
    pub when: String,
    /// What it does.
    pub what: String,
    /// The reason that it gives.
    pub why: String,
    /// Its shape and colour.
    pub class: &'static str,
    /// How far it is.
    pub progress: String,
    /// The error that ended it.
    pub error: String,
    /// What to do about that.
    pub remedy: String,
    /// How often it was tried again.
    pub retries: u32,
    /// The page of what it works on.
    pub href: String,
    /// Where a form goes that has it done again; empty unless it failed and can be.
    pub again: String,
    /// Its steps.
    pub steps: Vec<StepRow>,
    /// Has it ended?
    pub ended: bool,
}

fn sentence(name: &str) -> String {
    let text = name.replace(['_', '-', '.'], " ");
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

/// `site.create` as people say it.
fn what(kind: &str) -> String {
    let Some((thing, act)) = kind.split_once('.') else {
        return sentence(kind);
    };
    sentence(&format!("{act} a {thing}"))
}

/// An operation as a row.
pub fn operation(operation: Operation) -> OperationRow {
    let class = match operation.state {
        OperationState::Succeeded => "",
        OperationState::Failed => "bad",
        OperationState::Pending if operation.retries > 0 => "warn",
        OperationState::Pending | OperationState::Running => "busy",
    };
    let thing = operation.kind.split('.').next().unwrap_or_default();
    let page = match thing {
        "site" | "app" | "release" => "sites",
        "server" => "servers",
        "node" => "nodes",
        _ => "",
    };
    let subject = operation.subjects.first().filter(|_| !page.is_empty());
    let href = subject
        .map(|id| format!("/{page}/{id}"))
        .unwrap_or_default();
    let (error, remedy) = operation.error.map_or_else(Default::default, |error| {
        (error.detail, error.remedy.unwrap_or_default())
    });
    OperationRow {
        again: match (operation.state, operation.kind.as_str()) {
            (OperationState::Failed, "site.create" | "site.retry") => format!("{href}/retry"),
            (OperationState::Failed, "server.create" | "server.start" | "server.restart") => {
                format!("{href}/start")
            }
            _ => String::new(),
        },
        href,
        id: operation.id.to_string(),
        when: ago(operation.created_at),
        what: what(&operation.kind),
        why: operation.reason,
        class,
        progress: operation.progress,
        error,
        remedy,
        retries: operation.retries,
        steps: operation.steps.into_iter().map(step).collect(),
        ended: matches!(
            operation.state,
            OperationState::Succeeded | OperationState::Failed
        ),
    }
}

fn step(step: undine_api::public::OperationStep) -> StepRow {
    use OperationStepState as S;
    let class = match step.state {
        S::Pending => "todo",
        S::Running => "now",
        S::Done | S::Skipped => "",
        S::Failed | S::Undone => "bad",
    };
    let took = match (step.started_at, step.ended_at) {
        (Some(from), Some(to)) => format!("{:.1} s", (to - from).max(0) as f64 / 1_000.0),
        (Some(from), None) => format!("{} s", (now_ms() - from).max(0) / 1_000),
        _ => String::new(),
    };
    let note = step.error.or(step.progress).unwrap_or_default();
    StepRow {
        class,
        name: sentence(&step.name),
        note,
        took,
    }
}

/// A line over time.
pub struct Chart {
    /// What it shows.
    pub label: &'static str,
    /// Its last value.
    pub last: String,
    /// The line, in a box of 100 by 40.
    pub points: String,
}

/// What is shown of whom: the series, its label, and how a value is written.
pub type Shown = (&'static str, &'static str, fn(f64) -> String);

/// Cores in use.
pub fn cores(value: f64) -> String {
    format!("{:.0} % of a core", value * 100.0)
}

/// The charts of the last hour.
pub async fn charts(
    control: &Control,
    caller: &Caller,
    kind: MetricSubject,
    subject: Uuid,
    shown: &[Shown],
) -> Result<Vec<Chart>> {
    let wish = MetricsWish {
        subject_kind: kind,
        subject,
        resolution: MetricResolution::TenSeconds,
        from: None,
        to: None,
    };
    let metrics = observe::metrics(control, caller, wish).await?;
    let now = now_ms();
    let chart = |(name, label, write): &Shown| {
        let series = metrics.series.iter().find(|series| series.name == *name)?;
        let points: Vec<(i64, f64)> = series
            .points
            .iter()
            .map(|point| (point.at, point.value))
            .collect();
        Some(Chart {
            label,
            last: write(points.last()?.1),
            points: line(&points, now),
        })
    };
    Ok(shown.iter().filter_map(chart).collect())
}

fn line(points: &[(i64, f64)], now: i64) -> String {
    let most = points
        .iter()
        .map(|point| point.1)
        .fold(f64::MIN_POSITIVE, f64::max);
    let place = |(at, value): &(i64, f64)| {
        let x = 100.0 - (now - at) as f64 / 36_000.0;
        format!(
            "{:.1},{:.1}",
            x.clamp(0.0, 100.0),
            38.0 - value / most * 35.0
        )
    };
    points.iter().map(place).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_kinds_are_read_by_people() {
        assert_eq!(bytes(512.0 * 1_048_576.0), "512 M");
        assert_eq!(bytes(1.5 * 1_073_741_824.0), "1.5 G");
        assert_eq!(what("site.create"), "Create a site");
        assert_eq!(percent(3.0, 0.0), 0);
    }

    #[test]
    fn a_chart_stays_within_its_box() {
        assert_eq!(
            line(&[(0, 1.0), (3_600_000, 2.0)], 3_600_000),
            "0.0,20.5 100.0,3.0"
        );
        assert_eq!(line(&[(-9_000_000, 0.0)], 3_600_000), "0.0,38.0");
    }
}
