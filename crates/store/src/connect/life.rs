//! A PostgreSQL that was promoted, or set up anew from a copy, may have lost commits. Every
//! connection is asked for the database's own name and timeline before anything is read by it: when
//! they are not those that the store remembers, a new life of the store begins there and then, in
//! one transaction. Nothing is remembered in the program, so that it makes no difference who asks
//! first, or whether somebody dies in between.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use crate::life::{DOUBT_ALL, step};

type Asked<T> = std::result::Result<T, sqlx::Error>;

/// The timeline by the log that is being written: the one in the control file is set only with the
/// first checkpoint after a promotion.
const LOOK: &str = "\
    SELECT current_setting('transaction_read_only') = 'off' AS writes, place AS kept, \
    CASE WHEN pg_is_in_recovery() THEN NULL ELSE \
    'postgres:' || (SELECT system_identifier FROM pg_control_system()) || ':' \
    || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS place FROM life";

/// Does the connection take writes? If so, the store's life is that of its database from now on.
pub(super) async fn takes_writes(connection: &mut PgConnection) -> Asked<bool> {
    match sqlx::query(LOOK).fetch_optional(&mut *connection).await {
        Ok(Some(row)) => {
            let (kept, place): (String, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
            if let Some(place) = place.filter(|place| *place != kept) {
                begin(connection, &place).await?;
            }
            row.try_get(0)
        }
        Ok(None) => read_only(connection).await.map(|it| !it),
        // Before the schema is there nothing can have been forgotten.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => {
            read_only(connection).await.map(|it| !it)
        }
        Err(error) => Err(error),
    }
}

async fn read_only(connection: &mut PgConnection) -> Asked<bool> {
    let said: String = sqlx::query_scalar("SHOW transaction_read_only")
        .fetch_one(connection)
        .await?;
    Ok(said != "off")
}

/// Of several who come here at once, one changes the row; the others wait for it and find it
/// changed.
async fn begin(connection: &mut PgConnection, place: &str) -> Asked<()> {
    let mut tx = connection.begin().await?;
    let changed = sqlx::query("UPDATE life SET term = term + $1, place = $2 WHERE place <> $2")
        .bind(step())
        .bind(place)
        .execute(&mut *tx)
        .await?;
    if changed.rows_affected() > 0 {
        sqlx::query(DOUBT_ALL).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    if changed.rows_affected() > 0 {
        tracing::warn!(
            place,
            "the database has begun a new life: what it may have forgotten is asked of the nodes"
        );
    }
    Ok(())
}
