//! Copies of a PostgreSQL database, by PostgreSQL's own tools.
//!
//! A dump is one consistent snapshot, taken while everything runs. It is restored into an empty
//! database that no instance of control uses yet; the instances are then started with its URL.

use std::path::Path;
use std::process::Stdio;

use sqlx::postgres::PgConnectOptions;
use tokio::process::Command;

use crate::connect::Target;
use crate::db::Db;
use crate::error::{Result, StoreError};
use crate::settings::Settings;
use crate::store::Store;

/// Writes a dump (`pg_dump --format=custom`) of the database that the URL names to a new file.
pub async fn dump_postgres(url: &str, to: &Path) -> Result<()> {
    if to.exists() {
        return Err(StoreError::Refused(format!(
            "{} exists already; a backup never overwrites",
            to.display()
        )));
    }
    let mut dump = command("pg_dump", url)?;
    dump.args(["--format=custom", "--no-owner", "--no-privileges", "--file"])
        .arg(to);
    run(dump).await
}

/// Puts a dump into the database that the URL names, which must be empty.
pub async fn restore_postgres(dump: &Path, url: &str) -> Result<()> {
    let store = Store::connect(url).await?;
    let empty = matches!(store.check_schema().await, Err(StoreError::NotMigrated));
    if !empty || store.has_tables().await? {
        store.close().await;
        return Err(StoreError::Refused(
            "the database is not empty; restore into a new one".to_owned(),
        ));
    }
    let mut restore = command("pg_restore", url)?;
    restore
        .args([
            "--no-owner",
            "--no-privileges",
            "--single-transaction",
            "--exit-on-error",
        ])
        .arg(dump);
    let outcome = match run(restore).await {
        // Tells a dump of a newer program; an older one is migrated forward by control.
        Ok(()) => match store.check_schema().await {
            Ok(()) | Err(StoreError::NotMigrated) => {
                store.settings().put(Settings::RESTORED, &true, 0).await
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    store.close().await;
    outcome
}

/// One of PostgreSQL's tools, for this database; the password goes by the environment.
fn command(tool: &str, url: &str) -> Result<Command> {
    let Target::Postgres(hosts) = Target::parse(url)? else {
        return Err(StoreError::Refused(
            "an SQLite database is copied with `backup`".to_owned(),
        ));
    };
    let Some(first) = hosts.first() else {
        return Err(StoreError::Refused("the URL names no host".to_owned()));
    };
    let list = |one: &dyn Fn(&PgConnectOptions) -> String| {
        hosts.iter().map(one).collect::<Vec<_>>().join(",")
    };
    let host = |host: &PgConnectOptions| match host.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => host.get_host().to_owned(),
    };
    let mut command = Command::new(tool);
    command
        .env("PGHOST", list(&host))
        .env("PGPORT", list(&|host| host.get_port().to_string()))
        .env("PGUSER", first.get_username())
        .env("PGTARGETSESSIONATTRS", "read-write")
        .args([
            "--dbname",
            first.get_database().unwrap_or(first.get_username()),
        ])
        .stdin(Stdio::null());
    if let Some(password) = password(url) {
        command.env("PGPASSWORD", password);
    }
    Ok(command)
}

/// The password of a URL, which the driver does not give back.
fn password(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (user, _) = rest[..end].rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    Some(percent_decoded(password))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let coded = match (first, tail) {
            (b'%', [a, b, ..]) => std::str::from_utf8(&[*a, *b])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        bytes.push(coded.unwrap_or(*first));
        rest = if coded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn run(mut command: Command) -> Result<()> {
    let tool = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let output = command.output().await.map_err(|source| StoreError::File {
        what: format!("{tool} cannot be run; install the package postgresql-client"),
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(StoreError::Refused(format!(
        "{tool} failed: {}",
        said.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_taken_out_of_the_url() {
        assert_eq!(
            password("postgres://u:p%40ss@h1,h2/db").as_deref(),
            Some("p@ss")
        );
        assert_eq!(password("postgres://u@h/db"), None);
        assert_eq!(password("postgres:///db?host=/run"), None);
    }
}
