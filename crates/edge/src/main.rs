//! undine-edge: the public door; routes by host name, ends TLS, serves without control.

fn main() {}
