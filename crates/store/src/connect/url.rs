//! What a database URL says, several hosts included.

use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use crate::error::StoreError;

/// Where the database is.
pub(crate) enum Target {
    Sqlite(PathBuf),
    /// The same database at each of the hosts, in order.
    Postgres(Vec<PgConnectOptions>),
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, StoreError> {
        let refuse = |reason: &str| StoreError::Url {
            url: without_password(url),
            reason: reason.to_owned(),
        };
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(refuse("it begins with neither sqlite: nor postgres:"));
        };
        match scheme {
            "sqlite" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() || path.contains('?') || path.starts_with(':') {
                    return Err(refuse("write it as sqlite:///folder/file.db"));
                }
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            "postgres" | "postgresql" => each_host(rest)
                .ok_or_else(|| refuse("write it as postgres://user:password@host1,host2/database"))?
                .iter()
                .map(|one| {
                    PgConnectOptions::from_str(one).map_err(|error| refuse(&error.to_string()))
                })
                .collect::<Result<_, _>>()
                .map(Self::Postgres),
            _ => Err(refuse("it begins with neither sqlite: nor postgres:")),
        }
    }
}

/// One URL for each host of `//user:password@h1:1,h2:2/db?query`.
pub(crate) fn each_host(rest: &str) -> Option<Vec<String>> {
    let rest = rest.strip_prefix("//")?;
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    // The hosts are asked whether they take writes in any case.
    let query: Vec<&str> = query
        .split('&')
        .filter(|part| !part.is_empty() && !part.starts_with("target_session_attrs="))
        .collect();
    let query = if query.is_empty() {
        String::new()
    } else {
        format!("?{}", query.join("&"))
    };
    Some(
        hosts
            .split(',')
            .map(|host| format!("postgres://{user}{host}{path}{query}"))
            .collect(),
    )
}

/// The URL as it may be shown.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => {
            let user = rest[..at].split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{}", &rest[at + 1..])
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_several_hosts_gets_its_own_address() {
        assert_eq!(
            each_host("//u:p@a:5432,b/db?target_session_attrs=read-write&sslmode=require"),
            Some(vec![
                "postgres://u:p@a:5432/db?sslmode=require".to_owned(),
                "postgres://u:p@b/db?sslmode=require".to_owned(),
            ])
        );
        assert_eq!(
            each_host("///db?host=/run/pg"),
            Some(vec!["postgres:///db?host=/run/pg".to_owned()])
        );
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        assert_eq!(
            without_password("postgres://u:secret@h/db"),
            "postgres://u@h/db"
        );
        let shown = Target::parse("mysql://u:secret@h/db")
            .err()
            .unwrap()
            .to_string();
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_is_no_database_url_is_refused() {
        for bad in [
            "",
            "file.db",
            "sqlite:",
            "sqlite::memory:",
            "mysql://h/db",
            "postgres:db",
        ] {
            assert!(
                matches!(Target::parse(bad), Err(StoreError::Url { .. })),
                "{bad}"
            );
        }
    }
}
