//! What fail-over needs: how important a server is, when a replica left, that a node is dead, and
//! what nodes must remove when they come back.

use sea_orm::{ConnectionTrait, DbErr};
use sea_orm_migration::async_trait::async_trait;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::Kind::{Id, Number, Text};
use super::table::record;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "v0002_failover"
    }
}

/// Servers of before run with one slot; nodes that were cordoned stay so.
const COLUMNS: [&str; 9] = [
    "ALTER TABLE servers ADD COLUMN slots BIGINT NOT NULL DEFAULT 1",
    "ALTER TABLE servers ADD COLUMN importance BIGINT NOT NULL DEFAULT 5",
    "ALTER TABLE replicas ADD COLUMN left_epoch BIGINT",
    "ALTER TABLE replicas ADD COLUMN left_at BIGINT",
    "ALTER TABLE nodes ADD COLUMN cordoned BOOLEAN NOT NULL DEFAULT FALSE",
    "ALTER TABLE nodes ADD COLUMN fenced_at BIGINT",
    "UPDATE nodes SET cordoned = TRUE WHERE state = 'cordoned'",
    "CREATE INDEX ix__operations__kind__state ON operations (kind, state)",
    "CREATE INDEX ix__servers__state ON servers (state)",
];

#[async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        for sql in COLUMNS {
            connection.execute_unprepared(sql).await?;
        }
        let json = match connection.get_database_backend() {
            sea_orm::DbBackend::Postgres => "JSONB",
            _ => "jsonb_text",
        };
        connection
            .execute_unprepared(&format!("ALTER TABLE nodes ADD COLUMN bmc {json}"))
            .await?;
        record("removals")
            .must(Id, &["server", "node"])
            .must(Number, &["epoch"])
            .must(Text, &["reason"])
            .unique(&["server", "node"])
            .part_of("node", "nodes")
            .make(manager)
            .await
    }
}
