//! Waking those who wait for something to happen: other instances' commits are noticed within
//! 200 ms, this instance's own and, on PostgreSQL, everybody's at once.

use std::sync::Mutex;
use std::time::Duration;

use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::error::{Result, StoreError};
use crate::logs::EVENT_COUNTER;
use crate::routes::ROUTE_COUNTER;
use crate::store::Store;

const CHANNEL: &str = "undine_changes";
const POLL: Duration = Duration::from_millis(200);

/// How far the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The number of the newest event.
    pub event: u64,
    /// The version of the routes.
    pub route: u64,
}

/// Tells whenever something was announced.
#[derive(Debug, Clone)]
pub struct Changes {
    receiver: watch::Receiver<Mark>,
}

impl Changes {
    /// How far the store was when last looked at.
    pub fn mark(&self) -> Mark {
        *self.receiver.borrow()
    }

    /// Waits until the store is further than it was at the last call.
    pub async fn next(&mut self) -> Result<Mark> {
        self.receiver
            .changed()
            .await
            .map_err(|_| StoreError::Unavailable("the store was closed".into()))?;
        Ok(*self.receiver.borrow_and_update())
    }
}

impl Store {
    /// Tells from now on whenever an event or a route was announced, by any instance.
    pub fn changes(&self) -> Changes {
        Changes {
            receiver: self.inner.herald.marks.subscribe(),
        }
    }
}

/// One task a store that looks how far it is, while anybody waits.
pub(crate) struct Herald {
    marks: watch::Sender<Mark>,
    wake: std::sync::Arc<Notify>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Herald {
    /// Must be called inside of a tokio runtime.
    pub(crate) fn start(reader: DatabaseConnection, postgres: Option<PgPool>) -> Self {
        let (marks, _) = watch::channel(Mark::default());
        let wake = std::sync::Arc::new(Notify::new());
        let mut tasks = vec![tokio::spawn(watch_marks(
            reader,
            marks.clone(),
            wake.clone(),
        ))];
        if let Some(pool) = postgres {
            tasks.push(tokio::spawn(listen(pool, wake.clone())));
        }
        Self {
            marks,
            wake,
            tasks: Mutex::new(tasks),
        }
    }

    /// Something was committed here.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells the other instances when the transaction commits.
    pub(crate) async fn announce(
        &self,
        tx: &DatabaseTransaction,
    ) -> std::result::Result<(), DbErr> {
        if tx.get_database_backend() == DbBackend::Postgres {
            tx.execute_unprepared("NOTIFY undine_changes").await?;
        }
        Ok(())
    }

    /// Another task that ends with the store.
    pub(crate) fn adopt(&self, task: Option<JoinHandle<()>>) {
        if let Ok(mut tasks) = self.tasks.lock() {
            tasks.extend(task);
        }
    }

    pub(crate) fn stop(&self) {
        if let Ok(tasks) = self.tasks.lock() {
            tasks.iter().for_each(JoinHandle::abort);
        }
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn watch_marks(
    reader: DatabaseConnection,
    marks: watch::Sender<Mark>,
    wake: std::sync::Arc<Notify>,
) {
    loop {
        if marks.receiver_count() > 0 {
            match read_mark(&reader).await {
                Ok(mark) => {
                    marks.send_if_modified(|old| std::mem::replace(old, mark) != mark);
                }
                Err(error) => tracing::debug!(%error, "looking for changes"),
            }
        }
        // A commit of our own wakes at once; anything else is found by looking.
        let _ = tokio::time::timeout(POLL, wake.notified()).await;
    }
}

async fn read_mark(reader: &DatabaseConnection) -> std::result::Result<Mark, DbErr> {
    let mut select = Query::select();
    select
        .columns(["name", "value"])
        .from("counters")
        .and_where(Expr::col("name").is_in([EVENT_COUNTER, ROUTE_COUNTER]));
    let mut mark = Mark::default();
    for row in reader.query_all(&select).await? {
        let name: String = row.try_get("", "name")?;
        let value: i64 = row.try_get("", "value")?;
        match name.as_str() {
            EVENT_COUNTER => mark.event = value.unsigned_abs(),
            _ => mark.route = value.unsigned_abs(),
        }
    }
    Ok(mark)
}

/// Wakes at notifications; without a connection the looking goes on all the same.
async fn listen(pool: PgPool, wake: std::sync::Arc<Notify>) {
    loop {
        match PgListener::connect_with(&pool).await {
            Ok(mut listener) => {
                if listener.listen(CHANNEL).await.is_ok() {
                    while listener.recv().await.is_ok() {
                        wake.notify_one();
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "listening for changes"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
