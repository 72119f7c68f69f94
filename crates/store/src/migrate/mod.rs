//! The schema, step by step, forward only.
//!
//! Steps that were released are never edited: a change is a new step. They do not use the
//! records of the day, so that they still build the schema of their own time.

mod table;
mod v0001_first;
mod v0002_failover;
mod v0010_people;
mod v0011_second_step;
mod v0012_scrub;
mod v0013_memory;
mod v0015_mail;
mod v0016_resellers;
mod v0017_narrower;
mod v0018_suspended_resellers;

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};
use sea_orm_migration::prelude::{MigrationTrait, MigratorTrait};

use crate::error::{Result, StoreError, plain};
use crate::store::Store;

/// All steps that this program knows, oldest first.
pub(crate) struct Steps;

impl MigratorTrait for Steps {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(v0001_first::Step),
            Box::new(v0002_failover::Step),
            Box::new(v0010_people::Step),
            Box::new(v0011_second_step::Step),
            Box::new(v0012_scrub::Step),
            Box::new(v0013_memory::Step),
            Box::new(v0015_mail::Step),
            Box::new(v0016_resellers::Step),
            Box::new(v0017_narrower::Step),
            Box::new(v0018_suspended_resellers::Step),
        ]
    }
}

/// The lock that lets one of several starting instances migrate (any number, always the same).
const LOCK: i64 = 0x756e_6469_6e65;

/// What a migration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// Steps applied now.
    pub applied: usize,
    /// Steps in all.
    pub schema: usize,
}

impl Store {
    /// Brings the schema up to this program's, and tells what it did. Safe when several
    /// instances start at once; refuses a database that a newer program has written.
    pub async fn migrate(&self) -> Result<Migrated> {
        self.migrate_by(None).await
    }

    /// At most so many steps: for tests that put rows in between.
    #[doc(hidden)]
    pub async fn migrate_by(&self, steps: Option<u32>) -> Result<Migrated> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let tx = self
            .inner
            .writer
            .begin_with_options(options)
            .await
            .map_err(plain)?;
        if tx.get_database_backend() == DbBackend::Postgres {
            // The others wait here until the first is done; that may be long.
            let lock = format!(
                "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0; \
                 SELECT pg_advisory_xact_lock({LOCK})"
            );
            tx.execute_unprepared(&lock).await.map_err(plain)?;
        }
        let before = applied(&tx).await?;
        refuse_newer(&before)?;
        Steps::up(&tx, steps).await.map_err(plain)?;
        let after = applied(&tx).await?;
        tx.commit().await.map_err(plain)?;
        Ok(Migrated {
            applied: after.len() - before.len(),
            schema: after.len(),
        })
    }

    /// Has anybody made tables in it?
    pub(crate) async fn has_tables(&self) -> Result<bool> {
        let sql = match self.inner.reader.get_database_backend() {
            DbBackend::Postgres => {
                "SELECT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = current_schema()) AS there"
            }
            _ => "SELECT EXISTS (SELECT 1 FROM sqlite_master) AS there",
        };
        let statement =
            sea_orm::Statement::from_string(self.inner.reader.get_database_backend(), sql);
        let row = self
            .inner
            .reader
            .query_one_raw(statement)
            .await
            .map_err(plain)?;
        row.map_or(Ok(false), |row| row.try_get("", "there"))
            .map_err(plain)
    }

    /// Is the schema exactly this program's?
    pub async fn check_schema(&self) -> Result<()> {
        let options = TransactionOptions::default();
        let tx = self
            .inner
            .reader
            .begin_with_options(options)
            .await
            .map_err(plain)?;
        let applied = applied(&tx).await?;
        refuse_newer(&applied)?;
        if applied.len() < Steps::migrations().len() {
            return Err(StoreError::NotMigrated);
        }
        Ok(())
    }
}

/// The names of the steps that the database has.
pub(crate) async fn applied(tx: &DatabaseTransaction) -> Result<Vec<String>> {
    let exists = match tx.get_database_backend() {
        DbBackend::Postgres => "SELECT to_regclass('seaql_migrations') IS NOT NULL AS there",
        _ => "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'seaql_migrations') AS there",
    };
    let names = async {
        let there = tx.query_one_raw(statement(tx, exists)).await?;
        let there: bool = there.map_or(Ok(false), |row| row.try_get("", "there"))?;
        if !there {
            return Ok(Vec::new());
        }
        let all = "SELECT version FROM seaql_migrations ORDER BY version";
        let rows = tx.query_all_raw(statement(tx, all)).await?;
        rows.iter().map(|row| row.try_get("", "version")).collect()
    };
    names.await.map_err(|error: DbErr| plain(error))
}

fn statement(tx: &DatabaseTransaction, sql: &str) -> sea_orm::Statement {
    sea_orm::Statement::from_string(tx.get_database_backend(), sql)
}

/// A database that has steps which we do not know was written by a newer program.
pub(crate) fn refuse_newer(applied: &[String]) -> Result<()> {
    let known: Vec<String> = Steps::migrations()
        .iter()
        .map(|m| m.name().to_owned())
        .collect();
    match applied.iter().rev().find(|name| !known.contains(name)) {
        Some(found) => Err(StoreError::NewerDatabase {
            found: found.clone(),
        }),
        None => Ok(()),
    }
}
