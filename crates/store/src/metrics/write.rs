//! Writing samples: which series they belong to, and the blocks that they fall into.

use std::collections::BTreeMap;

use sea_orm::sea_query::{Condition, Expr, ExprTrait, LockType, OnConflict, Order, Query};
use uuid::Uuid;

use super::block::Block;
use super::{Kept, MetricSubject, Metrics, Resolution, Sample};
use crate::cell::Column;
use crate::counters::Counters;
use crate::error::{Fault, Result, StoreError, fault_of, of_change, plain};

type SeriesKey = (MetricSubject, Uuid, String);
/// Series, resolution and start.
type BlockKey = (i64, Resolution, i64);
type Blocks<'s> = BTreeMap<BlockKey, Vec<&'s Sample>>;

/// Blocks of one transaction: between two of them others get their turn.
const AT_ONCE: usize = 300;

impl Metrics<'_> {
    /// Writes a batch of samples; best some seconds' worth at once. Outside of a transaction a
    /// large batch is several, so that it holds nobody up.
    pub async fn record(&self, samples: &[Sample]) -> Result<Kept> {
        let mut by_series: BTreeMap<SeriesKey, Vec<&Sample>> = BTreeMap::new();
        for sample in samples.iter().filter(|sample| sample.value.is_finite()) {
            let key = (sample.kind, sample.subject, sample.name.clone());
            by_series.entry(key).or_default().push(sample);
        }
        if by_series.is_empty() {
            return Ok(Kept::default());
        }
        let ids = self.series(by_series.keys().collect()).await?;
        let mut kept = Kept::default();
        let mut blocks = Blocks::new();
        for (key, samples) in &by_series {
            let Some(id) = ids.get(key) else {
                kept.refused += samples.len();
                continue;
            };
            kept.written += samples.len();
            sort_into(&mut blocks, *id, samples);
        }
        let blocks: Vec<_> = blocks.into_iter().collect();
        for some in blocks.chunks(AT_ONCE) {
            let work = self.session.work().await?;
            Metrics {
                session: work.session(),
            }
            .write_blocks(some)
            .await?;
            work.done().await?;
        }
        Ok(kept)
    }

    /// The numbers of these series; new ones get one while there is room.
    async fn series(&self, keys: Vec<&SeriesKey>) -> Result<BTreeMap<SeriesKey, i64>> {
        let mut known = self.known_series(&keys).await?;
        let new: Vec<&SeriesKey> = keys
            .into_iter()
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
            // Another instance may just have made it.
            let key = OnConflict::columns(["subject", "kind", "name"])
                .do_nothing()
                .to_owned();
            insert.on_conflict(key);
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
        let mut there = self.held_blocks(some).await?;
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
        let key = OnConflict::columns(["series", "resolution", "start"])
            .update_column("steps")
            .to_owned();
        insert.on_conflict(key);
        self.session
            .change(&insert)
            .await
            .map(drop)
            .map_err(|error| match fault_of(&error) {
                // A trim has just dropped the series, which had no block yet.
                Fault::Reference => StoreError::Conflict(error.into()),
                _ => of_change(error),
            })
    }

    /// What is stored of these blocks, held until the end of the transaction and in the order of
    /// the key, so that no other instance's samples of the same block are lost. (SQLite has one
    /// writer and drops the clause.)
    async fn held_blocks(
        &self,
        some: &[(BlockKey, Vec<&Sample>)],
    ) -> Result<BTreeMap<(i64, i64, i64), Vec<u8>>> {
        let wanted = some
            .iter()
            .fold(Condition::any(), |any, ((series, resolution, start), _)| {
                any.add(
                    Expr::col("series")
                        .eq(*series)
                        .and(Expr::col("resolution").eq(resolution.step_ms()))
                        .and(Expr::col("start").eq(*start)),
                )
            });
        let mut select = Query::select();
        select
            .columns(["series", "resolution", "start", "steps"])
            .from("metric_blocks")
            .cond_where(wanted)
            .order_by("series", Order::Asc)
            .order_by("resolution", Order::Asc)
            .order_by("start", Order::Asc)
            .lock(LockType::Update);
        let mut there = BTreeMap::new();
        for row in self.session.rows(&select).await? {
            let number = |column| i64::from_row(&row, column).map_err(plain);
            let key = (number("series")?, number("resolution")?, number("start")?);
            there.insert(key, Vec::from_row(&row, "steps").map_err(plain)?);
        }
        Ok(there)
    }
}

/// The blocks of all resolutions that the samples of a series fall into.
fn sort_into<'s>(blocks: &mut Blocks<'s>, series: i64, samples: &[&'s Sample]) {
    for sample in samples {
        for resolution in Resolution::ALL {
            let start = sample.at - sample.at.rem_euclid(resolution.block_ms());
            blocks
                .entry((series, resolution, start))
                .or_default()
                .push(sample);
        }
    }
}
