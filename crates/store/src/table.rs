//! What every kind of record can do: be made, read, listed, changed by version, and removed.

use std::marker::PhantomData;

use sea_orm::sea_query::{Condition, Expr, ExprTrait, Order, Query, SelectStatement};
use sea_orm::{DbErr, QueryResult};
use uuid::Uuid;

use crate::cell::shown;
use crate::error::{Fault, Result, StoreError, fault_of, of_change};
use crate::record::{NEW, Page, PageRequest, Picks, Plain, Row};
use crate::store::Session;

/// All records of one kind, outside or inside of a transaction.
#[derive(Clone, Copy)]
pub struct Table<'a, R> {
    pub(crate) session: Session<'a>,
    kind: PhantomData<fn() -> R>,
}

/// How often [`Table::modify`] tries again when others are quicker.
const TRIES: u32 = 20;

impl<'a, R: Row> Table<'a, R> {
    pub(crate) fn new(session: Session<'a>) -> Self {
        Self {
            session,
            kind: PhantomData,
        }
    }

    /// Adds a record. Its version becomes [`NEW`], whatever it said.
    pub async fn insert(&self, record: &R) -> Result<()>
    where
        R: Plain,
    {
        self.insert_row(record).await
    }

    pub(crate) async fn insert_row(&self, record: &R) -> Result<()> {
        let mut values = record.values();
        values[1] = NEW.into();
        let mut insert = Query::insert();
        insert
            .into_table(R::TABLE)
            .columns(R::COLUMNS.iter().copied())
            .values_panic(values.into_iter().map(Expr::from));
        self.session
            .change(&insert)
            .await
            .map_err(|error| of_record(error, record))?;
        Ok(())
    }

    /// The record with this id.
    pub async fn get(&self, id: R::Id) -> Result<R> {
        self.find(id).await?.ok_or_else(|| not_found::<R>(id))
    }

    /// The record with this id, if there is one.
    pub async fn find(&self, id: R::Id) -> Result<Option<R>> {
        self.one(Expr::col("id").eq(R::bare(id))).await
    }

    /// The first record that fits the filter, if there is one: for filters on a unique field.
    pub async fn find_by(&self, filter: &R::Filter) -> Result<Option<R>> {
        self.one(filter.condition()).await
    }

    pub(crate) async fn one(&self, wanted: impl Into<Condition>) -> Result<Option<R>> {
        let mut select = select::<R>();
        select
            .cond_where(wanted.into())
            .order_by("id", Order::Asc)
            .limit(1);
        self.session
            .row(&select)
            .await?
            .as_ref()
            .map(read)
            .transpose()
    }

    /// One page of the records that fit the filter, in the order that they were made.
    pub async fn list(&self, filter: &R::Filter, page: PageRequest) -> Result<Page<R>> {
        self.page(filter.condition(), page).await
    }

    pub(crate) async fn page(&self, wanted: Condition, page: PageRequest) -> Result<Page<R>> {
        let limit = page.capped();
        let mut select = select::<R>();
        select.cond_where(wanted).limit(limit + 1);
        let id = Expr::col("id");
        if page.newest_first {
            select.order_by("id", Order::Desc);
            page.after.inspect(|after| {
                select.and_where(id.lt(*after));
            });
        } else {
            select.order_by("id", Order::Asc);
            page.after.inspect(|after| {
                select.and_where(id.gt(*after));
            });
        }
        let rows = self.session.rows(&select).await?;
        let more = rows.len() as u64 > limit;
        let items: Vec<R> = rows
            .iter()
            .take(limit as usize)
            .map(read)
            .collect::<Result<_>>()?;
        let next = if more {
            items.last().map(Row::key)
        } else {
            None
        };
        Ok(Page { items, next })
    }

    /// All records that fit the filter; for reconcilers, not for answering requests.
    pub async fn all(&self, filter: &R::Filter) -> Result<Vec<R>> {
        let mut select = select::<R>();
        select
            .cond_where(filter.condition())
            .order_by("id", Order::Asc);
        self.session.rows(&select).await?.iter().map(read).collect()
    }

    /// How many records fit the filter.
    pub async fn count(&self, filter: &R::Filter) -> Result<u64> {
        let mut select = Query::select();
        select
            .expr_as(Expr::col("id").count(), "n")
            .from(R::TABLE)
            .cond_where(filter.condition());
        let row = self.session.row(&select).await?;
        let count: i64 = match row {
            Some(row) => row.try_get("", "n").map_err(corrupt::<R>)?,
            None => 0,
        };
        Ok(count.unsigned_abs())
    }

    /// Writes the record if nobody changed it since it was read, and returns it as it is now.
    ///
    /// Fields that have their own methods (see the README) keep what is stored.
    pub async fn update(&self, record: &R, now: i64) -> Result<R> {
        let mut update = Query::update();
        update.table(R::TABLE);
        for (column, value) in R::COLUMNS.iter().zip(record.values()).skip(4) {
            if !R::FROZEN.contains(column) {
                update.value(*column, value);
            }
        }
        update
            .value("version", Expr::col("version").add(1))
            .value("updated_at", now)
            .and_where(Expr::col("id").eq(record.key()))
            .and_where(Expr::col("version").eq(record.version()));
        let touched = self
            .session
            .change(&update)
            .await
            .map_err(|error| of_record(error, record))?;
        if touched == 0 {
            return Err(self.missed(record.key(), record.version()).await);
        }
        Ok(record.clone().at(record.version() + 1, now))
    }

    /// Reads, changes and writes a record; again from the start when others were quicker.
    ///
    /// What the closure answers with an error is left as it is.
    pub async fn modify<F>(&self, id: R::Id, now: i64, mut change: F) -> Result<R>
    where
        F: FnMut(&mut R) -> Result<()> + Send,
    {
        for _ in 0..TRIES {
            let mut record = self.get(id).await?;
            let before = record.values();
            change(&mut record)?;
            if record.values() == before {
                return Ok(record);
            }
            match self.update(&record, now).await {
                Err(StoreError::Stale { .. }) => tokio::task::yield_now().await,
                other => return other,
            }
        }
        Err(StoreError::Conflict(
            "many changes of one record at once".into(),
        ))
    }

    /// Reads a record and holds it until the transaction ends: nobody else changes it meanwhile.
    ///
    /// For checks over several records, such as a plan's limits. Outside of a transaction it
    /// only reads.
    pub async fn lock(&self, id: R::Id) -> Result<R> {
        // A change of nothing locks the row on both databases; SQLite knows no `FOR UPDATE`.
        let mut update = Query::update();
        update
            .table(R::TABLE)
            .value("version", Expr::col("version"))
            .and_where(Expr::col("id").eq(R::bare(id)))
            .returning_all();
        let rows = self
            .session
            .changed_rows(&update)
            .await
            .map_err(of_change)?;
        rows.first()
            .map(read)
            .transpose()?
            .ok_or_else(|| not_found::<R>(id))
    }

    /// Removes a record, at this version only when one is given.
    pub async fn delete(&self, id: R::Id, version: Option<i64>) -> Result<()> {
        let key = R::bare(id);
        let mut delete = Query::delete();
        delete
            .from_table(R::TABLE)
            .and_where(Expr::col("id").eq(key));
        if let Some(version) = version {
            delete.and_where(Expr::col("version").eq(version));
        }
        let touched =
            self.session
                .change(&delete)
                .await
                .map_err(|error| match fault_of(&error) {
                    Fault::Reference => StoreError::InUse {
                        record: R::WORD,
                        id: key.to_string(),
                    },
                    _ => of_change(error),
                })?;
        match touched {
            0 => Err(self.missed(key, version.unwrap_or_default()).await),
            _ => Ok(()),
        }
    }

    /// Why a change by version touched nothing.
    pub(crate) async fn missed(&self, key: Uuid, expected: i64) -> StoreError {
        match self.one(Expr::col("id").eq(key)).await {
            Ok(Some(_)) => StoreError::Stale {
                record: R::WORD,
                id: key.to_string(),
                expected,
            },
            Ok(None) => StoreError::NotFound {
                record: R::WORD,
                id: key.to_string(),
            },
            Err(error) => error,
        }
    }

    /// Sets some columns of one record without touching its version.
    pub(crate) async fn set(
        &self,
        id: R::Id,
        values: Vec<(&'static str, sea_orm::sea_query::Value)>,
    ) -> Result<()> {
        let mut update = Query::update();
        update
            .table(R::TABLE)
            .and_where(Expr::col("id").eq(R::bare(id)));
        for (column, value) in values {
            update.value(column, value);
        }
        match self.session.change(&update).await.map_err(of_change)? {
            0 => Err(not_found::<R>(id)),
            _ => Ok(()),
        }
    }
}

pub(crate) fn select<R: Row>() -> SelectStatement {
    let mut select = Query::select();
    select
        .columns(R::COLUMNS.iter().map(|column| (R::TABLE, *column)))
        .from(R::TABLE);
    select
}

pub(crate) fn read<R: Row>(row: &QueryResult) -> Result<R> {
    R::read(row).map_err(corrupt::<R>)
}

pub(crate) fn corrupt<R: Row>(error: DbErr) -> StoreError {
    StoreError::Corrupt {
        record: R::WORD,
        source: error.into(),
    }
}

pub(crate) fn not_found<R: Row>(id: R::Id) -> StoreError {
    StoreError::NotFound {
        record: R::WORD,
        id: id.to_string(),
    }
}

fn of_record<R: Row>(error: DbErr, record: &R) -> StoreError {
    match fault_of(&error) {
        Fault::Unique(field) => {
            let place = R::COLUMNS.iter().position(|column| *column == field);
            let value = place
                .map(|place| shown(&record.values()[place]))
                .unwrap_or_default();
            StoreError::Taken {
                record: R::WORD,
                field,
                value,
            }
        }
        Fault::Reference => StoreError::MissingReference { record: R::WORD },
        _ => of_change(error),
    }
}
