//! The handle: a cloneable `Store`, its transactions, and where each statement runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseExecutor, DatabaseTransaction, DbErr, QueryResult,
    SqliteTransactionMode, StatementBuilder, TransactionOptions, TransactionTrait,
};

use crate::changes::Herald;
use crate::error::{Result, StoreError, of_change, plain};
use crate::logs::Pending;

/// The database of control. Clones share their connections.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    /// Takes all changes; one connection with SQLite.
    pub(crate) writer: DatabaseConnection,
    /// Takes reads outside of transactions.
    pub(crate) reader: DatabaseConnection,
    pub(crate) herald: Herald,
    pub(crate) place: Place,
}

/// Which database it is and where.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Sqlite(std::path::PathBuf),
    Postgres,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("place", &self.inner.place)
            .finish_non_exhaustive()
    }
}

/// A transaction: all of it happens at [`Tx::commit`], or nothing. Dropped, it is rolled back.
///
/// With SQLite there is one writer: while a `Tx` lives, every other change waits. So never
/// change anything through the `Store` while holding a `Tx`, and await nothing slow in between.
pub struct Tx {
    store: Store,
    inner: DatabaseTransaction,
    failed: AtomicBool,
    pending: Mutex<Pending>,
}

impl Store {
    /// Begins a transaction.
    pub async fn begin(&self) -> Result<Tx> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let inner = self
            .inner
            .writer
            .begin_with_options(options)
            .await
            .map_err(plain)?;
        Ok(Tx {
            store: self.clone(),
            inner,
            failed: AtomicBool::new(false),
            pending: Mutex::default(),
        })
    }

    /// Can the database be reached? For health checks.
    pub async fn ping(&self) -> Result<()> {
        self.inner.reader.ping().await.map_err(plain)
    }

    /// Ends all connections; other clones cannot be used any more either.
    pub async fn close(&self) {
        self.inner.herald.stop();
        for connection in [&self.inner.reader, &self.inner.writer] {
            if let Err(error) = connection.close_by_ref().await {
                tracing::debug!(%error, "closing the database");
            }
        }
    }

    /// `sqlite` or `postgres`.
    pub fn kind(&self) -> &'static str {
        match self.inner.place {
            Place::Sqlite(_) => "sqlite",
            Place::Postgres => "postgres",
        }
    }
}

impl Tx {
    /// Makes everything happen that was done in it, announced events and routes last.
    ///
    /// [`StoreError::Unknown`] means that the reply was lost: read again to see.
    pub async fn commit(self) -> Result<()> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(StoreError::Aborted);
        }
        let pending =
            std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        let announces = !pending.is_empty();
        if announces {
            // Last, because these hold one counter each until the end: transactions that have
            // come this far wait for nothing else, so they cannot wait for each other in a ring.
            pending.write(Session::Tx(&self)).await?;
            self.store
                .inner
                .herald
                .announce(&self.inner)
                .await
                .map_err(of_change)?;
        }
        self.inner.commit().await.map_err(of_change)?;
        if announces {
            self.store.inner.herald.wake();
        }
        Ok(())
    }

    /// `sqlite` or `postgres`.
    pub(crate) fn kind(&self) -> &'static str {
        self.store.kind()
    }

    /// Forgets everything that was done in it.
    pub async fn rollback(self) -> Result<()> {
        self.inner.rollback().await.map_err(plain)
    }

    pub(crate) fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where statements run: outside or inside of a transaction.
#[derive(Clone, Copy)]
pub enum Session<'a> {
    /// Each by itself.
    Store(&'a Store),
    /// Together with others.
    Tx(&'a Tx),
}

impl<'a> Session<'a> {
    fn reader(self) -> DatabaseExecutor<'a> {
        match self {
            Self::Store(store) => DatabaseExecutor::Connection(&store.inner.reader),
            Self::Tx(tx) => DatabaseExecutor::Transaction(&tx.inner),
        }
    }

    fn writer(self) -> DatabaseExecutor<'a> {
        match self {
            Self::Store(store) => DatabaseExecutor::Connection(&store.inner.writer),
            Self::Tx(tx) => DatabaseExecutor::Transaction(&tx.inner),
        }
    }

    /// PostgreSQL ends a transaction at the first error; so that both behave alike, so do we.
    fn note<T>(self, result: std::result::Result<T, DbErr>) -> std::result::Result<T, DbErr> {
        if let (Self::Tx(tx), Err(_)) = (self, &result) {
            tx.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Rows of a `SELECT`.
    pub(crate) async fn rows<S>(self, statement: &S) -> Result<Vec<QueryResult>>
    where
        S: StatementBuilder + Sync,
    {
        self.note(self.reader().query_all(statement).await)
            .map_err(plain)
    }

    /// The only row of a `SELECT`, if there is one.
    pub(crate) async fn row<S>(self, statement: &S) -> Result<Option<QueryResult>>
    where
        S: StatementBuilder + Sync,
    {
        self.note(self.reader().query_one(statement).await)
            .map_err(plain)
    }

    /// Rows that a change returns; the caller gives the error its meaning.
    pub(crate) async fn changed_rows<S>(
        self,
        statement: &S,
    ) -> std::result::Result<Vec<QueryResult>, DbErr>
    where
        S: StatementBuilder + Sync,
    {
        self.note(self.writer().query_all(statement).await)
    }

    /// How many rows a change touched; the caller gives the error its meaning.
    pub(crate) async fn change<S>(self, statement: &S) -> std::result::Result<u64, DbErr>
    where
        S: StatementBuilder + Sync,
    {
        self.note(self.writer().execute(statement).await)
            .map(|done| done.rows_affected())
    }

    /// A change that is the same on both databases, as it is written.
    pub(crate) async fn run(self, sql: &str) -> Result<()> {
        self.note(self.writer().execute_unprepared(sql).await)
            .map(drop)
            .map_err(of_change)
    }

    /// A transaction for several statements: the one that is there, or one of its own.
    pub(crate) async fn work(self) -> Result<Work<'a>> {
        match self {
            Self::Store(store) => Ok(Work::Own(store.begin().await?)),
            Self::Tx(tx) => Ok(Work::Part(tx)),
        }
    }
}

/// Several statements that belong together.
pub(crate) enum Work<'a> {
    Own(Tx),
    Part(&'a Tx),
}

impl Work<'_> {
    pub(crate) fn tx(&self) -> &Tx {
        match self {
            Self::Own(tx) => tx,
            Self::Part(tx) => tx,
        }
    }

    pub(crate) fn session(&self) -> Session<'_> {
        Session::Tx(self.tx())
    }

    /// Commits, unless a larger transaction will.
    pub(crate) async fn done(self) -> Result<()> {
        match self {
            Self::Own(tx) => tx.commit().await,
            Self::Part(_) => Ok(()),
        }
    }
}
