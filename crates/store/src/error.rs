//! What can go wrong in the store, in words that control can hand on.

use std::error::Error;

use sea_orm::{DbErr, RuntimeErr};

/// The driver's own error, kept as the source of ours; no caller looks into it.
pub type Cause = Box<dyn Error + Send + Sync>;

/// The result of everything here.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A value that must be unique is in use.
    #[error("a {record} whose {field} is `{value}` exists already")]
    Taken {
        /// What kind of record.
        record: &'static str,
        /// Which field.
        field: String,
        /// The value that was wanted.
        value: String,
    },
    /// Somebody changed the record after it was read: read it again and decide anew.
    #[error(
        "the {record} {id} was changed meanwhile (version {expected} was expected); read it again"
    )]
    Stale {
        /// What kind of record.
        record: &'static str,
        /// Which one.
        id: String,
        /// The version that the caller had read.
        expected: i64,
    },
    /// There is no such record.
    #[error("there is no {record} {id}")]
    NotFound {
        /// What kind of record.
        record: &'static str,
        /// Which one was asked for.
        id: String,
    },
    /// Others refer to the record, so it cannot go.
    #[error("the {record} {id} is still in use by other records")]
    InUse {
        /// What kind of record.
        record: &'static str,
        /// Which one.
        id: String,
    },
    /// The record names another that does not exist.
    #[error("the {record} names something that does not exist")]
    MissingReference {
        /// What kind of record was to be written.
        record: &'static str,
    },
    /// Another instance has taken the operation over; stop working on it.
    #[error("the operation {0} is no longer this instance's; another one works on it")]
    LostLease(undine_model::OperationId),
    /// A one-time or scoped secret is not accepted, and why.
    #[error("the join token is {0}")]
    Token(TokenRefusal),
    /// Another transaction was in the way; the same call may succeed when repeated.
    #[error("another change was in the way; try again")]
    Conflict(#[source] Cause),
    /// The database cannot be reached; nothing was changed.
    #[error("the database cannot be reached")]
    Unavailable(#[source] Cause),
    /// The connection broke while a change was under way: it may or may not have happened.
    #[error("the database's reply was lost; read again to see whether the change happened")]
    Unknown(#[source] Cause),
    /// The database was written by a newer program.
    #[error(
        "the database has the schema `{found}`, which this program does not know: it was written by a newer version; start that version or restore a backup of this one"
    )]
    NewerDatabase {
        /// The name of the newest unknown migration.
        found: String,
    },
    /// The database is empty or older than the program.
    #[error(
        "the database has not been migrated to the schema of this program; run the migration first"
    )]
    NotMigrated,
    /// The URL names no database that we know.
    #[error("`{url}` is no database URL: {reason}")]
    Url {
        /// The URL with its password removed.
        url: String,
        /// What is wrong about it.
        reason: String,
    },
    /// A stored value cannot be read.
    #[error("the stored {record} cannot be read")]
    Corrupt {
        /// What kind of record.
        record: &'static str,
        /// Column and value.
        #[source]
        source: Cause,
    },
    /// A backup or restore was refused, and why.
    #[error("{0}")]
    Refused(String),
    /// A file could not be read or written.
    #[error("{what}")]
    File {
        /// What was tried on which file.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A transaction went on after one of its statements had failed; nothing of it was kept.
    #[error("the transaction was ended by an earlier error")]
    Aborted,
    /// Anything else that the database said.
    #[error("the database refused a statement")]
    Database(#[source] Cause),
}

/// Why a join token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRefusal {
    /// Never made, or made for another kind of program.
    Unknown,
    /// Its time is over.
    Expired,
    /// Somebody used it before.
    Used,
}

impl std::fmt::Display for TokenRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "not known here; make a new one",
            Self::Expired => "expired; make a new one",
            Self::Used => "used up; each token admits one program, make a new one",
        })
    }
}

/// What the driver's error means, before it is known which record it is about.
pub(crate) enum Fault {
    /// A unique value is in use: its column.
    Unique(String),
    /// A reference in one direction or the other.
    Reference,
    Conflict,
    /// No connection could be had: surely nothing happened.
    Unreachable,
    /// The connection broke in the middle.
    Broken,
    Other,
}

pub(crate) fn fault_of(error: &DbErr) -> Fault {
    match driver_error(error) {
        Some(sqlx::Error::Database(database)) => database_fault(database.as_ref()),
        Some(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => Fault::Unreachable,
        Some(
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed,
        ) => Fault::Broken,
        Some(_) => Fault::Other,
        None => match error {
            DbErr::ConnectionAcquire(_) => Fault::Unreachable,
            _ => Fault::Other,
        },
    }
}

fn driver_error(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

fn database_fault(error: &dyn sqlx::error::DatabaseError) -> Fault {
    let code = error.code().unwrap_or_default();
    if error
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
        .is_some()
    {
        return match code.as_ref() {
            "1555" | "2067" => Fault::Unique(sqlite_column(error.message())),
            "787" | "1811" => Fault::Reference,
            // The low byte is the family: 5 is BUSY, 6 is LOCKED.
            code => match code.parse::<u32>().map(|code| code & 0xff) {
                Ok(5 | 6) => Fault::Conflict,
                _ => Fault::Other,
            },
        };
    }
    match code.as_ref() {
        "23505" => Fault::Unique(postgres_column(error.constraint().unwrap_or_default())),
        "23503" => Fault::Reference,
        "40001" | "40P01" | "55P03" => Fault::Conflict,
        // Read-only (a demoted primary), shutting down, starting up, too many clients.
        "25006" | "57P03" | "53300" => Fault::Unreachable,
        "57P01" | "57P02" => Fault::Broken,
        code if code.starts_with("08") => Fault::Broken,
        _ => Fault::Other,
    }
}

/// `UNIQUE constraint failed: databases.server, databases.name` → `name`.
fn sqlite_column(message: &str) -> String {
    let last = message.rsplit([',', ':']).next().unwrap_or_default().trim();
    last.rsplit('.').next().unwrap_or_default().to_owned()
}

/// `uq__databases__server__name` → `name`; a primary key is the id.
fn postgres_column(constraint: &str) -> String {
    match constraint.rsplit_once("__") {
        Some((_, column)) => column.to_owned(),
        None => "id".to_owned(),
    }
}

/// An error that is about no record in particular.
pub(crate) fn plain(error: DbErr) -> StoreError {
    match fault_of(&error) {
        Fault::Conflict => StoreError::Conflict(error.into()),
        Fault::Unreachable | Fault::Broken => StoreError::Unavailable(error.into()),
        Fault::Unique(_) | Fault::Reference | Fault::Other => StoreError::Database(error.into()),
    }
}

/// An error of a change: when the connection broke, nobody knows whether it happened.
pub(crate) fn of_change(error: DbErr) -> StoreError {
    match fault_of(&error) {
        Fault::Broken => StoreError::Unknown(error.into()),
        _ => plain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_found_in_what_either_database_says() {
        assert_eq!(
            sqlite_column("UNIQUE constraint failed: nodes.name"),
            "name"
        );
        assert_eq!(
            sqlite_column("UNIQUE constraint failed: databases.server, databases.name"),
            "name"
        );
        assert_eq!(postgres_column("uq__databases__server__name"), "name");
        assert_eq!(postgres_column("nodes_pkey"), "id");
    }
}
