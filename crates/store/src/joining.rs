//! One-time tokens and bearer tokens: found by the hash of the secret, used once where it counts.

use sea_orm::sea_query::{Expr, ExprTrait, Query};
use undine_model::Slug;

use crate::cell::Column;
use crate::error::{Result, StoreError, TokenRefusal, of_change};
use crate::table::{Table, read};
use crate::{JoinToken, JoinTokenFilter, Joiner, Token};

impl Table<'_, JoinToken> {
    /// Uses up a token: exactly one of many callers gets it, the others learn why not.
    pub async fn consume(
        &self,
        secret_sha256: &str,
        kind: Joiner,
        name: &Slug,
        used_by: &str,
        now: i64,
    ) -> Result<JoinToken> {
        let mut update = Query::update();
        update
            .table("join_tokens")
            .value("used_at", now)
            .value("used_by", used_by)
            .value("version", Expr::col("version").add(1))
            .value("updated_at", now)
            .and_where(Expr::col("secret_sha256").eq(secret_sha256))
            .and_where(Expr::col("kind").eq(kind.put()))
            .and_where(
                Expr::col("name")
                    .is_null()
                    .or(Expr::col("name").eq(name.put())),
            )
            .and_where(Expr::col("used_at").is_null())
            .and_where(Expr::col("expires_at").gt(now))
            .returning_all();
        let rows = self
            .session
            .changed_rows(&update)
            .await
            .map_err(of_change)?;
        if let Some(row) = rows.first() {
            return read(row);
        }
        let token = self
            .one(Expr::col("secret_sha256").eq(secret_sha256))
            .await?;
        Err(StoreError::Token(match token {
            Some(token) if token.kind == kind && token.used_at.is_some() => TokenRefusal::Used,
            Some(token) if token.kind == kind && token.expires_at <= now => TokenRefusal::Expired,
            _ => TokenRefusal::Unknown,
        }))
    }

    /// Tokens that can still be used.
    pub async fn open(&self, now: i64) -> Result<Vec<JoinToken>> {
        let all = self.all(&JoinTokenFilter::default()).await?;
        Ok(all
            .into_iter()
            .filter(|t| t.used_at.is_none() && t.expires_at > now)
            .collect())
    }
}

impl Table<'_, Token> {
    /// The token with this secret, when it is neither revoked nor over.
    pub async fn by_secret(&self, secret_sha256: &str, now: i64) -> Result<Option<Token>> {
        let token = self
            .one(Expr::col("secret_sha256").eq(secret_sha256))
            .await?;
        Ok(token.filter(|token| {
            token.revoked_at.is_none() && token.expires_at.is_none_or(|expires| expires > now)
        }))
    }
}
