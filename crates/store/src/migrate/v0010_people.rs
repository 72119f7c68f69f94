//! People, their sessions, and the links that let them in.

use sea_orm::DbErr;
use sea_orm_migration::async_trait::async_trait;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::Kind::{Id, Number, Text};
use super::table::{New, record};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "v0010_people"
    }
}

#[async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            table.make(manager).await?;
        }
        Ok(())
    }
}

fn tables() -> Vec<New> {
    vec![
        record("people")
            .must(Text, &["email", "name", "staff", "password_hash"])
            .unique(&["email"])
            .index(&["staff"]),
        record("memberships")
            .must(Id, &["person", "account"])
            .must(Text, &["role"])
            .unique(&["person", "account"])
            .index(&["account"])
            .part_of("person", "people")
            .part_of("account", "accounts"),
        record("sessions")
            .must(Text, &["secret_sha256", "agent", "ip"])
            .must(Id, &["person"])
            .may(Id, &["account"])
            .must(Number, &["last_used_at", "expires_at"])
            .unique(&["secret_sha256"])
            .index(&["person"])
            .index(&["expires_at"])
            .part_of("person", "people")
            .part_of("account", "accounts"),
        record("links")
            .must(Text, &["secret_sha256", "staff", "role"])
            .may(Id, &["person", "account"])
            .must(Number, &["expires_at"])
            .unique(&["secret_sha256"])
            .part_of("person", "people")
            .part_of("account", "accounts"),
        record("login_failures")
            .must(Text, &["what"])
            .must(Number, &["failed", "closed_until"])
            .unique(&["what"]),
    ]
}
