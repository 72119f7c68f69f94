//! Copies of an SQLite database: taken while it runs, put back while it does not.

use std::path::{Path, PathBuf};

use sea_orm::{ConnectionTrait, DatabaseConnection, SqlxSqliteConnector, TransactionTrait};
use sqlx::sqlite::{SqliteConnectOptions, SqliteLockingMode, SqlitePoolOptions};

use crate::connect::{Target, sqlite_options};
use crate::error::{Result, StoreError, of_change, plain};
use crate::migrate::{Steps, applied, refuse_newer};
use crate::settings::Settings;
use crate::store::{Place, Store};
use sea_orm_migration::MigratorTrait;

impl Store {
    /// Writes a consistent copy of an SQLite database to a new file, while everything runs.
    pub async fn backup(&self, to: &Path) -> Result<()> {
        let Place::Sqlite(from) = &self.inner.place else {
            return Err(StoreError::Refused(
                "a PostgreSQL database is backed up with pg_dump; see `dump_postgres`".to_owned(),
            ));
        };
        if to.exists() {
            return Err(StoreError::Refused(format!(
                "{} exists already; a backup never overwrites",
                to.display()
            )));
        }
        let folder = parent(to);
        let partial = beside(to, "partial");
        remove(&partial)?;
        make_private(&partial)?;
        let sql = format!(
            "VACUUM INTO '{}'",
            partial.display().to_string().replace('\'', "''")
        );
        // By a connection of its own, so that nobody waits for it.
        let connection = single(sqlite_options(from))
            .await
            .map_err(|error| StoreError::Unavailable(error.into()))?;
        let copied = connection.execute_unprepared(&sql).await.map_err(of_change);
        connection.close_by_ref().await.map_err(plain)?;
        copied?;
        sync(&partial)?;
        rename(&partial, to)?;
        sync(&folder)
    }
}

/// Puts a backup in the place of the SQLite database that the URL names. What was there is kept
/// beside it, with the ending `replaced`.
///
/// Refused while any program has the database open, and when the backup's schema is not exactly
/// this program's.
pub async fn restore(backup: &Path, url: &str) -> Result<()> {
    let Target::Sqlite(target) = Target::parse(url)? else {
        return Err(StoreError::Refused(
            "a PostgreSQL database is restored with pg_restore; see `restore_postgres`".to_owned(),
        ));
    };
    let partial = beside(&target, "restoring");
    for leftover in [
        partial.clone(),
        with_suffix(&partial, "-wal"),
        with_suffix(&partial, "-shm"),
    ] {
        remove(&leftover)?;
    }
    make_private(&partial)?;
    std::fs::copy(backup, &partial).map_err(|source| StoreError::File {
        what: format!("the backup {} cannot be copied", backup.display()),
        source,
    })?;
    if let Err(refusal) = prepare(&partial).await {
        remove(&partial)?;
        return Err(refusal);
    }
    sync(&partial)?;
    if target.exists() {
        if let Err(refusal) = refuse_running(&target).await {
            remove(&partial)?;
            return Err(refusal);
        }
        rename(&target, &beside(&target, "replaced"))?;
    }
    // A log that belongs to the old file would be played into the new one.
    remove(&with_suffix(&target, "-wal"))?;
    remove(&with_suffix(&target, "-shm"))?;
    rename(&partial, &target)?;
    sync(&parent(&target))
}

/// Is it a sound database of this program's schema? Then mark it as restored.
async fn prepare(path: &Path) -> Result<()> {
    let connection = alone(path).await.map_err(|error| {
        StoreError::Refused(format!(
            "the backup is no database that can be read: {error}"
        ))
    })?;
    let outcome = examine(&connection).await;
    connection.close_by_ref().await.map_err(plain)?;
    outcome
}

async fn examine(connection: &DatabaseConnection) -> Result<()> {
    let tx = connection.begin().await.map_err(plain)?;
    let steps = applied(&tx).await.map_err(|_| {
        StoreError::Refused("the backup is no database that can be read".to_owned())
    })?;
    refuse_newer(&steps)?;
    if steps.len() != Steps::migrations().len() {
        return Err(StoreError::Refused(
            "the backup has the schema of an older program; restore it with that program, then migrate"
                .to_owned(),
        ));
    }
    let check = sea_orm::Statement::from_string(tx.get_database_backend(), "PRAGMA quick_check");
    let verdict: String = match tx.query_one_raw(check).await.map_err(plain)? {
        Some(row) => row.try_get_by_index(0).map_err(plain)?,
        None => String::new(),
    };
    if verdict != "ok" {
        return Err(StoreError::Refused(format!(
            "the backup is damaged: {verdict}"
        )));
    }
    let mark = sea_orm::Statement::from_sql_and_values(
        tx.get_database_backend(),
        "INSERT INTO settings (key, value, version, updated_at) VALUES (?, 'true', 1, 0) \
         ON CONFLICT (key) DO UPDATE SET value = 'true', version = settings.version + 1",
        [Settings::RESTORED.into()],
    );
    tx.execute_raw(mark).await.map_err(plain)?;
    tx.commit().await.map_err(plain)
}

/// Any connection of any program holds a lock on the file as long as it is open.
async fn refuse_running(path: &Path) -> Result<()> {
    let running = || {
        StoreError::Refused(format!(
            "{} is in use; stop undine-control before restoring",
            path.display()
        ))
    };
    let connection = alone(path).await.map_err(|_| running())?;
    let lock = connection
        .execute_unprepared("BEGIN EXCLUSIVE; COMMIT")
        .await;
    connection.close_by_ref().await.map_err(plain)?;
    lock.map(drop).map_err(|_| running())
}

/// The only connection to a database, or none.
async fn alone(path: &Path) -> std::result::Result<DatabaseConnection, sqlx::Error> {
    let options = sqlite_options(path)
        .locking_mode(SqliteLockingMode::Exclusive)
        .busy_timeout(std::time::Duration::from_millis(500));
    single(options).await
}

async fn single(
    options: SqliteConnectOptions,
) -> std::result::Result<DatabaseConnection, sqlx::Error> {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(std::time::Duration::from_secs(5))
        .connect_with(options)
        .await?;
    Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool))
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    with_suffix(path, &format!(".{ending}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|source| file("made", path, source))
}

fn sync(path: &Path) -> Result<()> {
    std::fs::File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|source| file("written to disk", path, source))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|source| file("put in place", to, source))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file("removed", path, error))
        }
        _ => Ok(()),
    }
}

fn file(what: &str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::File {
        what: format!("{} cannot be {what}", path.display()),
        source,
    }
}
