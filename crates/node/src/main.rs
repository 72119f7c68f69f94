//! undine-node: the hardware node's agent, one task a VM.

fn main() {}
