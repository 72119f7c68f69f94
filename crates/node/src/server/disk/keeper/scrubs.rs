//! Comparisons as control sees them: begun, told of, ended. One at a time; a newer one, a join and
//! the loss of the replica end the one that is under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use undine_api::Problem;
use undine_api::node::{ScrubSpec, ScrubState, ScrubStatus};
use undine_model::{Bytes, OperationId, ReplicaId};
use undine_qemu::copy::Progress;
use undine_qemu::scrub::Found;

use super::{Aborting, Disk, ScrubJob, Word};
use crate::problems::{self, chain};
use crate::server::disk::record::DiskRecord;
use crate::server::disk::scrub::{self, Scrub};

/// A replica that answers leaves its slot within this time.
const LET_OUT: Duration = Duration::from_secs(2);

impl Disk {
    pub(super) async fn scrub(
        &mut self,
        replica: ReplicaId,
        spec: ScrubSpec,
    ) -> Result<ScrubStatus, Problem> {
        self.shared.look(|record| record.same_epoch(spec.epoch))?;
        if let Some(job) = &self.scrub
            && (job.replica, job.spec.scrub) == (replica, spec.scrub)
        {
            return Ok(comparing(job));
        }
        if let Some(ended) = self.scrubs.get(&replica)
            && ended.scrub == spec.scrub
        {
            return Ok(ended.clone());
        }
        if self.job.is_some() {
            return Err(Problem::new(
                409,
                "copy-under-way",
                "A copy of the disk is being filled",
                "copies are compared when none is being filled",
            )
            .remedy("wait until that has ended"));
        }
        self.break_off_scrub("a newer comparison was begun").await;
        self.begin_scrub(replica, spec).await
    }

    async fn begin_scrub(
        &mut self,
        replica: ReplicaId,
        spec: ScrubSpec,
    ) -> Result<ScrubStatus, Problem> {
        let found = self.shared.look(|record| {
            let (slot, target) = record.scrubbed(replica)?;
            Some((slot, target.clone()))
        });
        let (slot, target) = found.ok_or_else(|| {
            Problem::new(
                409,
                "not-in-a-slot",
                "The replica is in no slot",
                format!("the replica {replica} does not receive the server's writes"),
            )
            .field("replica")
            .remedy("let it join first")
        })?;
        let progress = Arc::new(Progress::default());
        let export = target.export.clone();
        let work = Scrub {
            ground: self.ground.clone(),
            server: self.server,
            vm: self.vm.clone(),
            daemon: self.own_daemon().await?,
            target,
            limit_bytes_s: spec.limit_bytes_s,
            progress: progress.clone(),
        };
        tracing::info!(server = %self.server, %replica, slot, "a replica is compared");
        let (words, which) = (self.words.clone(), spec.scrub);
        let task = tokio::spawn(async move {
            let result = work.run().await;
            let _ = words.send(Word::Compared(which, replica, result)).await;
        });
        let job = ScrubJob {
            spec,
            replica,
            slot,
            export,
            progress,
            task: Aborting(task),
        };
        let status = comparing(&job);
        self.scrub = Some(job);
        Ok(status)
    }

    pub(super) fn compared(
        &mut self,
        which: OperationId,
        replica: ReplicaId,
        result: Result<Found, String>,
    ) {
        let same = |job: &mut ScrubJob| (job.replica, job.spec.scrub) == (replica, which);
        let Some(job) = self.scrub.take_if(same) else {
            return;
        };
        let mut status = comparing(&job);
        match result {
            Ok(found) if found.differ.is_empty() => {
                tracing::info!(server = %self.server, %replica, undecided = found.undecided, "a replica is equal");
                status.state = ScrubState::Equal;
                status.undecided = Bytes(found.undecided);
            }
            Ok(found) => self.accuse(&job, &found, &mut status),
            Err(reason) => {
                tracing::warn!(server = %self.server, %replica, reason, "a replica was not compared");
                status.state = ScrubState::Failed;
                status.error = Some(reason);
            }
        }
        self.scrubs.insert(replica, status);
    }

    /// It differs, if it was in its slot all the time.
    fn accuse(&self, job: &ScrubJob, found: &Found, status: &mut ScrubStatus) {
        let replica = job.replica;
        let reason = words(found);
        let accused = self
            .shared
            .change(|record| record.accuse(job.slot, &job.export, &reason));
        if accused {
            tracing::error!(server = %self.server, %replica, reason, "a replica differs");
            status.state = ScrubState::Differs;
            status.error = Some(reason);
        } else {
            status.state = ScrubState::Failed;
            status.error = Some("the copy left its slot".to_owned());
        }
    }

    pub(super) async fn end_scrub(
        &mut self,
        epoch: u64,
        replica: ReplicaId,
    ) -> Result<(), Problem> {
        self.shared.look(|record| record.same_epoch(epoch))?;
        if self
            .scrub
            .as_ref()
            .is_some_and(|job| job.replica == replica)
        {
            self.break_off_scrub("it was cancelled").await;
        }
        Ok(())
    }

    /// Ends the comparison of what is in this slot.
    pub(super) async fn end_scrub_of(&mut self, slot: usize, why: &str) {
        if self.scrub.as_ref().is_some_and(|job| job.slot == slot) {
            self.break_off_scrub(why).await;
        }
    }

    /// Ends the comparison that is under way, if any.
    pub(super) async fn break_off_scrub(&mut self, why: &str) {
        let Some(mut job) = self.scrub.take() else {
            return;
        };
        job.task.0.abort();
        // Gone before anything is cleared away: it might still be making things.
        let _ = (&mut job.task.0).await;
        self.clear_scrub().await;
        let mut status = comparing(&job);
        status.state = ScrubState::Failed;
        status.error = Some(why.to_owned());
        tracing::info!(server = %self.server, replica = %job.replica, why, "a comparison ended early");
        self.scrubs.insert(job.replica, status);
    }

    /// Clears away what an earlier agent's comparison left.
    pub(super) async fn clear_scrub(&self) {
        if let Ok(daemon) = self.own_daemon().await {
            scrub::clean(&self.ground, self.server, &daemon).await;
        }
    }

    /// One that was found to differ still answers: it goes without the guest's noticing.
    pub(super) async fn swap_out(&self, slot: usize) -> Result<(), Problem> {
        let is_accused = |record: &DiskRecord| record.slots.get(slot).is_some_and(|it| it.accused);
        if self.shared.look(is_accused) {
            let gone = timeout(LET_OUT, self.vm.let_out(slot)).await;
            if gone.is_ok_and(|gone| gone.is_ok()) {
                return Ok(());
            }
        }
        let swapped = self.vm.swap_out(slot).await;
        swapped.map_err(|error| problems::internal(chain(&error)))
    }
}

fn comparing(job: &ScrubJob) -> ScrubStatus {
    ScrubStatus {
        replica: job.replica,
        scrub: job.spec.scrub,
        state: ScrubState::Comparing,
        compared: Bytes(job.progress.copied()),
        total: Bytes(job.progress.total()),
        undecided: Bytes(0),
        error: None,
    }
}

fn words(found: &Found) -> String {
    let count = found.differ.len();
    let first = found.differ.first().copied().unwrap_or_default();
    let blocks = if count == 1 { "block" } else { "blocks" };
    format!("it differs from the server's own copy in {count} {blocks}, the first at byte {first}")
}
