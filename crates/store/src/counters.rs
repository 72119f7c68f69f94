//! Numbers that are given out once: each call is one statement, so no two callers get the same.

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};

use crate::error::{Result, StoreError, of_change, plain};
use crate::store::Session;

/// The Unix uid of the first site.
pub(crate) const FIRST_UID: i64 = 20_000;

/// All counters.
#[derive(Clone, Copy)]
pub struct Counters<'a> {
    pub(crate) session: Session<'a>,
}

impl Counters<'_> {
    /// The Unix uid of a new site, from 20000; never given out again.
    pub async fn next_site_uid(&self) -> Result<u32> {
        let uid = self.next("site_uid", FIRST_UID, 1).await?;
        u32::try_from(uid).map_err(|_| StoreError::Refused("the site uids are used up".to_owned()))
    }

    /// The index of a new server's addresses in the server network, from 0; never given out
    /// again. The caller turns it into addresses.
    pub async fn next_server_index(&self) -> Result<u64> {
        Ok(self.next("server_index", 0, 1).await?.unsigned_abs())
    }

    /// The next number of a counter of the caller's own, from 1.
    pub async fn next_of(&self, name: &str) -> Result<u64> {
        Ok(self
            .next(&format!("own/{name}"), 1, 1)
            .await?
            .unsigned_abs())
    }

    /// Takes `count` numbers at once and returns the last of them.
    pub(crate) async fn next(&self, name: &str, first: i64, count: i64) -> Result<i64> {
        let mut insert = Query::insert();
        insert
            .into_table("counters")
            .columns(["name", "value"])
            .values_panic([name.into(), (first + count - 1).into()])
            .on_conflict(
                OnConflict::column("name")
                    .value("value", Expr::col(("counters", "value")).add(count))
                    .to_owned(),
            )
            .returning_col("value");
        let rows = self
            .session
            .changed_rows(&insert)
            .await
            .map_err(of_change)?;
        let row = rows
            .first()
            .ok_or(StoreError::Refused("a counter gave nothing".to_owned()))?;
        row.try_get("", "value").map_err(plain)
    }

    /// Where a counter stands; 0 when it was never used.
    pub(crate) async fn value(&self, name: &str) -> Result<i64> {
        let mut select = Query::select();
        select
            .column("value")
            .from("counters")
            .and_where(Expr::col("name").eq(name));
        match self.session.row(&select).await? {
            Some(row) => row.try_get("", "value").map_err(plain),
            None => Ok(0),
        }
    }

    /// Moves a counter up to this value, never down.
    pub(crate) async fn raise(&self, name: &str, to: i64) -> Result<()> {
        let mut insert = Query::insert();
        insert
            .into_table("counters")
            .columns(["name", "value"])
            .values_panic([name.into(), to.into()])
            .on_conflict(
                OnConflict::column("name")
                    .value("value", to)
                    .action_and_where(Expr::col(("counters", "value")).lt(to))
                    .to_owned(),
            );
        self.session.change(&insert).await.map_err(of_change)?;
        Ok(())
    }
}
