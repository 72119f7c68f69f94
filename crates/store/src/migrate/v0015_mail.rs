//! Mail that waits to be sent; deleted sites that wait for a day before they are gone.

use sea_orm::{ConnectionTrait, DbErr};
use sea_orm_migration::async_trait::async_trait;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::Kind::{Number, Text};
use super::table::record;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "v0015_mail"
    }
}

#[async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        record("mails")
            .must(Text, &["address", "about"])
            .must(Number, &["tries", "not_before"])
            .may(Text, &["error"])
            .unique(&["about", "address"])
            .index(&["not_before"])
            .make(manager)
            .await?;
        let connection = manager.get_connection();
        for sql in [
            "ALTER TABLE sites ADD COLUMN gone_at BIGINT",
            "ALTER TABLE sites ADD COLUMN state_before TEXT",
        ] {
            connection.execute_unprepared(sql).await?;
        }
        Ok(())
    }
}
