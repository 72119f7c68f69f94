//! The public API's client: one method an operation, made by `cargo xtask client` from
//! `openapi/v1.json` over the types of `undine_api::public`. What all methods share is here: one
//! token, one way to send, one way to fail. It reads neither environment nor files.

mod generated;
mod send;

pub use generated::*;
pub use reqwest::{Body, Response};
pub use send::{Client, ClientError, new_key};
