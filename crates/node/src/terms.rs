//! Which life of control's store the node has heard of: orders of an earlier one are refused for
//! ever (`undine_failover::memory::Term`).
//!
//! The term is on disk before the question that brought it is answered, and orders that are being
//! carried out have ended by then: what control is told includes whatever they did.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use undine_api::Problem;
use undine_api::node::OLD_TERM;
use undine_failover::memory::{OldTerm, Term};

use crate::files;
use crate::problems;

/// The highest term that was heard.
pub struct Terms {
    path: PathBuf,
    heard: Arc<RwLock<Term>>,
    /// The same, for whoever must not wait.
    shown: AtomicU64,
}

/// Held while an order is carried out: no higher term is heard meanwhile.
pub type Held = OwnedRwLockReadGuard<Term>;

impl Terms {
    /// As written down in the state folder; none was heard where nothing is.
    ///
    /// # Errors
    /// The file cannot be read: nobody guesses what it said.
    pub fn open(state_dir: &Path) -> Result<Self, files::FileError> {
        let path = state_dir.join("term.json");
        let heard = files::read_json::<Term>(&path)?.unwrap_or_default();
        Ok(Self {
            path,
            shown: AtomicU64::new(heard.0),
            heard: Arc::new(RwLock::new(heard)),
        })
    }

    /// The highest one that was heard.
    pub fn heard(&self) -> u64 {
        self.shown.load(Ordering::SeqCst)
    }

    /// An order or a question of this term arrives: one that is news is on disk on return, and
    /// every order before it has ended. One of an earlier term is not news.
    ///
    /// # Errors
    /// The disk says no.
    pub async fn hear(&self, said: u64) -> Result<(), Problem> {
        if said <= self.heard() {
            return Ok(());
        }
        let mut heard = self.heard.write().await;
        let mut next = *heard;
        if next.hear(Term(said)) == Ok(true) {
            files::write_json(&self.path, &next).map_err(problems::files)?;
            tracing::info!(term = said, "control's store has begun a new life");
            *heard = next;
            self.shown.store(said, Ordering::SeqCst);
        }
        Ok(())
    }

    /// An order of this term may be carried out while what this gives is held.
    ///
    /// # Errors
    /// A higher term has been heard.
    pub async fn hold(&self, said: u64) -> Result<Held, Problem> {
        let held = self.heard.clone().read_owned().await;
        let mut heard = *held;
        match heard.hear(Term(said)) {
            Err(refusal) => Err(refused(&refusal)),
            Ok(_) => Ok(held),
        }
    }
}

fn refused(refusal: &OldTerm) -> Problem {
    Problem::new(
        409,
        OLD_TERM,
        "Control's store has begun a new life",
        refusal.to_string(),
    )
    .remedy("start this instance of control again: it reads the store anew")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn orders_of_an_earlier_life_are_refused_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let terms = Terms::open(folder.path()).unwrap();
        terms.hear(7).await.unwrap();
        terms.hear(3).await.unwrap();
        assert!(terms.hold(7).await.is_ok());
        // After a restart of the agent too.
        let again = Terms::open(folder.path()).unwrap();
        assert_eq!(again.heard(), 7);
        assert_eq!(again.hold(6).await.unwrap_err().kind, OLD_TERM);
    }

    #[tokio::test]
    async fn a_new_term_waits_for_the_orders_that_are_carried_out() {
        let folder = tempfile::tempdir().unwrap();
        let terms = Arc::new(Terms::open(folder.path()).unwrap());
        let order = terms.hold(1).await.unwrap();
        let asking = {
            let terms = terms.clone();
            tokio::spawn(async move { terms.hear(2).await })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!asking.is_finished());
        drop(order);
        asking.await.unwrap().unwrap();
        assert!(terms.hold(1).await.is_err());
    }

    #[tokio::test]
    async fn a_damaged_file_stops_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("term.json"), "not a number").unwrap();
        assert!(Terms::open(folder.path()).is_err());
    }
}
