//! What one server must run, rendered to the files that its services read.
//!
//! Pure: the guest agent writes what this crate renders. A profile is data (templates and
//! services), so a new tool comes in without new code.

pub mod app;
pub mod load;
pub mod profile;
pub mod quote;
pub mod rehearsal;
pub mod render;
pub mod spec;
pub mod sql;
pub mod validate;

pub use profile::Profile;
pub use spec::{Caps, DatabaseSpec, FORMAT, Manifest, ManifestDelta, SiteSettings, SiteSpec};
