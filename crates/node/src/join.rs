//! Joining: the node shows its token, gets its certificates and keeps what it was told.

use std::net::SocketAddr;
use std::path::PathBuf;

use undine_api::internal::{JoinRequest, Role};
use undine_link::{CallError, Credentials, CredentialsError, JoinToken};
use undine_model::{InvalidName, Slug};

use crate::files::FileError;
use crate::inventory::{self, Fixed};
use crate::settings::{Declared, Settings, guard_folder, identity_folder};

/// What the operator says when a node joins.
#[derive(Debug)]
pub struct Wish {
    /// The one-time token.
    pub token: JoinToken,
    /// The node's name.
    pub name: Slug,
    /// Where it will listen.
    pub address: SocketAddr,
    /// Where it keeps everything.
    pub state_dir: PathBuf,
    /// What its servers may use.
    pub declared: Declared,
    /// The interface to the other nodes and the edges.
    pub server_uplink: Option<String>,
    /// The interface to the world.
    pub egress_interface: Option<String>,
}

/// Joining failed; nothing was kept.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has joined before.
    #[error("{} has joined a cluster already; use another --state-dir, or remove this one to join anew", .0.display())]
    AlreadyJoined(PathBuf),
    /// An interface is not there.
    #[error("there is no interface {0} on this machine")]
    NoInterface(String),
    /// The guard listens one port above the agent.
    #[error(
        "--address: port {0} leaves none for the guard above it; take a lower one, such as 7300"
    )]
    NoGuardPort(u16),
    /// Control said no, or nothing.
    #[error("the cluster did not let this node in")]
    Refused(#[from] CallError),
    /// Keys or certificates.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The state folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// Control answered something odd.
    #[error("control answered without {0}")]
    Incomplete(&'static str),
    /// Control answered an odd id.
    #[error(transparent)]
    Id(#[from] undine_model::id::InvalidId),
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// Joins.
///
/// # Errors
/// See [`JoinError`].
pub async fn join(wish: Wish, fixed: &Fixed) -> Result<Settings, JoinError> {
    if Settings::load(&wish.state_dir)?.is_some() {
        return Err(JoinError::AlreadyJoined(wish.state_dir));
    }
    if undine_api::guard::listens_at(wish.address).is_none() {
        return Err(JoinError::NoGuardPort(wish.address.port()));
    }
    for interface in [&wish.server_uplink, &wish.egress_interface]
        .into_iter()
        .flatten()
    {
        if !crate::usage::has_interface(interface) {
            return Err(JoinError::NoInterface(interface.clone()));
        }
    }
    crate::files::make_folder(&wish.state_dir)?;
    let (key, csr) = undine_link::csr()?;
    let (guard_key, guard_csr) = undine_link::csr()?;
    let request = JoinRequest {
        secret: wish.token.secret.clone(),
        role: Role::Node,
        name: wish.name.clone(),
        csr,
        guard_csr: Some(guard_csr),
        address: wish.address,
        inventory: Some(inventory::read(&wish.declared, &wish.state_dir, fixed)),
    };
    let answer = undine_link::join(&wish.token, &request).await?;
    let guard = answer
        .guard_certificate
        .ok_or(JoinError::Incomplete("the guard's certificate"))?;
    let own = Credentials {
        key,
        certificate: answer.certificate,
        ca: answer.ca.clone(),
    };
    own.save(&identity_folder(&wish.state_dir))?;
    let guard = Credentials {
        key: guard_key,
        certificate: guard,
        ca: answer.ca,
    };
    guard.save(&guard_folder(&wish.state_dir))?;
    let settings = Settings {
        node: answer.id.parse()?,
        name: wish.name,
        address: wish.address,
        control: answer.instances.addresses,
        network: answer.network,
        declared: wish.declared,
        server_uplink: wish.server_uplink,
        egress_interface: wish.egress_interface,
    };
    // Last: its presence means that the node has joined.
    settings.save(&wish.state_dir)?;
    Ok(settings)
}
