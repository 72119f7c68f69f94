//! Events: what happened, numbered in the order of the commits, so that a reader who asks for
//! everything after a number never misses one.

use sea_orm::sea_query::{Expr, ExprTrait, Order, Query};
use sea_orm::{DbErr, QueryResult};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use undine_model::AccountId;
use uuid::Uuid;

use crate::cell::Column;
use crate::counters::Counters;
use crate::error::{Result, StoreError, of_change};
use crate::store::Session;

pub(crate) const EVENT_COUNTER: &str = "event";

/// Something that happened, to be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    /// What happened, such as `server.running`.
    pub kind: String,
    /// What kind of thing it happened to, such as `server`.
    pub subject_kind: String,
    /// To which.
    pub subject: Uuid,
    /// The account that may see it; none: the provider only.
    pub account: Option<AccountId>,
    /// More about it.
    pub data: Json,
    /// When.
    pub at: i64,
}

/// Something that happened, with its number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with every event, in the order of the commits.
    pub seq: u64,
    /// The event.
    #[serde(flatten)]
    pub event: NewEvent,
}

/// What happened, in order.
#[derive(Clone, Copy)]
pub struct Events<'a> {
    pub(crate) session: Session<'a>,
}

impl Events<'_> {
    /// Tells events; inside of a transaction they get their numbers when it commits.
    pub async fn announce(&self, events: Vec<NewEvent>) -> Result<()> {
        let work = self.session.work().await?;
        work.tx().pending().events.extend(events);
        work.done().await
    }

    /// At most `limit` events after this number; of one account only, when that is given.
    pub async fn after(
        &self,
        seq: u64,
        account: Option<AccountId>,
        limit: u32,
    ) -> Result<Vec<Event>> {
        let mut select = Query::select();
        select
            .columns([
                "seq",
                "kind",
                "subject_kind",
                "subject",
                "account",
                "data",
                "at",
            ])
            .from("events")
            .and_where(Expr::col("seq").gt(seq.put()))
            .order_by("seq", Order::Asc)
            .limit(u64::from(limit.clamp(1, 1_000)));
        if let Some(account) = account {
            select.and_where(Expr::col("account").eq(account.put()));
        }
        let rows = self.session.rows(&select).await?;
        rows.iter()
            .map(|row| {
                event(row).map_err(|error| StoreError::Corrupt {
                    record: "event",
                    source: error.into(),
                })
            })
            .collect()
    }

    /// The number of the newest event.
    pub async fn newest(&self) -> Result<u64> {
        let counters = Counters {
            session: self.session,
        };
        Ok(counters.value(EVENT_COUNTER).await?.unsigned_abs())
    }

    /// Forgets events from before this time.
    pub async fn trim(&self, before: i64) -> Result<u64> {
        let mut delete = Query::delete();
        delete
            .from_table("events")
            .and_where(Expr::col("at").lt(before));
        self.session.change(&delete).await.map_err(of_change)
    }
}

fn event(row: &QueryResult) -> std::result::Result<Event, DbErr> {
    Ok(Event {
        seq: u64::from_row(row, "seq")?,
        event: NewEvent {
            kind: String::from_row(row, "kind")?,
            subject_kind: String::from_row(row, "subject_kind")?,
            subject: Uuid::from_row(row, "subject")?,
            account: Option::<AccountId>::from_row(row, "account")?,
            data: Json::from_row(row, "data")?,
            at: i64::from_row(row, "at")?,
        },
    })
}

/// What a transaction tells when it commits.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) events: Vec<NewEvent>,
    pub(crate) hosts: Vec<String>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.hosts.is_empty()
    }

    /// Numbers and writes all of it. The counters are always taken in the same order.
    pub(crate) async fn write(self, session: Session<'_>) -> Result<()> {
        crate::routes::write(session, self.hosts).await?;
        let count = self.events.len() as i64;
        if count == 0 {
            return Ok(());
        }
        let last = Counters { session }.next(EVENT_COUNTER, 1, count).await?;
        let mut insert = Query::insert();
        insert.into_table("events").columns([
            "seq",
            "kind",
            "subject_kind",
            "subject",
            "account",
            "data",
            "at",
        ]);
        for (seq, event) in (last - count + 1..).zip(&self.events) {
            insert.values_panic([
                seq.into(),
                event.kind.put().into(),
                event.subject_kind.put().into(),
                event.subject.put().into(),
                event.account.put().into(),
                event.data.put().into(),
                event.at.into(),
            ]);
        }
        session.change(&insert).await.map_err(of_change)?;
        Ok(())
    }
}
