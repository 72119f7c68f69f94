//! Ids, names, units and lifecycles of Undine: values that cannot be wrong once built.
//!
//! Pure: no clock, no randomness, no I/O. Whoever makes an id passes the time and the random
//! bits in; whoever parses a name gets an error that says what to write instead.

pub mod address;
pub mod id;
pub mod lifecycle;
pub mod name;
pub mod path;
pub mod unit;

pub use address::{NoEpochAddress, epoch_address};
pub use id::{
    AccountId, DatabaseId, EdgeId, Id, InstanceId, NodeId, OperationId, PlanId, ReleaseId,
    ReplicaId, ResellerId, ServerId, SiteId, TokenId, UploadId,
};
pub use name::{AppName, DomainName, InvalidName, NodeName, ProfileName, Slug};
pub use path::{InvalidPath, SitePath};
pub use unit::{Bytes, MilliCpu};
