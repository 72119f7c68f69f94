//! Which openings the holder of a copy accepts. The copy's sidecar remembers the highest epoch for
//! ever; a daemon's exports carry epoch and incarnation in their name, so that nobody who knew an
//! older one finds it again.

use serde::{Deserialize, Serialize};

/// What the holder knows of its copy: the sidecar, which is flushed before anything is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// The highest epoch that was ever opened.
    pub epoch: u64,
    /// What it is worth here.
    pub worth: Worth,
}

/// What a copy is worth by its holder's own lights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worth {
    /// Nothing speaks against it.
    InSync,
    /// Is being filled.
    Syncing,
    /// Its daemon ended by itself: writes may be missing.
    Stale,
}

/// How the copy is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To be written by the owner.
    Open,
    /// The same, although it may lack writes: the last copy there is.
    OpenLast,
    /// To be filled.
    Fill,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The owner of that epoch was replaced.
    #[error("epoch {asked} is over: the copy has seen epoch {seen}")]
    Over {
        /// The asker's.
        asked: u64,
        /// The highest seen here.
        seen: u64,
    },
    /// It may lack writes, and nobody has decided that it counts.
    #[error("the copy may lack writes and must be filled first")]
    Behind,
}

/// What to do, in this order: write the sidecar and flush it, end every export of a lower epoch (a
/// fresh daemon if asked), open the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// The sidecar to flush first.
    pub sidecar: Sidecar,
    /// The daemon is ended and a fresh one opens the copy under a new incarnation.
    pub fresh_daemon: bool,
}

/// Decides about an opening. A rising epoch opens whatever is there: then control has decided.
///
/// # Errors
/// The epoch is over, or the copy lacks writes.
pub fn open(sidecar: Sidecar, epoch: u64, wish: Wish) -> Result<Opening, Refused> {
    if epoch < sidecar.epoch {
        return Err(Refused::Over {
            asked: epoch,
            seen: sidecar.epoch,
        });
    }
    let risen = epoch > sidecar.epoch;
    let worth = match wish {
        Wish::Fill => Worth::Syncing,
        Wish::OpenLast => Worth::InSync,
        Wish::Open if sidecar.worth == Worth::InSync || risen => Worth::InSync,
        Wish::Open => return Err(Refused::Behind),
    };
    Ok(Opening {
        sidecar: Sidecar { epoch, worth },
        fresh_daemon: wish == Wish::Fill,
    })
}

/// The daemon ended by itself.
pub const fn daemon_ended(sidecar: Sidecar) -> Sidecar {
    Sidecar {
        worth: match sidecar.worth {
            Worth::InSync => Worth::Stale,
            other => other,
        },
        ..sidecar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, worth: Worth) -> Sidecar {
        Sidecar { epoch, worth }
    }

    #[test]
    fn a_lower_epoch_is_refused_for_ever() {
        for wish in [Wish::Open, Wish::OpenLast, Wish::Fill] {
            let refused = open(at(5, Worth::InSync), 4, wish);
            assert_eq!(refused, Err(Refused::Over { asked: 4, seen: 5 }));
        }
    }

    #[test]
    fn what_lacks_writes_is_opened_by_a_decision_only() {
        let stale = daemon_ended(at(5, Worth::InSync));
        assert_eq!(stale.worth, Worth::Stale);
        assert_eq!(open(stale, 5, Wish::Open), Err(Refused::Behind));
        assert!(open(stale, 5, Wish::OpenLast).is_ok());
        assert_eq!(open(stale, 6, Wish::Open).unwrap().sidecar.epoch, 6);
        assert_eq!(
            open(at(5, Worth::Syncing), 5, Wish::Open),
            Err(Refused::Behind)
        );
    }

    #[test]
    fn filling_begins_with_a_fresh_daemon() {
        let opening = open(at(5, Worth::InSync), 5, Wish::Fill).unwrap();
        assert!(opening.fresh_daemon);
        assert_eq!(opening.sidecar.worth, Worth::Syncing);
        assert_eq!(daemon_ended(opening.sidecar).worth, Worth::Syncing);
    }
}
