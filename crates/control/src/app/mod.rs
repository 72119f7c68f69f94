//! The use cases: what REST, the internal API and the command line ask for. Each checks, then
//! changes the records, the audit and the operation in one transaction.

pub mod accounts;
pub mod apps;
pub mod caller;
pub mod capacity;
pub mod catalogue;
pub mod cluster;
pub mod databases;
pub mod dns;
pub mod joining;
pub mod mail;
pub mod nodes;
pub mod observe;
pub mod operations;
pub mod paging;
pub mod passwords;
pub mod people;
pub mod plans;
pub mod releases;
pub mod reports;
pub mod reset;
pub mod second;
pub mod server_create;
pub mod server_loss;
pub mod server_scrub;
pub mod servers;
pub mod sessions;
pub mod settings;
pub mod site_change;
pub mod site_create;
pub mod site_delete;
pub mod sites;
pub mod support;
pub mod tokens;
pub mod what_if;
