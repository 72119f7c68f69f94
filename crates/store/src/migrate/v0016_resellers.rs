//! Resellers with plans and customers of their own, roles for single sites, passkeys.

use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use sea_orm_migration::async_trait::async_trait;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::Kind::{Json, Text};
use super::table::record;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "v0016_resellers"
    }
}

/// What may belong to a reseller. Plans, accounts and people keep it from going; tokens and links
/// go with it.
const BELONGS: [(&str, &str); 5] = [
    ("plans", ""),
    ("accounts", ""),
    ("people", ""),
    ("tokens", " ON DELETE CASCADE"),
    ("links", " ON DELETE CASCADE"),
];
/// Where a list of sites narrows what is reached, and where passkeys are.
const LISTS: [(&str, &str); 3] = [
    ("memberships", "sites"),
    ("links", "sites"),
    ("people", "passkeys"),
];

#[async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        record("resellers")
            .must(Text, &["name"])
            .must(Json, &["limits"])
            .may(Json, &["brand"])
            .unique(&["name"])
            .make(manager)
            .await?;
        let connection = manager.get_connection();
        let (id, json) = match connection.get_database_backend() {
            DbBackend::Postgres => ("UUID", "JSONB"),
            _ => ("uuid_text", "jsonb_text"),
        };
        for (table, gone) in BELONGS {
            let add = format!(
                "ALTER TABLE {table} ADD COLUMN reseller {id} REFERENCES resellers (id){gone}"
            );
            connection.execute_unprepared(&add).await?;
            let index = format!("CREATE INDEX ix__{table}__reseller ON {table} (reseller)");
            connection.execute_unprepared(&index).await?;
        }
        for (table, column) in LISTS {
            let add = format!("ALTER TABLE {table} ADD COLUMN {column} {json}");
            connection.execute_unprepared(&add).await?;
        }
        Ok(())
    }
}
