//! Sessions and one-time links: found by the hash of their secret, ended, used once.

use sea_orm::sea_query::{Expr, ExprTrait, Query};

use crate::cell::Column;
use crate::error::{Result, of_change};
use crate::table::{Table, read};
use crate::{Failures, Link, Login, LoginId, PersonId};

impl Table<'_, Login> {
    /// The session with this secret, while it lasts.
    pub async fn by_secret(&self, secret_sha256: &str, now: i64) -> Result<Option<Login>> {
        let login = self
            .one(Expr::col("secret_sha256").eq(secret_sha256))
            .await?;
        Ok(login.filter(|login| login.expires_at > now))
    }

    /// It is used, from here, and lasts until then.
    pub async fn touch(&self, id: LoginId, ip: &str, now: i64, expires_at: i64) -> Result<()> {
        let values = vec![
            ("last_used_at", now.into()),
            ("ip", ip.into()),
            ("expires_at", expires_at.into()),
        ];
        self.set(id, values).await
    }

    /// Ends a person's sessions, but one.
    pub async fn end_all(&self, person: PersonId, but: Option<LoginId>) -> Result<()> {
        let mut delete = Query::delete();
        delete
            .from_table("sessions")
            .and_where(Expr::col("person").eq(person.put()));
        if let Some(but) = but {
            delete.and_where(Expr::col("id").ne(but.put()));
        }
        self.session.change(&delete).await.map_err(of_change)?;
        Ok(())
    }

    /// Forgets the sessions that are over.
    pub async fn trim(&self, now: i64) -> Result<u64> {
        let mut delete = Query::delete();
        delete
            .from_table("sessions")
            .and_where(Expr::col("expires_at").lte(now));
        self.session.change(&delete).await.map_err(of_change)
    }
}

impl Table<'_, Link> {
    /// The link with this secret, while it can be used.
    pub async fn by_secret(&self, secret_sha256: &str, now: i64) -> Result<Option<Link>> {
        let link = self
            .one(Expr::col("secret_sha256").eq(secret_sha256))
            .await?;
        Ok(link.filter(|link| link.expires_at > now))
    }

    /// Forgets the links that are over.
    pub async fn trim(&self, now: i64) -> Result<u64> {
        let mut delete = Query::delete();
        delete
            .from_table("links")
            .and_where(Expr::col("expires_at").lte(now));
        self.session.change(&delete).await.map_err(of_change)
    }

    /// Uses up a link: exactly one of many callers gets it.
    pub async fn consume(&self, secret_sha256: &str, now: i64) -> Result<Option<Link>> {
        let mut delete = Query::delete();
        delete
            .from_table("links")
            .and_where(Expr::col("secret_sha256").eq(secret_sha256))
            .and_where(Expr::col("expires_at").gt(now))
            .returning_all();
        let rows = self
            .session
            .changed_rows(&delete)
            .await
            .map_err(of_change)?;
        rows.first().map(read).transpose()
    }
}

impl Table<'_, Failures> {
    /// A right password: what was counted is forgotten.
    pub async fn forget(&self, what: &str) -> Result<()> {
        let mut delete = Query::delete();
        delete
            .from_table("login_failures")
            .and_where(Expr::col("what").eq(what));
        self.session.change(&delete).await.map_err(of_change)?;
        Ok(())
    }

    /// Forgets counts that nobody has added to since then.
    pub async fn trim(&self, before: i64) -> Result<u64> {
        let mut delete = Query::delete();
        delete
            .from_table("login_failures")
            .and_where(Expr::col("updated_at").lt(before));
        self.session.change(&delete).await.map_err(of_change)
    }
}
