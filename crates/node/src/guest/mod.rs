//! The node's side of the agent inside a server.

pub mod frame;
pub mod session;

pub use session::{Guest, GuestError};

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use undine_api::Problem;
use undine_api::guest::{FailureKind, Identity};
use undine_api::node::StartSpec;
use undine_model::ServerId;

/// Who a server is, for its agent: made anew at every start, with the time and fresh randomness.
pub fn identity(
    server: ServerId,
    spec: &StartSpec,
    edges: &[IpAddr],
    unix_time_ns: u64,
    entropy: &[u8],
) -> Identity {
    let network = &spec.network;
    let v6 = std::iter::once(network.ipv6).chain(network.ipv6_epoch);
    let v6 = v6.map(|ip| (ip.into(), network.ipv6_prefix));
    Identity {
        server,
        hostname: spec.name.clone(),
        machine_id: spec.machine_id.clone(),
        unix_time_ns,
        entropy: STANDARD.encode(entropy),
        mac: network.mac.clone(),
        addresses: std::iter::once((network.ipv4.into(), network.ipv4_prefix))
            .chain(v6)
            .collect(),
        gateways: network.gateways.clone(),
        resolvers: network.resolvers.clone(),
        edges: edges.to_vec(),
    }
}

/// What control is told when the agent did not do it.
pub fn problem(error: &GuestError) -> Problem {
    match error {
        GuestError::Refused(failure) => {
            let (status, kind, title) = match failure.kind {
                FailureKind::Invalid => (422, "guest-invalid", "The server refused the request"),
                FailureKind::NeedsWhole => {
                    (409, "needs-whole", "The server needs the whole manifest")
                }
                FailureKind::Newer => (409, "newer-format", "It is from a newer version"),
                FailureKind::NotReady => (409, "guest-not-ready", "The server is not ready yet"),
                FailureKind::NotFound => (404, "guest-not-found", "The server does not have it"),
                FailureKind::BadArchive => (422, "bad-archive", "The archive breaks a rule"),
                FailureKind::Conflict => (409, "guest-conflict", "It is not as expected"),
                FailureKind::Full => (507, "guest-full", "No room is left"),
                FailureKind::Internal => (500, "guest-failed", "Something in the server failed"),
            };
            Problem::new(status, kind, title, failure.message.clone())
        }
        GuestError::Silent(_) => Problem::new(
            504,
            "guest-silent",
            "The server's agent is silent",
            error.to_string(),
        )
        .remedy("try again; if it stays silent, restart the server"),
        GuestError::Channel(source) => Problem::new(
            502,
            "guest-channel",
            "The channel to the server's agent broke",
            format!("{error}: {source}"),
        )
        .remedy("try again"),
        GuestError::Unexpected => Problem::new(
            502,
            "guest-unexpected",
            "The server's agent made no sense",
            error.to_string(),
        ),
        GuestError::TooLarge(_) => Problem::new(
            413,
            "too-large",
            "The request is too large",
            error.to_string(),
        ),
        GuestError::Body(_) => Problem::new(
            400,
            "upload-broken",
            "The upload broke off",
            error.to_string(),
        )
        .remedy("send it again"),
    }
}
