//! Backup and restore of control's database.
//!
//! SQLite: [`backup`](Store::backup) writes a consistent copy while everything runs;
//! [`restore`] puts one back while nothing runs. PostgreSQL: `pg_dump` and `pg_restore`, by
//! [`dump_postgres`] and [`restore_postgres`]. A restored database carries the setting
//! [`Settings::RESTORED`](crate::Settings::RESTORED): control begins a new life
//! of the store with it, in which every replica holder is asked before anything may fail over.

mod postgres;
mod sqlite;

pub use postgres::{dump_postgres, restore_postgres};
pub use sqlite::restore;
