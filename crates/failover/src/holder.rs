//! A replica on its holder's node: which openings are refused. The state here is that of the
//! sidecar, which is fsynced with its folder **before** anything is opened under a new epoch.
//!
//! What a copy is worth is control's to say, by committing. The holder only refuses what control
//! cannot have meant: a lower epoch, another replica's file, a file that is gone, and under an
//! epoch that is open already a copy whose daemon ended, for its owner may have gone on without it.

use serde::{Deserialize, Serialize};
use undine_model::ReplicaId;

/// How a copy stands, as its sidecar says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copy {
    /// Closed properly, or never written.
    Closed,
    /// A daemon exports it: after a crash of the daemon or the machine this means stale.
    Open,
    /// A daemon exports it as the target of a resync.
    Filling,
    /// Its daemon ended by itself: it may lack writes.
    Stale,
    /// Its daemon ended while it was being filled: part of it is new, part is old.
    Half,
    /// Control gave it up: the file is gone on purpose, the epoch is remembered.
    Removed,
}

/// A replica's sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// Whose file it is.
    pub replica: ReplicaId,
    /// The highest epoch seen.
    pub epoch: u64,
    /// How it stands.
    pub copy: Copy,
}

/// Control wants a replica opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Which one.
    pub replica: ReplicaId,
    /// The owner's epoch.
    pub epoch: u64,
    /// Make its file where there is none.
    pub create: bool,
    /// Make it the target of a resync.
    pub resync: bool,
    /// Open it although it may lack writes: the last copy there is.
    pub accept_stale: bool,
}

/// What the holder does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// Its daemon exports it under this epoch already: answer with that export.
    Same,
    /// Write this sidecar and fsync it; end the old daemon and await its exit; make the file if
    /// `create`; start a daemon and export under a fresh incarnation.
    Fresh {
        /// The new sidecar.
        sidecar: Sidecar,
        /// Make the file first.
        create: bool,
    },
}

/// Why an opening is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HolderRefusal {
    /// A lower epoch than was seen.
    #[error("epoch {asked} is below {seen}, which was seen here: the server has a newer owner")]
    LowerEpoch {
        /// This one.
        asked: u64,
        /// The one seen.
        seen: u64,
    },
    /// Its file is gone.
    #[error("the file of replica {0} is gone: give the server another replica")]
    Lost(ReplicaId),
    /// Another replica's file is there.
    #[error("the file here is of replica {0}: remove that one first")]
    OtherReplica(ReplicaId),
    /// It may lack writes.
    #[error("replica {0} may lack writes: fill it again, or promote it under a new epoch")]
    MayLackWrites(ReplicaId),
}

/// Decides on an opening. `sidecar` is none when there is no file; `has_daemon` tells whether its
/// daemon runs and exports it.
///
/// # Errors
/// It is refused; nothing has changed.
pub fn open(
    sidecar: Option<&Sidecar>,
    has_daemon: bool,
    asked: Opening,
) -> Result<Open, HolderRefusal> {
    let copy = if asked.resync {
        Copy::Filling
    } else {
        Copy::Open
    };
    let fresh = |create| Open::Fresh {
        sidecar: Sidecar {
            replica: asked.replica,
            epoch: asked.epoch,
            copy,
        },
        create,
    };
    if let Some(here) = sidecar {
        at_least(here, asked.epoch)?;
    }
    let Some(here) = sidecar.filter(|it| it.copy != Copy::Removed) else {
        let made = asked.create.then(|| fresh(true));
        return made.ok_or(HolderRefusal::Lost(asked.replica));
    };
    if here.replica != asked.replica {
        return Err(HolderRefusal::OtherReplica(here.replica));
    }
    if asked.epoch > here.epoch || asked.resync {
        return Ok(fresh(false));
    }
    match (here.copy, has_daemon) {
        (Copy::Open | Copy::Filling, true) => Ok(Open::Same),
        (Copy::Closed, _) => Ok(fresh(false)),
        (_, _) if asked.accept_stale => Ok(fresh(false)),
        (_, _) => Err(HolderRefusal::MayLackWrites(asked.replica)),
    }
}

/// Control gives up this very replica: end its daemon, remove its file and write this sidecar.
/// None: it is not here, or not any more.
///
/// # Errors
/// A lower epoch than was seen.
pub fn remove(
    sidecar: Option<&Sidecar>,
    replica: ReplicaId,
    epoch: u64,
) -> Result<Option<Sidecar>, HolderRefusal> {
    let Some(here) = sidecar.filter(|it| it.replica == replica && it.copy != Copy::Removed) else {
        return Ok(None);
    };
    at_least(here, epoch)?;
    Ok(Some(Sidecar {
        replica,
        epoch,
        copy: Copy::Removed,
    }))
}

fn at_least(here: &Sidecar, asked: u64) -> Result<(), HolderRefusal> {
    let seen = here.epoch;
    if asked < seen {
        return Err(HolderRefusal::LowerEpoch { asked, seen });
    }
    Ok(())
}

impl Sidecar {
    /// Under its epoch it was opened as one in sync, not to be filled
    /// ([`crate::memory::Sighting::opened`]).
    pub fn opened(&self) -> Option<ReplicaId> {
        match self.copy {
            Copy::Closed | Copy::Open | Copy::Stale => Some(self.replica),
            Copy::Filling | Copy::Half | Copy::Removed => None,
        }
    }
}

/// Its daemon ended by itself, or the machine started again and finds this sidecar.
pub fn ended(sidecar: &Sidecar) -> Sidecar {
    let copy = match sidecar.copy {
        Copy::Closed => Copy::Closed,
        Copy::Open | Copy::Stale => Copy::Stale,
        Copy::Filling | Copy::Half => Copy::Half,
        Copy::Removed => Copy::Removed,
    };
    Sidecar {
        copy,
        ..sidecar.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::replica_id as r;

    const ASKED: fn(u64) -> Opening = |epoch| Opening {
        replica: r(1),
        epoch,
        create: false,
        resync: false,
        accept_stale: false,
    };

    fn here(copy: Copy) -> Sidecar {
        Sidecar {
            replica: r(1),
            epoch: 4,
            copy,
        }
    }

    fn fresh(result: Result<Open, HolderRefusal>) -> Sidecar {
        match result {
            Ok(Open::Fresh { sidecar, .. }) => sidecar,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lower_epoch_is_refused_for_ever_whatever_else_is_said() {
        let loud = Opening {
            create: true,
            resync: true,
            accept_stale: true,
            ..ASKED(3)
        };
        let all = [
            Copy::Closed,
            Copy::Open,
            Copy::Filling,
            Copy::Stale,
            Copy::Half,
        ];
        for copy in all {
            let refused = HolderRefusal::LowerEpoch { asked: 3, seen: 4 };
            assert_eq!(open(Some(&here(copy)), true, loud), Err(refused));
        }
    }

    #[test]
    fn a_copy_whose_daemon_ended_does_not_rejoin_under_its_epoch() {
        let stale = ended(&here(Copy::Open));
        assert_eq!(stale.copy, Copy::Stale);
        let refused = Err(HolderRefusal::MayLackWrites(r(1)));
        assert_eq!(open(Some(&stale), false, ASKED(4)), refused);
        // Nor when nobody saw it end.
        assert_eq!(open(Some(&here(Copy::Open)), false, ASKED(4)), refused);
        assert_eq!(fresh(open(Some(&stale), false, ASKED(5))).epoch, 5);
        let resync = Opening {
            resync: true,
            ..ASKED(4)
        };
        assert_eq!(fresh(open(Some(&stale), true, resync)).copy, Copy::Filling);
    }

    #[test]
    fn asked_twice_it_answers_the_same() {
        assert_eq!(
            open(Some(&here(Copy::Open)), true, ASKED(4)),
            Ok(Open::Same)
        );
    }

    #[test]
    fn a_missing_file_is_lost_and_never_an_empty_disk() {
        assert_eq!(open(None, false, ASKED(9)), Err(HolderRefusal::Lost(r(1))));
        let create = Opening {
            create: true,
            ..ASKED(1)
        };
        assert!(matches!(
            open(None, false, create),
            Ok(Open::Fresh { create: true, .. })
        ));
        assert_eq!(ended(&here(Copy::Closed)).copy, Copy::Closed);
    }

    #[test]
    fn a_copy_that_was_being_filled_is_never_taken_for_one_in_sync() {
        assert_eq!(here(Copy::Filling).opened(), None);
        assert_eq!(ended(&here(Copy::Filling)).opened(), None);
        assert_eq!(ended(&here(Copy::Open)).opened(), Some(r(1)));
        let refused = Err(HolderRefusal::MayLackWrites(r(1)));
        assert_eq!(open(Some(&here(Copy::Half)), false, ASKED(4)), refused);
    }

    #[test]
    fn a_removed_replica_leaves_its_epoch_behind() {
        let gone = remove(Some(&here(Copy::Stale)), r(1), 6).unwrap().unwrap();
        assert_eq!((gone.copy, gone.epoch), (Copy::Removed, 6));
        assert_eq!(remove(Some(&gone), r(1), 6), Ok(None));
        assert_eq!(remove(Some(&here(Copy::Open)), r(2), 6), Ok(None));
        assert!(remove(Some(&here(Copy::Open)), r(1), 3).is_err());
        let other = Opening {
            replica: r(2),
            create: true,
            ..ASKED(5)
        };
        assert!(open(Some(&gone), false, other).is_err());
        let other = Opening { epoch: 6, ..other };
        assert!(matches!(
            open(Some(&gone), false, other),
            Ok(Open::Fresh { create: true, .. })
        ));
        assert_eq!(
            open(Some(&gone), false, ASKED(7)),
            Err(HolderRefusal::Lost(r(1)))
        );
    }

    #[test]
    fn another_replica_s_file_is_not_opened() {
        let other = Opening {
            replica: r(2),
            ..ASKED(9)
        };
        let refused = Err(HolderRefusal::OtherReplica(r(1)));
        assert_eq!(open(Some(&here(Copy::Closed)), false, other), refused);
    }
}
