//! `backup` and `restore` of control's store. The key of the secrets is no part of it: keep the
//! state directory's `secrets.key` elsewhere.

use std::path::Path;

use anyhow::{Context, ensure};
use undine_store::{Store, backup};

use super::open;
use crate::state_dir::StateDir;

/// Writes a backup; SQLite while everything runs, PostgreSQL by `pg_dump`.
pub async fn backup(state: &StateDir, to: &Path) -> anyhow::Result<()> {
    ensure!(
        !to.exists(),
        "{} exists already; nothing was written",
        to.display()
    );
    let (instance, store) = open(state).await?;
    match store.kind() {
        "sqlite" => store.backup(to).await?,
        _ => backup::dump_postgres(&instance.store_url, to).await?,
    }
    store.close().await;
    Ok(())
}

/// Puts a backup in the store's place, while no instance runs.
pub async fn restore(state: &StateDir, from: &Path) -> anyhow::Result<()> {
    let url = state.instance()?.store_url;
    if url.starts_with("sqlite:") {
        backup::restore(from, &url).await?;
    } else {
        backup::restore_postgres(from, &url).await?;
    }
    let store = Store::connect(&url)
        .await
        .context("the restored store cannot be opened")?;
    store.migrate().await?;
    store.close().await;
    Ok(())
}
