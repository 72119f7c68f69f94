//! What the store knows of its own life, and the servers that it may have forgotten something of.

use sea_orm::{ConnectionTrait, DbErr};
use sea_orm_migration::async_trait::async_trait;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::Kind::{Number, Text};
use super::table::{bare, record};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "v0013_memory"
    }
}

#[async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        bare("life")
            .must(Number, &["id", "term"])
            .must(Text, &["place"])
            .key(&["id"])
            .make(manager)
            .await?;
        record("doubts")
            .must(Number, &["epoch", "stood"])
            .may(Text, &["blocked"])
            .part_of("id", "servers")
            .make(manager)
            .await?;
        // No place yet: whoever uses the store first begins its first life.
        manager
            .get_connection()
            .execute_unprepared("INSERT INTO life (id, term, place) VALUES (1, 0, '')")
            .await
            .map(drop)
    }
}
