//! The public REST API, `/v1`: what its clients send and what they are answered.
//!
//! Times are milliseconds since 1970 (`*_at`). Requests refuse fields that they do not know.
//! Every answer of a thing that can be changed carries an `ETag`; every change names it in
//! `If-Match` (`*` takes any). Every create takes an `Idempotency-Key`. Errors are
//! [`crate::Problem`]s.

mod cluster;
mod dns;
mod files;
mod mail;
mod observe;
mod server;
mod site;
mod tenancy;

pub use cluster::*;
pub use dns::*;
pub use files::*;
pub use mail::*;
pub use observe::*;
pub use server::*;
pub use site::*;
pub use tenancy::*;

use serde::{Deserialize, Serialize};

/// Answers: fields that a client does not know are to be passed over.
macro_rules! answers {
    ($($item:item)*) => {$(
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        $item
    )*};
}

/// Requests: a field that control does not know is refused.
macro_rules! requests {
    ($($item:item)*) => {$(
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(deny_unknown_fields)]
        $item
    )*};
}

/// Words on the wire, in snake case.
macro_rules! choices {
    ($($item:item)*) => {$(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "snake_case")]
        $item
    )*};
}

pub(crate) use {answers, choices, requests};

/// The header that makes a create safe to send again.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header that names a request in answers, logs and audit.
pub const REQUEST_ID: &str = "x-request-id";
/// The largest JSON body, in bytes.
pub const MAX_JSON: usize = 1 << 20;
/// The largest archive of a release, in bytes.
pub const MAX_ARCHIVE: u64 = 2 << 30;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct List<T> {
    /// The things, in the order that they were made (operations, audit: newest first).
    pub items: Vec<T>,
    /// Pass it as `cursor` for the next page; none at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
