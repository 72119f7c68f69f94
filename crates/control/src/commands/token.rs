//! `token`: makes a join token, straight in the store, so that it works before anything runs.

use undine_model::Slug;
use undine_store::{Db, Joiner};

use super::open;
use crate::app::cluster::{fresh_join_token, join_token_text};
use crate::control::{CLUSTER_CA, load_authority};
use crate::state_dir::StateDir;

/// Makes a join token; answers what to paste.
pub async fn token(
    state: &StateDir,
    kind: Joiner,
    name: Option<Slug>,
    ttl_s: Option<u32>,
) -> anyhow::Result<String> {
    let (_, store) = open(state).await?;
    store.check_schema().await?;
    let authority = load_authority(&store, &state.secrets()?, CLUSTER_CA).await?;
    let (token, secret) = fresh_join_token(&store, kind, name, ttl_s)?;
    store.join_tokens().insert(&token).await?;
    let text = join_token_text(&store, authority.certificate_pem(), secret).await?;
    store.close().await;
    Ok(text)
}
