//! The lives of the store: a new one begins whenever it may have lost its memory (a promoted
//! standby, a restored backup, its first start). From then on every server is in doubt until
//! control has asked the nodes (protocols, chapter 1).
//!
//! A life's number, its *term*, rises by a step that nobody can guess: two lives that begin from
//! the same forgotten past are told apart.

use sea_orm::sea_query::{Expr, ExprTrait, Query};

use crate::cell::Column;
use crate::error::{Result, StoreError, of_change, plain};
use crate::store::Session;

/// A life of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Its number: higher than every one before that the store remembers.
    pub term: u64,
    /// Where it is lived: the database's own name for itself and its timeline.
    pub place: String,
}

/// All of them; the last one is kept.
#[derive(Clone, Copy)]
pub struct Lives<'a> {
    pub(crate) session: Session<'a>,
}

/// Every server is in doubt, as it stands; what is in doubt already stays so as it stood then.
pub(crate) const DOUBT_ALL: &str = "\
    INSERT INTO doubts (id, version, created_at, updated_at, epoch, stood, blocked) \
    SELECT id, 1, updated_at, updated_at, epoch, version, NULL FROM servers WHERE TRUE \
    ON CONFLICT (id) DO UPDATE SET version = doubts.version + 1, blocked = NULL";

/// How far the next term is.
pub(crate) fn step() -> i64 {
    let bytes = *uuid::Uuid::new_v4().as_bytes();
    1 + i64::from(u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]))
}

impl Lives<'_> {
    /// The present one.
    pub async fn now(&self) -> Result<Life> {
        let mut select = Query::select();
        select.columns(["term", "place"]).from("life");
        let row = self.session.row(&select).await?;
        let row = row.ok_or_else(|| StoreError::Refused("the store has no life".to_owned()))?;
        Ok(Life {
            term: u64::from_row(&row, "term").map_err(plain)?,
            place: String::from_row(&row, "place").map_err(plain)?,
        })
    }

    /// A new one begins in place of this one, and every server is in doubt; false: another
    /// instance was quicker.
    pub async fn begin(&self, instead_of: u64, place: &str) -> Result<bool> {
        self.end(instead_of, instead_of, Some(place)).await
    }

    /// The present one takes a number above this one, which a node has heard of: it is of a life
    /// that the store has forgotten.
    pub async fn rise_above(&self, present: u64, heard: u64) -> Result<bool> {
        self.end(present, Ord::max(heard, present), None).await
    }

    async fn end(&self, present: u64, above: u64, place: Option<&str>) -> Result<bool> {
        let work = self.session.work().await?;
        let mut update = Query::update();
        update
            .table("life")
            .value("term", above.cast_signed().saturating_add(step()))
            .and_where(Expr::col("term").eq(present.put()));
        if let Some(place) = place {
            update.value("place", place);
        }
        let touched = work.session().change(&update).await.map_err(of_change)?;
        if touched == 1 {
            work.session().run(DOUBT_ALL).await?;
        }
        work.done().await?;
        Ok(touched == 1)
    }

    /// A number that rises with what happens in the store and never falls while it remembers.
    pub async fn mark(&self) -> Result<u64> {
        let mut select = Query::select();
        select.column("value").from("counters");
        let mut sum = 0_u64;
        for row in self.session.rows(&select).await? {
            sum = sum.saturating_add(u64::from_row(&row, "value").map_err(plain)?);
        }
        Ok(sum)
    }
}
