//! undine-guard: renews a node's lease; tiny, restarts never.

fn main() {}
