//! Answers to requests that may come twice: the first does the work, later ones get its answer.

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};
use undine_model::TokenId;

use crate::cell::Column;
use crate::error::{Result, StoreError, of_change, plain};
use crate::store::Session;

/// An answer that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedResponse {
    /// HTTP status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

/// What to do with a request that carries a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Do it, then `finish`, or `abandon` when it changed nothing.
    Fresh,
    /// The same request is being worked on.
    InProgress,
    /// It was done: give this answer again.
    Done(SavedResponse),
    /// Another request used the key: refuse.
    OtherRequest,
}

/// Keys of requests, apart for each token.
#[derive(Clone, Copy)]
pub struct Idempotency<'a> {
    pub(crate) session: Session<'a>,
}

impl Idempotency<'_> {
    /// A request came with this key. `request_hash` covers method, path and body; `busy_ms` is
    /// how long an instance that dies over the work may block the key.
    pub async fn begin(
        &self,
        key: &str,
        token: TokenId,
        request_hash: &str,
        now: i64,
        busy_ms: i64,
    ) -> Result<Begun> {
        let mut insert = Query::insert();
        insert
            .into_table("idempotency")
            .columns([
                "token",
                "key",
                "request_hash",
                "status",
                "body",
                "expires_at",
            ])
            .values_panic([
                token.put().into(),
                key.into(),
                request_hash.into(),
                Option::<i64>::None.into(),
                Option::<String>::None.into(),
                (now + busy_ms).into(),
            ])
            .on_conflict(
                OnConflict::columns(["token", "key"])
                    .update_columns(["request_hash", "status", "body", "expires_at"])
                    .action_and_where(Expr::col(("idempotency", "expires_at")).lte(now))
                    .to_owned(),
            );
        if self.session.change(&insert).await.map_err(of_change)? == 1 {
            return Ok(Begun::Fresh);
        }
        self.look(key, token, request_hash).await
    }

    async fn look(&self, key: &str, token: TokenId, request_hash: &str) -> Result<Begun> {
        let mut select = Query::select();
        select
            .columns(["request_hash", "status", "body"])
            .from("idempotency")
            .and_where(Expr::col("token").eq(token.put()))
            .and_where(Expr::col("key").eq(key));
        let Some(row) = self.session.row(&select).await? else {
            // Abandoned just now; the caller's caller tries again.
            return Ok(Begun::InProgress);
        };
        if String::from_row(&row, "request_hash").map_err(plain)? != request_hash {
            return Ok(Begun::OtherRequest);
        }
        let status = Option::<u16>::from_row(&row, "status").map_err(plain)?;
        let body = Option::<String>::from_row(&row, "body").map_err(plain)?;
        Ok(match (status, body) {
            (Some(status), Some(body)) => Begun::Done(SavedResponse { status, body }),
            _ => Begun::InProgress,
        })
    }

    /// The request was answered; later ones get the same answer until `expires_at`. Best done in
    /// the transaction that does the work.
    pub async fn finish(
        &self,
        key: &str,
        token: TokenId,
        response: &SavedResponse,
        expires_at: i64,
    ) -> Result<()> {
        let mut update = Query::update();
        update
            .table("idempotency")
            .value("status", Some(response.status).put())
            .value("body", response.body.as_str())
            .value("expires_at", expires_at)
            .and_where(Expr::col("token").eq(token.put()))
            .and_where(Expr::col("key").eq(key));
        match self.session.change(&update).await.map_err(of_change)? {
            0 => Err(StoreError::NotFound {
                record: "idempotency key",
                id: key.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The request changed nothing; the key is free again.
    pub async fn abandon(&self, key: &str, token: TokenId) -> Result<()> {
        let mut delete = Query::delete();
        delete
            .from_table("idempotency")
            .and_where(Expr::col("token").eq(token.put()))
            .and_where(Expr::col("key").eq(key))
            .and_where(Expr::col("status").is_null());
        self.session.change(&delete).await.map_err(of_change)?;
        Ok(())
    }

    /// Forgets keys whose time is over.
    pub async fn trim(&self, now: i64) -> Result<u64> {
        let mut delete = Query::delete();
        delete
            .from_table("idempotency")
            .and_where(Expr::col("expires_at").lte(now));
        self.session.change(&delete).await.map_err(of_change)
    }
}
