//! People may have a second step in their log-in.

use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use sea_orm_migration::async_trait::async_trait;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "v0011_second_step"
    }
}

#[async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let json = match connection.get_database_backend() {
            DbBackend::Postgres => "JSONB",
            _ => "jsonb_text",
        };
        let sql = format!("ALTER TABLE people ADD COLUMN second {json}");
        connection.execute_unprepared(&sql).await.map(drop)
    }
}
