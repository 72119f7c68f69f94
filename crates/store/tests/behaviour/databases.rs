//! A fresh database for each test: migrated, or still empty.

use std::path::Path;

use sqlx::{Connection, Executor, Row};
use undine_store::Store;
use undine_testkit::postgres::{Server, TestDatabase};
use uuid::Uuid;

/// A database without a schema, and a way to write into it that knows no records.
pub trait Empty {
    fn url(&self) -> String;
    /// How this database wants a UUID written.
    fn literal(&self, uuid: Uuid) -> String;

    async fn execute(&self, sql: &str) {
        execute(&self.url(), sql).await;
    }

    /// `uuid:…` as this database wants it.
    fn with_uuids(&self, sql: &str) -> String {
        let mut parts = sql.split("uuid:");
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (uuid, rest) = part.split_at(36);
            whole += &self.literal(uuid.parse().unwrap());
            whole += rest;
        }
        whole
    }
}

pub struct EmptySqlite {
    folder: tempfile::TempDir,
}

impl EmptySqlite {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// What the database is made of, as text.
    pub async fn schema(&self) -> String {
        let mut connection = sqlx::SqliteConnection::connect(&self.url()).await.unwrap();
        let sql = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL \
                   AND tbl_name <> 'seaql_migrations' ORDER BY tbl_name, type DESC, name";
        let rows = connection.fetch_all(sql).await.unwrap();
        rows.iter()
            .map(|row| row.get::<String, _>(0) + ";\n")
            .collect()
    }
}

impl Empty for EmptySqlite {
    fn url(&self) -> String {
        format!(
            "sqlite://{}",
            self.folder.path().join("control.db").display()
        )
    }
    fn literal(&self, uuid: Uuid) -> String {
        format!("x'{}'", uuid.simple())
    }
}

pub struct EmptyPostgres {
    database: TestDatabase,
}

impl EmptyPostgres {
    pub fn new() -> Self {
        Self {
            database: TestDatabase::new(),
        }
    }
}

impl Empty for EmptyPostgres {
    fn url(&self) -> String {
        self.database.url().to_owned()
    }
    fn literal(&self, uuid: Uuid) -> String {
        format!("'{uuid}'")
    }
}

pub async fn execute(url: &str, sql: &str) {
    let sql = sqlx::AssertSqlSafe(sql);
    if url.starts_with("sqlite:") {
        let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
        connection.execute(sql).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        connection.execute(sql).await.unwrap();
    }
}

pub struct Sqlite {
    store: Store,
    empty: EmptySqlite,
}

impl Sqlite {
    pub async fn new() -> Self {
        let empty = EmptySqlite::new();
        Self {
            store: migrated(&empty.url()).await,
            empty,
        }
    }

    pub fn store(&self) -> Store {
        self.store.clone()
    }

    pub fn url(&self) -> String {
        self.empty.url()
    }

    pub fn folder(&self) -> &Path {
        self.empty.folder.path()
    }
}

pub struct Postgres {
    store: Store,
    database: TestDatabase,
}

impl Postgres {
    pub async fn new() -> Self {
        let database = TestDatabase::new();
        Self {
            store: migrated(database.url()).await,
            database,
        }
    }

    pub fn store(&self) -> Store {
        self.store.clone()
    }

    pub fn url(&self) -> String {
        self.database.url().to_owned()
    }

    pub fn server(&self) -> &Server {
        self.database.server()
    }
}

async fn migrated(url: &str) -> Store {
    let store = Store::connect(url).await.unwrap();
    store.migrate().await.unwrap();
    store
}
