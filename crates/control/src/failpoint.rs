//! Named points at which a test, or an operator's drill, makes this instance die.
//!
//! Points are called `<operation>/<step>/<before|done|after>`: before the step acts, after it has
//! acted but before that is recorded, and after it is recorded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The process ends at once, as by `kill -9`.
    Abort,
    /// Whoever comes here waits until the points are cleared, for tests of races.
    Wait,
    /// This instance stops dead inside of a process that holds others too, for tests.
    Halt,
}

/// The points that are set on this instance.
#[derive(Debug, Clone, Default)]
pub struct Failpoints {
    set: Arc<Mutex<BTreeMap<String, Action>>>,
    halted: CancellationToken,
}

impl Failpoints {
    /// From `point=abort;point=abort`; anything else is an error that says so.
    pub fn parse(text: &str) -> Result<Self, String> {
        let points = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((name, "abort")) => points.set(name, Action::Abort),
                _ => {
                    return Err(format!(
                        "`{part}` is no failpoint; write kind/step/before=abort"
                    ));
                }
            }
        }
        Ok(points)
    }

    /// Sets a point.
    pub fn set(&self, name: &str, action: Action) {
        self.lock().insert(name.to_owned(), action);
    }

    /// Forgets all points.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Resolves when a point has halted this instance.
    pub async fn halted(&self) {
        self.halted.cancelled().await;
    }

    /// Passes the point, or never comes back.
    pub async fn pass(&self, name: &str) {
        let action = self.lock().get(name).copied();
        match action {
            None => {}
            Some(Action::Abort) => std::process::abort(),
            Some(Action::Wait) => {
                while self.lock().contains_key(name) {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
            Some(Action::Halt) => {
                self.halted.cancel();
                std::future::pending::<()>().await;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Action>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
