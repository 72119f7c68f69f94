//! Measurements: the last hour in steps of 10 s, two days in minutes, a year in hours.
//!
//! A row is a block of neighbouring steps of one series, so that a year of a series is about
//! sixty rows, and a whole batch of samples is one transaction. Each sample goes into all three
//! resolutions at once (as a running mean), so there is no roll-up that could fall behind; what
//! is too old is dropped block by block.

mod block;

use std::collections::BTreeMap;

use sea_orm::sea_query::{Expr, ExprTrait, LockType, OnConflict, Order, Query};
use uuid::Uuid;

use crate::cell::Column;
use crate::counters::Counters;
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

type SeriesKey = (MetricSubject, Uuid, String);
/// Series, resolution and start.
type BlockKey = (i64, Resolution, i64);

impl Metrics<'_> {
    /// So many series are kept at most; further ones are refused, not the samples of these.
    pub const MOST_SERIES: i64 = 60_000;

    /// Writes a batch of samples; best some seconds' worth at once.
    pub async fn record(&self, samples: &[Sample]) -> Result<Kept> {
        if samples.is_empty() {
            return Ok(Kept::default());
        }
        let mut by_series: BTreeMap<SeriesKey, Vec<&Sample>> = BTreeMap::new();
        for sample in samples.iter().filter(|sample| sample.value.is_finite()) {
            let key = (sample.kind, sample.subject, sample.name.clone());
            by_series.entry(key).or_default().push(sample);
        }
        let work = self.session.work().await?;
        let inside = Metrics {
            session: work.session(),
        };
        let ids = inside.series(by_series.keys()).await?;
        let mut kept = Kept {
            written: 0,
            refused: 0,
        };
        let mut blocks: BTreeMap<BlockKey, Vec<&Sample>> = BTreeMap::new();
        for (key, samples) in &by_series {
            let Some(id) = ids.get(key) else {
                kept.refused += samples.len();
                continue;
            };
            kept.written += samples.len();
            for (sample, resolution) in samples
                .iter()
                .flat_map(|sample| Resolution::ALL.map(|r| (*sample, r)))
            {
                let start = sample.at - sample.at.rem_euclid(resolution.block_ms());
                blocks
                    .entry((*id, resolution, start))
                    .or_default()
                    .push(sample);
            }
        }
        let blocks: Vec<_> = blocks.into_iter().collect();
        for some in blocks.chunks(400) {
            inside.write_blocks(some).await?;
        }
        work.done().await?;
        Ok(kept)
    }

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

    /// The numbers of these series; new ones get one while there is room.
    async fn series<'k>(
        &self,
        keys: impl Iterator<Item = &'k SeriesKey>,
    ) -> Result<BTreeMap<SeriesKey, i64>> {
        let keys: Vec<&SeriesKey> = keys.collect();
        let mut known = self.known_series(&keys).await?;
        let new: Vec<&SeriesKey> = keys
            .iter()
            .copied()
            .filter(|key| !known.contains_key(*key))
            .collect();
        if new.is_empty() {
            return Ok(known);
        }
        let room = usize::try_from(Self::MOST_SERIES - self.series_count().await?).unwrap_or(0);
        let new = &new[..new.len().min(room)];
        for some in new.chunks(500) {
            let count = some.len() as i64;
            let last = Counters {
                session: self.session,
            }
            .next("metric_series", 1, count)
            .await?;
            let mut insert = Query::insert();
            insert
                .into_table("metric_series")
                .columns(["id", "kind", "subject", "name"]);
            for (id, (kind, subject, name)) in (last - count + 1..).zip(some) {
                insert.values_panic([
                    id.into(),
                    kind.put().into(),
                    subject.put().into(),
                    name.put().into(),
                ]);
            }
            insert.on_conflict(
                OnConflict::columns(["subject", "kind", "name"])
                    .do_nothing()
                    .to_owned(),
            );
            self.session.change(&insert).await.map_err(of_change)?;
        }
        known.extend(self.known_series(new).await?);
        Ok(known)
    }

    async fn series_count(&self) -> Result<i64> {
        let mut select = Query::select();
        select
            .expr_as(Expr::col("id").count(), "n")
            .from("metric_series");
        match self.session.row(&select).await? {
            Some(row) => row.try_get("", "n").map_err(plain),
            None => Ok(0),
        }
    }

    async fn known_series(&self, keys: &[&SeriesKey]) -> Result<BTreeMap<SeriesKey, i64>> {
        let mut subjects: Vec<Uuid> = keys.iter().map(|(_, subject, _)| *subject).collect();
        subjects.dedup();
        let mut known = BTreeMap::new();
        for some in subjects.chunks(1_000) {
            let mut select = Query::select();
            select
                .columns(["id", "kind", "subject", "name"])
                .from("metric_series")
                .and_where(Expr::col("subject").is_in(some.iter().copied()));
            for row in self.session.rows(&select).await? {
                let key = (
                    MetricSubject::from_row(&row, "kind").map_err(plain)?,
                    Uuid::from_row(&row, "subject").map_err(plain)?,
                    String::from_row(&row, "name").map_err(plain)?,
                );
                known.insert(key, i64::from_row(&row, "id").map_err(plain)?);
            }
        }
        Ok(known)
    }

    async fn write_blocks(&self, some: &[(BlockKey, Vec<&Sample>)]) -> Result<()> {
        let mut wanted = sea_orm::sea_query::Condition::any();
        for ((series, resolution, start), _) in some {
            wanted = wanted.add(
                Expr::col("series")
                    .eq(*series)
                    .and(Expr::col("resolution").eq(resolution.step_ms()))
                    .and(Expr::col("start").eq(*start)),
            );
        }
        let mut select = Query::select();
        // Held until the end, in the order of the key, so that no other instance's samples of
        // the same block are lost. (SQLite has one writer and drops the clause.)
        select
            .columns(["series", "resolution", "start", "steps"])
            .from("metric_blocks")
            .cond_where(wanted)
            .order_by("series", Order::Asc)
            .order_by("resolution", Order::Asc)
            .order_by("start", Order::Asc)
            .lock(LockType::Update);
        let mut there: BTreeMap<(i64, i64, i64), Vec<u8>> = BTreeMap::new();
        for row in self.session.rows(&select).await? {
            let number = |column| i64::from_row(&row, column).map_err(plain);
            let key = (number("series")?, number("resolution")?, number("start")?);
            there.insert(key, Vec::from_row(&row, "steps").map_err(plain)?);
        }
        let mut insert = Query::insert();
        insert
            .into_table("metric_blocks")
            .columns(["series", "resolution", "start", "steps"]);
        for ((series, resolution, start), samples) in some {
            let old = there
                .remove(&(*series, resolution.step_ms(), *start))
                .unwrap_or_default();
            let mut block = Block::from_bytes(old, *resolution);
            for sample in samples {
                block.add(sample.at - start, sample.value, *resolution);
            }
            insert.values_panic([
                (*series).into(),
                resolution.step_ms().into(),
                (*start).into(),
                block.into_bytes().into(),
            ]);
        }
        insert.on_conflict(
            OnConflict::columns(["series", "resolution", "start"])
                .update_column("steps")
                .to_owned(),
        );
        self.session.change(&insert).await.map_err(of_change)?;
        Ok(())
    }
}
