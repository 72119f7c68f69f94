//! The only SQL of Undine: SQLite and PostgreSQL behind one interface.
//!
//! [`Store::connect`], [`Store::migrate`], then `store.nodes()`, `store.servers()`, … (the trait
//! [`Db`], which a [`Store`] and a transaction [`Tx`] share). The store never reads the clock:
//! every `now` is passed in, in milliseconds since 1970. The README lists all of it.

mod cell;
mod changes;
mod connect;
mod counters;
mod db;
mod error;
mod idempotency;
mod joining;
mod life;
mod logs;
mod mail;
mod manifests;
mod metrics;
mod migrate;
mod names;
mod operations;
mod people;
mod record;
mod records;
mod replicas;
mod reports;
mod resellers;
mod routes;
mod settings;
mod sites;
mod store;
mod table;

pub mod backup;

pub use changes::{Changes, Mark};
pub use counters::Counters;
pub use db::Db;
pub use error::{Cause, Result, StoreError, TokenRefusal};
pub use idempotency::{Begun, Idempotency, SavedResponse};
pub use life::{Life, Lives};
pub use logs::{Event, Events, NewEvent};
pub use manifests::{ManifestChange, ManifestChanges, ManifestSubject, Manifests};
pub use metrics::{Kept, MetricSubject, Metrics, Point, Resolution, Sample, Series};
pub use migrate::Migrated;
pub use record::{NEW, Page, PageRequest};
pub use records::cluster::*;
pub use records::mail::*;
pub use records::operation::*;
pub use records::people::*;
pub use records::server::*;
pub use records::site::*;
pub use records::tenancy::*;
pub use reports::{Lease, Leases};
pub use routes::{RouteChanges, Routes};
pub use settings::{Setting, Settings};
pub use store::{Session, Store, Tx};
pub use table::Table;
