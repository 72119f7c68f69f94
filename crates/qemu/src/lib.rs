//! One VM's life on one host: QMP, storage daemon, templates; knows no cluster.
//!
//! The crate starts, adopts, feeds and ends QEMU and `qemu-storage-daemon` processes. It knows
//! paths, process ids and sockets, and nothing of servers' records, nodes or control: epochs and
//! names arrive as arguments. Every function says what is left behind when our own process dies
//! in the middle of it; all of them may be repeated.

pub mod accel;
pub mod command;
pub mod console;
pub mod copy;
pub mod files;
pub mod nbd;
pub mod process;
pub mod psk;
pub mod qmp;
pub mod relay;
pub mod scrub;
pub mod sidecar;
pub mod storage;
pub mod template;
pub mod version;
pub mod vm;
