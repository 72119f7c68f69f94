//! A reseller can be suspended, alone or with its customers.

use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use sea_orm_migration::async_trait::async_trait;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "v0018_suspended_resellers"
    }
}

#[async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let state = "ALTER TABLE resellers ADD COLUMN state TEXT NOT NULL DEFAULT 'active'";
        connection.execute_unprepared(state).await?;
        let id = match connection.get_database_backend() {
            DbBackend::Postgres => "UUID",
            _ => "uuid_text",
        };
        // The token is the customer's and outlives the reseller, so this refers to nothing.
        let made_by = format!("ALTER TABLE tokens ADD COLUMN made_by {id}");
        connection.execute_unprepared(&made_by).await.map(drop)
    }
}
