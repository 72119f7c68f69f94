//! A panel's host name is one reseller's, tokens may be for single sites, resellers have audits.

use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use sea_orm_migration::async_trait::async_trait;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "v0017_narrower"
    }
}

/// Host names leave the brands for a column of their own. Of several resellers that got the same
/// one before there was a guard, the oldest keeps it.
const HOSTS: [&str; 4] = [
    "ALTER TABLE resellers ADD COLUMN host TEXT",
    "UPDATE resellers SET host = brand ->> 'host' WHERE brand ->> 'host' IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM resellers AS older \
     WHERE older.brand ->> 'host' = resellers.brand ->> 'host' AND older.id < resellers.id)",
    "CREATE UNIQUE INDEX uq__resellers__host ON resellers (host)",
    "CREATE INDEX ix__audit__reseller ON audit (reseller, id)",
];

#[async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let (id, json) = match connection.get_database_backend() {
            DbBackend::Postgres => ("UUID", "JSONB"),
            _ => ("uuid_text", "jsonb_text"),
        };
        let sites = format!("ALTER TABLE tokens ADD COLUMN sites {json}");
        connection.execute_unprepared(&sites).await?;
        // A row of the audit stays when the reseller goes, so this refers to nothing.
        let reseller = format!("ALTER TABLE audit ADD COLUMN reseller {id}");
        connection.execute_unprepared(&reseller).await?;
        for statement in HOSTS {
            connection.execute_unprepared(statement).await?;
        }
        // What was done for customers until now is shown to whoever sells to them now.
        let before = "UPDATE audit SET reseller = \
            (SELECT accounts.reseller FROM accounts WHERE accounts.id = audit.account) \
            WHERE account IS NOT NULL";
        connection.execute_unprepared(before).await?;
        Ok(())
    }
}
