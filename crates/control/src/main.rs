//! undine-control: the API, the operations and the reconcilers; N equal instances.

fn main() {}
