//! How the programs of Undine find and trust each other.
//!
//! Every program has a certificate of the cluster's own CA that names what it is
//! (`undine://role/id`). Programs call each other by names that only this CA certifies
//! (`<id>.<role>.undine.internal`), whatever their addresses are.

mod authority;
mod client;
mod credentials;
mod identity;
mod join;
mod server;
mod token;

pub use authority::{Authority, AuthorityError, Issued};
pub use client::{CallError, ControlClient, PeerClient};
pub use credentials::{Credentials, CredentialsError, csr, install_crypto};
pub use identity::{CONTROL_HOST, Identity, host_of};
pub use join::join;
pub use reqwest::Method;
pub use server::{Peer, serve};
pub use token::{InvalidToken, JoinToken};
