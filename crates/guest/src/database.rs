//! Databases and their users, made through the database server's own socket as root.

use undine_manifest::{DatabaseSpec, sql, validate};
use undine_model::SiteId;

use crate::command;
use crate::fail::{Doing, Outcome, failure};
use undine_api::guest::FailureKind;

/// Makes and removes databases; returns the sites of those that failed.
pub fn apply(wanted: &[&DatabaseSpec], removed: &[&DatabaseSpec]) -> Vec<(SiteId, String)> {
    let gone: String = removed
        .iter()
        .map(|database| sql::remove(database))
        .collect();
    if !gone.is_empty()
        && let Err(error) = run(&gone)
    {
        let failed = |database: &&DatabaseSpec| (database.site, error.message.clone());
        return removed.iter().map(failed).collect();
    }
    let mut failed = Vec::new();
    for database in wanted {
        if let Err(error) = create(database) {
            failed.push((database.site, error.message));
        }
    }
    failed
}

fn create(database: &DatabaseSpec) -> Outcome<()> {
    let broken = validate::database(database);
    if let Some(first) = broken.first() {
        return Err(failure(FailureKind::Invalid, first.to_string()));
    }
    run(&sql::create(database).doing("write the database's SQL")?)
}

/// The statements travel on standard input: a password in an argument would be seen by all.
fn run(statements: &str) -> Outcome<()> {
    let args = ["--batch", "--protocol=socket", "--user=root"];
    command::run_with("/usr/bin/mariadb", &args, Some(statements)).map(drop)
}
