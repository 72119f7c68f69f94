//! `owner-link`: one more link by which an owner comes in, for who has this machine.

use undine_store::Db;

use crate::app::{people, welcome};
use crate::control::Cluster;
use crate::state_dir::StateDir;

/// Makes the link; answers its URL.
pub async fn owner_link(state: &StateDir) -> anyhow::Result<String> {
    let (_, store) = super::open(state).await?;
    let cluster: Cluster = store.settings().get(Cluster::KEY).await?.ok_or_else(|| {
        anyhow::anyhow!("this store holds no cluster; `undine-control init` makes one")
    })?;
    let url = made(&store, &cluster.domain).await?;
    store.close().await;
    Ok(url)
}

/// The link's URL, once the store holds the cluster.
pub async fn made(store: &undine_store::Store, domain: &str) -> anyhow::Result<String> {
    let failed = |refusal: crate::Refusal| anyhow::anyhow!("{}", refusal.0.detail);
    let path = welcome::owner_link(store).await.map_err(failed)?;
    people::url_at(store, domain, &path).await.map_err(failed)
}
