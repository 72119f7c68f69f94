//! PostgreSQL: one pool at whichever of the hosts takes writes now.

use std::time::Duration;

use sea_orm::{DatabaseConnection, SqlxPostgresConnector};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};
use tokio::task::JoinHandle;

use super::life::takes_writes;
use crate::error::{Result, StoreError};

const CONNECTIONS: u32 = 12;
const PROBE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_secs(1);

/// The database, its pool, and the task that follows it from host to host.
pub(crate) async fn open(
    hosts: Vec<PgConnectOptions>,
) -> Result<(DatabaseConnection, PgPool, Option<JoinHandle<()>>)> {
    let hosts: Vec<PgConnectOptions> = hosts.into_iter().map(durable).collect();
    let first = writable(&hosts).await?;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(Duration::from_secs(8))
        // In place of sqlx's ping: a primary that was demoted still answers that one.
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(takes_writes(connection)))
        // A fresh one passes the other gate.
        .after_connect(|connection, _| {
            Box::pin(async move { takes_writes(connection).await.map(drop) })
        })
        .connect_lazy_with(first);
    let follower = (hosts.len() > 1).then(|| tokio::spawn(follow(pool.clone(), hosts)));
    let connection = SqlxPostgresConnector::from_sqlx_postgres_pool(pool.clone());
    Ok((connection, pool, follower))
}

/// A commit is answered when it is on disk, and on the synchronous standby where there is one.
fn durable(options: PgConnectOptions) -> PgConnectOptions {
    options
        .application_name("undine-control")
        .options([
            ("synchronous_commit", "on"),
            ("statement_timeout", "30s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "60s"),
        ])
        .disable_statement_logging()
}

/// The first host that can be reached and takes writes.
async fn writable(hosts: &[PgConnectOptions]) -> Result<PgConnectOptions> {
    let mut why: Option<sqlx::Error> = None;
    for host in hosts {
        match tokio::time::timeout(PROBE, probe(host)).await {
            Ok(Ok(true)) => return Ok(host.clone()),
            Ok(Ok(false)) => tracing::debug!(host = host.get_host(), "takes no writes"),
            Ok(Err(error)) => why = Some(error),
            Err(_) => tracing::debug!(host = host.get_host(), "does not answer"),
        }
    }
    Err(StoreError::Unavailable(match why {
        Some(error) => error.into(),
        None => "no host of the URL takes writes".into(),
    }))
}

async fn probe(host: &PgConnectOptions) -> std::result::Result<bool, sqlx::Error> {
    let mut connection = PgConnection::connect_with(host).await?;
    let writes = takes_writes(&mut connection).await?;
    connection.close().await?;
    Ok(writes)
}

/// Points the pool to another host whenever the present one is no good any more.
async fn follow(pool: PgPool, hosts: Vec<PgConnectOptions>) {
    while !pool.is_closed() {
        tokio::time::sleep(LOOK).await;
        let good = match tokio::time::timeout(PROBE, pool.acquire()).await {
            Ok(Ok(mut connection)) => takes_writes(&mut connection).await.unwrap_or(false),
            _ => false,
        };
        if good || pool.is_closed() {
            continue;
        }
        match writable(&hosts).await {
            Ok(host) => {
                tracing::info!(host = host.get_host(), "the database moved");
                pool.set_connect_options(host);
            }
            Err(error) => tracing::warn!(%error, "no database host takes writes"),
        }
    }
}
