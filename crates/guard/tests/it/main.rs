//! The guard on real sockets: mutual TLS with a fake control and fake peers, QMP with fakes and
//! with a real QEMU.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod isolation;
mod qemu;
mod refusals;
mod support;
mod witness;
