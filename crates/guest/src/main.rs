//! undine-guest: applies the manifest inside a server; small and static.

fn main() {}
