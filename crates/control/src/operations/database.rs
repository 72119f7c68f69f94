//! `database.create` and `database.delete`. Records were made or marked along with the operation.
//!
//! | step | does | undo |
//! |---|---|---|
//! | apply | the server has, or has no more, the database and its user | create: the record goes and the server is told; delete: none, what is deleted is gone |
//! | forget | the record leaves the store (delete only) | none: the last step, one transaction |

use futures_util::future::BoxFuture;
use serde_json::json;
use undine_model::{DatabaseId, ServerId};
use undine_store::{Db, ManifestChange};

use super::new::event_of;
use super::site_create::apply_version;
use super::trouble::Outcome;
use super::work::Work;
use super::{Kind, step};

/// A new database can be used.
pub const CREATE: Kind = Kind {
    name: "database.create",
    steps: &[step!("apply", apply_new, undo withdraw)],
    failed,
    patience_ms: super::PATIENCE_MS,
};

/// A database goes, with its content.
pub const DELETE: Kind = Kind {
    name: "database.delete",
    steps: &[
        step!("apply", apply_gone, keep "what is deleted is gone"),
        step!("forget", forget, keep "the last step, one transaction"),
    ],
    failed,
    patience_ms: super::PATIENCE_MS,
};

async fn apply_new(work: &mut Work) -> Outcome<()> {
    let server = work.param("server")?;
    let version = work.param("manifest_version")?;
    apply_version(work, server, version, true).await?;
    let id: DatabaseId = work.param("database")?;
    if let Some(database) = work.control.store.databases().find(id).await? {
        let event = event_of(
            "database.ready",
            id.uuid(),
            Some(database.account),
            json!({"name": database.name}),
        );
        work.control.store.events().announce(vec![event]).await?;
    }
    Ok(())
}

async fn withdraw(work: &mut Work) -> Outcome<()> {
    let id: DatabaseId = work.param("database")?;
    let server: ServerId = work.param("server")?;
    let tx = work.control.store.begin().await?;
    let Some(database) = tx.databases().find(id).await? else {
        return Ok(());
    };
    tx.databases().delete(id, Some(database.version)).await?;
    tx.manifests()
        .changed(server, &[ManifestChange::Database(id)])
        .await?;
    tx.commit().await?;
    Ok(())
}

async fn apply_gone(work: &mut Work) -> Outcome<()> {
    let server = work.param("server")?;
    let version = work.param("manifest_version")?;
    apply_version(work, server, version, false).await
}

async fn forget(work: &mut Work) -> Outcome<()> {
    let id: DatabaseId = work.param("database")?;
    let tx = work.control.store.begin().await?;
    let Some(database) = tx.databases().find(id).await? else {
        return Ok(());
    };
    tx.databases().delete(id, None).await?;
    let data = json!({"name": database.name});
    let event = event_of("database.deleted", id.uuid(), Some(database.account), data);
    tx.events().announce(vec![event]).await?;
    tx.commit().await?;
    Ok(())
}

/// Create: the record is gone by its undo. Delete: it stays marked; deleting again goes on.
fn failed(_: &mut Work, _: String) -> BoxFuture<'_, Outcome<()>> {
    Box::pin(async { Ok(()) })
}
