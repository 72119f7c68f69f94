//! Measurements: the last hour in steps of 10 s, two days in minutes, a year in hours.
//!
//! A row is a block of neighbouring steps of one series, so that a year of a series is about
//! sixty rows, and a whole batch of samples is one transaction. Each sample goes into all three
//! resolutions at once (as a running mean), so there is no roll-up that could fall behind; what
//! is too old is dropped block by block.

mod block;
mod write;

use std::collections::BTreeMap;

use sea_orm::sea_query::{Expr, ExprTrait, Order, Query};
use uuid::Uuid;

use crate::cell::Column;
use crate::error::{Result, of_change, plain};
use crate::record::words;
use crate::store::Session;
use block::Block;

words! {
    /// What was measured.
    MetricSubject {
        /// A hardware node.
        Node = "node",
        /// A server.
        Server = "server",
        /// A site.
        Site = "site",
        /// A public door.
        Edge = "edge",
    }
}

/// How fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// Steps of 10 s, kept for an hour.
    Fine,
    /// Steps of a minute, kept for two days.
    Minute,
    /// Steps of an hour, kept for a year.
    Hour,
}

impl Resolution {
    /// From fine to coarse.
    pub const ALL: [Self; 3] = [Self::Fine, Self::Minute, Self::Hour];

    /// Milliseconds of a step.
    pub const fn step_ms(self) -> i64 {
        match self {
            Self::Fine => 10_000,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
        }
    }

    /// Milliseconds that are kept at least.
    pub const fn kept_ms(self) -> i64 {
        match self {
            Self::Fine => 3_600_000,
            Self::Minute => 48 * 3_600_000,
            Self::Hour => 365 * 24 * 3_600_000,
        }
    }

    /// The finest that at `now` still reaches back to `from`.
    pub const fn reaching(from: i64, now: i64) -> Self {
        if now - from <= Self::Fine.kept_ms() {
            Self::Fine
        } else if now - from <= Self::Minute.kept_ms() {
            Self::Minute
        } else {
            Self::Hour
        }
    }

    /// Steps of a block: ten minutes, an hour, a week.
    const fn steps(self) -> i64 {
        match self {
            Self::Fine | Self::Minute => 60,
            Self::Hour => 168,
        }
    }

    const fn block_ms(self) -> i64 {
        self.step_ms() * self.steps()
    }
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Of what.
    pub kind: MetricSubject,
    /// Of which.
    pub subject: Uuid,
    /// What was measured, such as `cpu`.
    pub name: String,
    /// When.
    pub at: i64,
    /// How much.
    pub value: f64,
}

/// One step of a series.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Point {
    /// When the step begins.
    pub at: i64,
    /// The mean over the step.
    pub value: f64,
}

/// A series over some time; steps without a sample are left out.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Series {
    /// What was measured.
    pub name: String,
    /// Milliseconds of a step.
    pub step_ms: i64,
    /// The steps.
    pub points: Vec<Point>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Samples that were written.
    pub written: usize,
    /// Samples of new series beyond the limit, which were not.
    pub refused: usize,
}

/// Measurements.
#[derive(Clone, Copy)]
pub struct Metrics<'a> {
    pub(crate) session: Session<'a>,
}

impl Metrics<'_> {
    /// So many series are kept at most; further ones are refused, not the samples of these.
    pub const MOST_SERIES: i64 = 60_000;

    /// The series of a subject between two times; all its names when none are given.
    pub async fn read(
        &self,
        subject: Uuid,
        names: &[&str],
        from: i64,
        to: i64,
        resolution: Resolution,
    ) -> Result<Vec<Series>> {
        let mut select = Query::select();
        select
            .column(("metric_series", "name"))
            .column(("metric_blocks", "start"))
            .column(("metric_blocks", "steps"))
            .from("metric_series")
            .inner_join(
                "metric_blocks",
                Expr::col(("metric_blocks", "series")).equals(("metric_series", "id")),
            )
            .and_where(Expr::col(("metric_series", "subject")).eq(subject))
            .and_where(Expr::col(("metric_blocks", "resolution")).eq(resolution.step_ms()))
            .and_where(Expr::col(("metric_blocks", "start")).gt(from - resolution.block_ms()))
            .and_where(Expr::col(("metric_blocks", "start")).lt(to))
            .order_by(("metric_series", "name"), Order::Asc)
            .order_by(("metric_blocks", "start"), Order::Asc);
        if !names.is_empty() {
            select.and_where(Expr::col(("metric_series", "name")).is_in(names.iter().copied()));
        }
        let mut found: BTreeMap<String, Vec<Point>> = BTreeMap::new();
        for row in self.session.rows(&select).await? {
            let name = String::from_row(&row, "name").map_err(plain)?;
            let start = i64::from_row(&row, "start").map_err(plain)?;
            let block = Block::from_bytes(Vec::from_row(&row, "steps").map_err(plain)?, resolution);
            let points = block.points(start, resolution);
            found
                .entry(name)
                .or_default()
                .extend(points.filter(|p| p.at >= from && p.at < to));
        }
        let step_ms = resolution.step_ms();
        Ok(found
            .into_iter()
            .map(|(name, points)| Series {
                name,
                step_ms,
                points,
            })
            .collect())
    }

    /// Drops what is older than its resolution keeps, and series that have nothing left.
    pub async fn trim(&self, now: i64) -> Result<()> {
        let work = self.session.work().await?;
        for resolution in Resolution::ALL {
            let mut delete = Query::delete();
            delete
                .from_table("metric_blocks")
                .and_where(Expr::col("resolution").eq(resolution.step_ms()))
                .and_where(
                    Expr::col("start").lte(now - resolution.kept_ms() - resolution.block_ms()),
                );
            work.session().change(&delete).await.map_err(of_change)?;
        }
        let mut used = Query::select();
        used.column("series").from("metric_blocks");
        let mut delete = Query::delete();
        delete
            .from_table("metric_series")
            .and_where(Expr::col("id").not_in_subquery(used));
        work.session().change(&delete).await.map_err(of_change)?;
        work.done().await
    }

    /// Forgets everything about a subject.
    pub async fn forget(&self, subject: Uuid) -> Result<()> {
        let mut delete = Query::delete();
        delete
            .from_table("metric_series")
            .and_where(Expr::col("subject").eq(subject));
        self.session.change(&delete).await.map_err(of_change)?;
        Ok(())
    }
}
