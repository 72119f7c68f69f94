//! The first schema.

use sea_orm::DbErr;
use sea_orm_migration::async_trait::async_trait;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::Kind::{Bytes, Id, Json, Number, Text, Truth};
use super::table::{New, bare, record};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "v0001_first"
    }
}

#[async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = [cluster(), tenancy(), servers(), sites(), work(), logs()];
        for table in tables.into_iter().flatten() {
            table.make(manager).await?;
        }
        Ok(())
    }
}

fn cluster() -> Vec<New> {
    vec![
        bare("settings")
            .must(Text, &["key"])
            .must(Json, &["value"])
            .must(Number, &["version", "updated_at"])
            .key(&["key"]),
        bare("counters")
            .must(Text, &["name"])
            .must(Number, &["value"])
            .key(&["name"]),
        record("instances")
            .must(Text, &["name", "internal_url", "api_url", "program"])
            .must(Number, &["heartbeat_at", "started_at"])
            .unique(&["name"]),
        record("nodes")
            .must(Text, &["name", "state", "address", "accelerator"])
            .must(Number, &["port"])
            .may(Text, &["storage_address", "rack", "certificate_serial"])
            .may(Number, &["certificate_expires_at", "last_report_at"])
            .must(Json, &["inventory", "capacity", "versions"])
            .unique(&["name"]),
        bare("node_leases")
            .must(Id, &["node"])
            .must(Number, &["number", "renewed_at"])
            .key(&["node"])
            .part_of("node", "nodes"),
        record("edges")
            .must(Text, &["name", "program"])
            .must(Json, &["addresses"])
            .may(Text, &["certificate_serial"])
            .may(Number, &["certificate_expires_at", "last_report_at"])
            .must(Number, &["table_version"])
            .unique(&["name"]),
        record("join_tokens")
            .must(Text, &["secret_sha256", "kind"])
            .may(Text, &["name", "used_by"])
            .must(Number, &["expires_at"])
            .may(Number, &["used_at"])
            .unique(&["secret_sha256"]),
    ]
}

fn tenancy() -> Vec<New> {
    vec![
        record("plans")
            .must(Text, &["name"])
            .must(Json, &["limits"])
            .unique(&["name"]),
        record("accounts")
            .must(Text, &["name", "state"])
            .must(Id, &["plan"])
            .unique(&["name"])
            .refers("plan", "plans"),
        record("tokens")
            .must(Text, &["secret_sha256", "name", "role"])
            .may(Id, &["account"])
            .must(Json, &["scopes"])
            .may(Number, &["expires_at", "last_used_at", "revoked_at"])
            .unique(&["secret_sha256"])
            .index(&["account"])
            .part_of("account", "accounts"),
        record("audit")
            .must(Text, &["actor", "action", "subject", "outcome"])
            .may(Id, &["account", "request_id"])
            .may(Text, &["ip"])
            .must(Json, &["data"])
            .index(&["account", "id"])
            .index(&["subject", "id"]),
    ]
}

fn servers() -> Vec<New> {
    vec![
        record("profiles")
            .must(Text, &["name", "hash"])
            .must(Json, &["definition"])
            .unique(&["name"]),
        record("images")
            .must(Text, &["hash", "name", "source"])
            .must(Json, &["manifest"])
            .unique(&["hash"]),
        record("servers")
            .must(
                Text,
                &["name", "profile", "state", "wanted", "mac", "ipv4", "ipv6"],
            )
            .must(Text, &["machine_id", "reason"])
            .may(Text, &["image_hash", "machine", "cpu_model", "error"])
            .may(Id, &["node", "operation"])
            .must(
                Number,
                &["epoch", "memory", "vcpus", "cpu", "disk", "replica_count"],
            )
            .must(Truth, &["blank", "template", "smtp"])
            .must(Number, &["manifest_version", "manifest_applied"])
            .hidden_number("manifest_floor")
            .unique(&["name"])
            .unique(&["mac"])
            .unique(&["ipv4"])
            .unique(&["ipv6"])
            .index(&["node"])
            .refers("node", "nodes"),
        record("replicas")
            .must(Id, &["server", "node"])
            .must(Text, &["state"])
            .must(Number, &["epoch", "bytes"])
            .may(Text, &["error"])
            .unique(&["server", "node"])
            .index(&["node"])
            .part_of("server", "servers")
            .refers("node", "nodes"),
        bare("manifest_changes")
            .must(Id, &["server", "subject"])
            .must(Number, &["version"])
            .must(Text, &["kind"])
            .key(&["server", "version", "subject"])
            .part_of("server", "servers"),
    ]
}

fn sites() -> Vec<New> {
    vec![
        record("sites")
            .must(Text, &["domain", "runtime", "state"])
            .must(Id, &["account", "server"])
            .must(Number, &["uid", "applied_version"])
            .must(Json, &["settings"])
            .may(Id, &["current_release"])
            .may(Text, &["error"])
            .unique(&["uid"])
            .index(&["account", "id"])
            .index(&["server", "id"])
            .index(&["domain"])
            .refers("account", "accounts")
            .refers("server", "servers"),
        bare("site_names")
            .must(Text, &["name"])
            .must(Id, &["site"])
            .key(&["name"])
            .index(&["site"])
            .part_of("site", "sites"),
        record("databases")
            .must(Id, &["server", "account", "site"])
            .must(Text, &["name", "username", "encrypted_password"])
            .unique(&["server", "name"])
            .unique(&["server", "username"])
            .index(&["site"])
            .index(&["account", "id"])
            .refers("server", "servers")
            .refers("account", "accounts")
            .refers("site", "sites"),
        record("releases")
            .must(Id, &["site"])
            .must(Text, &["sha256", "state"])
            .must(Number, &["size"])
            .may(Id, &["previous"])
            .may(Text, &["error"])
            .index(&["site", "id"])
            .part_of("site", "sites"),
        record("site_certificates")
            .must(Text, &["host", "chain_pem", "encrypted_key"])
            .must(Number, &["expires_at"])
            .unique(&["host"]),
    ]
}

fn work() -> Vec<New> {
    vec![
        record("operations")
            .must(Text, &["kind", "state", "reason"])
            .must(Json, &["subjects", "params", "results"])
            .may(Id, &["account", "owner"])
            .must(Number, &["step", "retries", "not_before", "lease_until"])
            .may(Text, &["error"])
            .index(&["state", "not_before"])
            .index(&["account", "id"]),
        bare("operation_subjects")
            .must(Id, &["subject", "operation"])
            .key(&["subject", "operation"])
            .index(&["operation"])
            .part_of("operation", "operations"),
        bare("operation_steps")
            .must(Id, &["operation"])
            .must(Number, &["position"])
            .must(Text, &["name", "state"])
            .may(Number, &["started_at", "ended_at"])
            .must(Json, &["detail"])
            .may(Text, &["error"])
            .key(&["operation", "position"])
            .part_of("operation", "operations"),
        bare("idempotency")
            .must(Id, &["token"])
            .must(Text, &["key", "request_hash"])
            .may(Number, &["status"])
            .may(Text, &["body"])
            .must(Number, &["expires_at"])
            .key(&["token", "key"])
            .index(&["expires_at"]),
    ]
}

fn logs() -> Vec<New> {
    vec![
        bare("events")
            .must(Number, &["seq", "at"])
            .must(Text, &["kind", "subject_kind"])
            .must(Id, &["subject"])
            .may(Id, &["account"])
            .must(Json, &["data"])
            .key(&["seq"])
            .index(&["account", "seq"])
            .index(&["at"]),
        bare("route_changes")
            .must(Number, &["version"])
            .must(Text, &["host"])
            .key(&["version", "host"]),
        bare("metric_series")
            .must(Number, &["id"])
            .must(Text, &["kind", "name"])
            .must(Id, &["subject"])
            .key(&["id"])
            .unique(&["subject", "kind", "name"]),
        bare("metric_blocks")
            .must(Number, &["series", "resolution", "start"])
            .must(Bytes, &["steps"])
            .key(&["series", "resolution", "start"])
            .index(&["resolution", "start"])
            .part_of("series", "metric_series"),
    ]
}
