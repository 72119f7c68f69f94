//! Mail that waits: what is due is taken by one of many.

use sea_orm::sea_query::{Expr, ExprTrait, Order};

use crate::Mail;
use crate::error::{Result, StoreError};
use crate::table::{Table, read, select};

impl Table<'_, Mail> {
    /// Mail that is due, the oldest first.
    pub async fn due(&self, now: i64, limit: u64) -> Result<Vec<Mail>> {
        let mut wanted = select::<Mail>();
        wanted
            .and_where(Expr::col("not_before").lte(now))
            .order_by("not_before", Order::Asc)
            .limit(limit);
        self.session.rows(&wanted).await?.iter().map(read).collect()
    }

    /// Takes a mail until then; none when another was quicker.
    pub async fn take(&self, mail: &Mail, until: i64, now: i64) -> Result<Option<Mail>> {
        let mut taken = mail.clone();
        taken.tries += 1;
        taken.not_before = until;
        match self.update(&taken, now).await {
            Ok(taken) => Ok(Some(taken)),
            Err(StoreError::Stale { .. } | StoreError::NotFound { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }
}
