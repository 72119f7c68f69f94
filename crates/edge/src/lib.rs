//! undine-edge: the public door. It routes by host name, ends TLS, shows the panel of whichever
//! control instance answers, and serves from its disk when none does.
//!
//! It knows nothing of nodes, databases or accounts: only the routing table that control sends.

mod access_log;
mod cluster;
mod connection;
mod disk;
mod door;
mod edge;
mod feed;
mod forward;
mod hold;
mod host;
mod instances;
pub mod join;
mod lines;
mod metrics;
mod page;
mod proxy;
mod table;
mod tls;
mod traffic;
mod upstream;
mod verdict;
mod wait;
mod whole;

pub use door::ListenError;
pub use edge::{Edge, Settings, StartError};
pub use hold::Limits;
pub use table::{Gap, Table};
