//! Control as its callers meet it: the real router, the real store, a fake node at the wire.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod bad_input;
mod brands;
mod crashes;
mod dns;
mod failover;
mod files;
mod hostile;
mod instances;
mod internal;
mod mail;
mod mail_tls;
mod memory;
mod openapi;
mod panel;
mod panel_axe;
mod panel_browser;
mod panel_passkey;
mod panel_plain;
mod placement;
mod process;
mod refusals;
mod resellers;
mod restarts;
mod roads;
mod scrub;
mod second;
mod suspended_resellers;
mod undo;
mod world;
