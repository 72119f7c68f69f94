//! Durable work, step by step. Each kind has its file, with its table of steps at the top: what a
//! step does, how it is undone or why it is not. `engine` runs them, `new` makes them.
//!
//! Every step is safe to do again: an instance may die after acting and before recording it.

mod app_install;
mod database;
mod engine;
mod new;
mod node_power_off;
mod node_remove;
mod release;
mod server_failover;
mod server_life;
mod server_replicate;
mod server_scrub;
mod server_start;
mod site_change;
mod site_create;
mod site_delete;
mod site_take_down;
mod start_spec;
mod trouble;
mod turns;
mod work;

pub use engine::{LEASE_MS, detail_of, run_claimed};
pub use new::{NewOperation, event_of, start, start_urgent, wake};
pub use site_create::ensure_certificate;
pub(crate) use start_spec::{image_of, sources};
pub use trouble::{Outcome, Trouble};
pub use work::Work;

use futures_util::future::BoxFuture;

/// What a step does.
pub type Act = for<'a> fn(&'a mut Work) -> BoxFuture<'a, Outcome<()>>;

/// How a step is undone when a later one fails for good.
#[derive(Clone, Copy)]
pub enum Undo {
    /// By this; safe to do again, also when the step never acted.
    By(Act),
    /// Not, for this reason.
    Not(&'static str),
}

/// A step of a kind of operation.
#[derive(Clone, Copy)]
pub struct StepOf {
    /// Its name, also in failpoints.
    pub name: &'static str,
    /// What it does.
    pub act: Act,
    /// How it is undone.
    pub undo: Undo,
}

/// A kind of operation.
pub struct Kind {
    /// Its name, such as `server.create`.
    pub name: &'static str,
    /// Its steps, in order.
    pub steps: &'static [StepOf],
    /// What the records say when it has failed for good and been undone.
    pub failed: fn(&mut Work, String) -> BoxFuture<'_, Outcome<()>>,
    /// For how long a step is tried again when something does not answer, in ms.
    pub patience_ms: i64,
}

/// It is tried until a newer operation takes its place, and often: somebody waits for it.
const NEVER: i64 = i64::MAX;

/// Most things come back within this time.
const PATIENCE_MS: i64 = 10 * 60_000;

/// Every kind.
pub const KINDS: &[&Kind] = &[
    &server_start::CREATE,
    &server_start::START,
    &server_life::STOP,
    &server_life::RESTART,
    &server_life::DELETE,
    &server_failover::FAILOVER,
    &server_replicate::REPLICATE,
    &server_scrub::SCRUB,
    &site_create::CREATE,
    &site_change::UPDATE,
    &site_take_down::TAKE_DOWN,
    &site_delete::DELETE,
    &database::CREATE,
    &database::DELETE,
    &release::DEPLOY,
    &release::ROLLBACK,
    &app_install::INSTALL,
    &node_power_off::POWER_OFF,
    &node_remove::REMOVE,
];

/// The kind with this name.
pub fn kind_of(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

/// A step: its name, the function that acts, and the function that undoes it or why none does.
macro_rules! step {
    ($name:literal, $act:path, undo $undo:path) => {
        $crate::operations::StepOf {
            name: $name,
            act: |work| Box::pin($act(work)),
            undo: $crate::operations::Undo::By(|work| Box::pin($undo(work))),
        }
    };
    ($name:literal, $act:path, keep $why:literal) => {
        $crate::operations::StepOf {
            name: $name,
            act: |work| Box::pin($act(work)),
            undo: $crate::operations::Undo::Not($why),
        }
    };
}
use step;
