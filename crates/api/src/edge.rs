//! The routing table that control streams to the edges.
//!
//! `GET /internal/v1/routes?after=V&wait_s=S` answers [`RouteUpdate`]: what changed since version
//! `V`, or the whole table when `V` is unknown or too old; with nothing new it waits up to `S`
//! seconds (at most 30) and then answers an empty change. An edge keeps the table on its disk and
//! serves from it when control is away.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use undine_model::{InstanceId, ServerId, SiteId};

/// A change of the table, or all of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteUpdate {
    /// The version after the change.
    pub version: u64,
    /// Everything that was there before is dropped first.
    pub whole: bool,
    /// Routes that are new or changed, by host name.
    pub routes: Vec<Route>,
    /// Host names that are gone.
    pub removed: Vec<String>,
    /// Where panel and API are; always complete.
    pub panel: Panel,
}

/// Where requests for one host name go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The host name, ASCII, lower case.
    pub host: String,
    /// The site.
    pub site: SiteId,
    /// Its server.
    pub server: ServerId,
    /// What to do with a request.
    pub target: Target,
    /// Its certificate, for TLS by name.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// Send plain HTTP requests to HTTPS.
    #[serde(default)]
    pub https_only: bool,
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "target", rename_all = "snake_case")]
pub enum Target {
    /// Ask the server at these addresses, plain HTTP/1.1.
    Server {
        /// Tried in order.
        addresses: Vec<SocketAddr>,
    },
    /// The server comes up or moves: let requests wait, within bounds.
    Held {
        /// Where it will be. Whatever was connected elsewhere is an old owner: let go of it.
        addresses: Vec<SocketAddr>,
    },
    /// The server is not up, and nobody knows when: say so (503, `Retry-After`).
    Unavailable,
    /// Show the page for suspended sites (503).
    Suspended {
        /// What it says, if whoever sells has words of their own: plain text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        words: Option<String>,
    },
    /// Send the visitor to this URL (308), the path kept.
    Redirect {
        /// Scheme and host.
        to: String,
    },
}

/// A certificate and its key.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The chain, PEM.
    pub chain: String,
    /// The private key, PEM.
    pub key: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.write_str("Certificate(..)")
    }
}

/// Where panel and API are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    /// Host names that mean the panel.
    pub hosts: Vec<String>,
    /// Its certificate.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// Every instance that has been heard of lately; an edge checks each one's health itself.
    pub instances: Vec<PanelInstance>,
}

/// One instance of control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PanelInstance {
    /// Its id, also in its certificate.
    pub id: InstanceId,
    /// Its mutual-TLS address.
    pub address: SocketAddr,
}

/// What an edge tells control every ten seconds (`POST /internal/v1/edges/report`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EdgeReport {
    /// The version of the table that it serves.
    pub version: u64,
    /// Addresses that it listens on for visitors.
    pub addresses: Vec<SocketAddr>,
    /// Its program's version.
    pub program: String,
    /// Since the last report, by site.
    pub sites: Vec<SiteTraffic>,
}

/// What one site's visitors did since the last report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteTraffic {
    /// Which one; none for names that no site has.
    pub site: Option<SiteId>,
    /// Requests.
    pub requests: u64,
    /// Answers with a status of 500 or more.
    pub errors: u64,
    /// Bytes sent to visitors.
    pub bytes_out: u64,
    /// Sum of the answers' times, milliseconds.
    pub total_ms: u64,
}
