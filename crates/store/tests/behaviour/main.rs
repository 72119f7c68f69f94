//! One suite of behaviours, run on SQLite and on PostgreSQL: what one promises, both keep.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod databases;
mod fixtures;

mod life;
mod mails;
mod migration;
mod numbers;
mod operations;
mod records;
mod series;
mod sites;

/// Makes a test of each function for each database.
#[macro_export]
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let database = $crate::databases::Sqlite::new().await;
                super::$name(database.store()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let database = $crate::databases::Postgres::new().await;
                super::$name(database.store()).await;
            })*
        }
    };
}
