//! Control as its callers meet it: the real router, the real store, a fake node at the wire.

mod bad_input;
mod crashes;
mod instances;
mod internal;
mod openapi;
mod process;
mod refusals;
mod roads;
mod world;
