//! The edge between real servers and a fake control, over real sockets on loopback.

// Helpers outside of test functions are tests too.
#![allow(clippy::unwrap_used)]

mod forwarding;
mod hold;
mod hold_bounds;
mod hold_moves;
mod limits;
mod offline;
mod panel;
mod program;
mod routing;
mod secure;
mod support;
mod whole;
