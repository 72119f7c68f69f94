//! End-to-end tests of Undine, from outside: they know what a user of `cargo xtask up` knows (its
//! summary, its credentials, the command line `undine`) and nothing of the programs' insides.

mod browser;
mod cli;
mod fresh;
mod groups;
mod guide;
mod lab;
mod node;
mod summary;
mod unit;
mod visit;
mod watch;

pub use browser::Browser;
pub use cli::{Undine, UndineError};
pub use fresh::Machine;
pub use guide::Guide;
pub use lab::Lab;
pub use node::{CutFromControl, DeadNode};
pub use summary::{Edge, Instance, Node, Site, Summary, checkout, target};
pub use visit::{Page, Visitor, eventually};
pub use watch::{Watch, Watched};
