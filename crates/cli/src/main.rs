//! undine: the operator's and the customer's command line.

fn main() {}
