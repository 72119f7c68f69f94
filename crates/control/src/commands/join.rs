//! `join`: a further instance of a cluster on PostgreSQL.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use undine_api::internal::{JoinRequest, Role};
use undine_link::{Credentials, JoinToken};
use undine_model::Slug;

use crate::secrets::Secrets;
use crate::state_dir::{InstanceFile, StateDir};

/// Who joins.
#[derive(Debug, Clone)]
pub struct Join {
    /// The one-time token.
    pub token: JoinToken,
    /// Where the instance keeps its state.
    pub state_dir: PathBuf,
    /// Its name.
    pub name: Slug,
    /// Where nodes, edges and other instances reach it.
    pub internal_address: SocketAddr,
}

/// Joins and writes the state directory.
pub async fn join(wish: &Join) -> anyhow::Result<()> {
    let state = StateDir::new(&wish.state_dir);
    if state.is_taken() {
        bail!(
            "{} already holds an instance of control; nothing was changed",
            wish.state_dir.display()
        );
    }
    state.create()?;
    let (key, csr) = undine_link::csr()?;
    let request = JoinRequest {
        secret: wish.token.secret.clone(),
        role: Role::Control,
        name: wish.name.clone(),
        csr,
        guard_csr: None,
        address: wish.internal_address,
        inventory: None,
    };
    let answer = undine_link::join(&wish.token, &request)
        .await
        .context("joining failed")?;
    let secrets = answer
        .control
        .context("control gave no store; it is of another version")?;
    state.write_secrets(&Secrets::from_base64(&secrets.secrets_key)?)?;
    Credentials {
        key,
        certificate: answer.certificate,
        ca: answer.ca,
    }
    .save(state.path())?;
    state.write_instance(&InstanceFile {
        instance: answer.id.parse()?,
        name: wish.name.clone(),
        internal_address: wish.internal_address,
        store_url: secrets.store_url,
    })
}
