//! Joining the cluster with a one-time token, and what an edge remembers of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use undine_api::internal::{JoinRequest, Role};
use undine_link::{CallError, Credentials, CredentialsError, JoinToken, csr};
use undine_model::Slug;

const FILE: &str = "edge.json";

/// What an edge remembers of its joining.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Joined {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Slug,
    /// Its management address.
    pub address: SocketAddr,
    /// Where control was.
    pub control: Vec<SocketAddr>,
}

/// Why an edge could not join, or does not know its cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has joined already.
    #[error(
        "this edge has joined a cluster already ({0}); to join another one, remove that directory first"
    )]
    Already(PathBuf),
    /// It has not joined.
    #[error("{0}: this edge has not joined a cluster yet; run `undine-edge join TOKEN` first")]
    NotYet(PathBuf),
    /// Credentials could not be made or kept.
    #[error("the credentials could not be made or kept")]
    Credentials(#[from] CredentialsError),
    /// Control said no, or nothing.
    #[error("control did not let this edge in")]
    Call(#[source] Box<CallError>),
    /// The state directory cannot be written.
    #[error("{path} cannot be written")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What was remembered is damaged.
    #[error("{path} is damaged")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Joined {
    /// What was remembered in this state directory.
    pub fn load(state_dir: &Path) -> Result<Self, JoinError> {
        let path = state_dir.join(FILE);
        let bytes = fs::read(&path).map_err(|_| JoinError::NotYet(path.clone()))?;
        serde_json::from_slice(&bytes).map_err(|source| JoinError::Damaged { path, source })
    }

    fn save(&self, state_dir: &Path) -> Result<(), JoinError> {
        let path = state_dir.join(FILE);
        let partial = path.with_extension("partial");
        let write = || {
            fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
            fs::File::open(&partial)?.sync_all()?;
            fs::rename(&partial, &path)?;
            fs::File::open(state_dir)?.sync_all()
        };
        write().map_err(|source| JoinError::File {
            path: path.clone(),
            source,
        })
    }
}

/// Joins the cluster and keeps what is needed to run.
pub async fn join(
    token: &JoinToken,
    name: Slug,
    address: SocketAddr,
    state_dir: &Path,
) -> Result<Joined, JoinError> {
    if state_dir.join(FILE).exists() {
        return Err(JoinError::Already(state_dir.to_owned()));
    }
    // Found out before the token is spent.
    fs::create_dir_all(state_dir).map_err(|source| JoinError::File {
        path: state_dir.to_owned(),
        source,
    })?;
    let (key, csr) = csr()?;
    let request = JoinRequest {
        secret: token.secret.clone(),
        role: Role::Edge,
        name: name.clone(),
        csr,
        guard_csr: None,
        address,
        inventory: None,
    };
    let answer = undine_link::join(token, &request)
        .await
        .map_err(|error| JoinError::Call(Box::new(error)))?;
    Credentials {
        key,
        certificate: answer.certificate,
        ca: answer.ca,
    }
    .save(state_dir)?;
    let mut control = answer.instances.addresses;
    for address in &token.addresses {
        if !control.contains(address) {
            control.push(*address);
        }
    }
    let joined = Joined {
        id: answer.id,
        name,
        address,
        control,
    };
    // Last: an edge counts as joined only when everything is there.
    joined.save(state_dir)?;
    Ok(joined)
}
