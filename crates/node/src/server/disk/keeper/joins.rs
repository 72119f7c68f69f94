//! Joins as control sees them: begun, told of, ended, cancelled. One at a time.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use undine_api::Problem;
use undine_api::node::{JoinSpec, JoinState, JoinStatus};
use undine_model::{Bytes, ReplicaId};
use undine_qemu::copy::Progress;

use super::{Aborting, Disk, Job, Word, busy};
use crate::server::disk::join::{self, Join};
use crate::server::disk::record::Joining;

impl Disk {
    pub(super) async fn join(&mut self, spec: JoinSpec) -> Result<JoinStatus, Problem> {
        let (replica, export) = (spec.target.replica, &spec.target.export);
        self.shared.look(|record| record.same_epoch(spec.epoch))?;
        // Control's next instance may not know the opening: then it only asks.
        let asks = spec.target.address.is_none();
        match &self.job {
            Some(job)
                if job.spec.target.export == *export
                    || (asks && job.spec.target.replica == replica) =>
            {
                return Ok(copying(job));
            }
            Some(job) if job.spec.target.replica != replica => {
                let other = job.spec.target.replica;
                return Err(Problem::new(
                    409,
                    "another-join",
                    "Another replica is joining",
                    format!("the replica {other} is being copied to"),
                )
                .remedy("wait until that has ended, or cancel it"));
            }
            // Opened anew since: what is copied to the old opening is worth nothing.
            Some(_) => self.cancel(spec.epoch, replica).await?,
            None => {}
        }
        if let Some((ended, status)) = self.joins.get(&replica)
            && (asks || ended == export)
        {
            return Ok(status.clone());
        }
        if self.is_in_slot(&spec, asks) {
            return Ok(ended_status(&spec, JoinState::Joined, None));
        }
        if self.shared.look(|record| record.spent.contains(export)) {
            let reason = "an earlier join of this opening did not end: open the replica anew";
            return Ok(ended_status(&spec, JoinState::Failed, Some(reason)));
        }
        if asks {
            let reason = "no join of this replica is under way: open it anew";
            return Ok(ended_status(&spec, JoinState::Failed, Some(reason)));
        }
        self.begin(spec).await
    }

    async fn begin(&mut self, spec: JoinSpec) -> Result<JoinStatus, Problem> {
        let slot = self.shared.look(|record| record.slot_for(&spec))?;
        let daemon = self.own_daemon().await?;
        self.break_off_scrub("a copy of the disk is being filled")
            .await;
        let joining = Joining {
            slot,
            target: spec.target.clone(),
        };
        self.shared.change(|record| record.begin(joining));
        let progress = Arc::new(Progress::default());
        let holding = Arc::new(AtomicBool::new(false));
        let work = Join {
            ground: self.ground.clone(),
            server: self.server,
            vm: self.vm.clone(),
            daemon,
            shared: self.shared.clone(),
            spec: spec.clone(),
            slot,
            progress: progress.clone(),
            holding: holding.clone(),
        };
        tracing::info!(server = %self.server, replica = %spec.target.replica, slot, method = ?spec.method, "a replica joins");
        let (words, replica) = (self.words.clone(), spec.target.replica);
        let task = tokio::spawn(async move {
            let result = work.run().await;
            let _ = words.send(Word::Ended(replica, result)).await;
        });
        self.joins.remove(&replica);
        let job = Job {
            spec,
            slot,
            progress,
            holding,
            task: Aborting(task),
        };
        let status = copying(&job);
        self.job = Some(job);
        Ok(status)
    }

    pub(super) fn join_ended(&mut self, replica: ReplicaId, result: Result<Duration, String>) {
        let Some(job) = self.job.take_if(|job| job.spec.target.replica == replica) else {
            return;
        };
        let mut status = copying(&job);
        match result {
            Ok(pause) => {
                tracing::info!(server = %self.server, %replica, ?pause, copied = status.copied.0, "a replica joined");
                status.state = JoinState::Joined;
                status.pause_ms = u64::try_from(pause.as_millis()).ok();
            }
            Err(reason) => {
                tracing::error!(server = %self.server, %replica, reason, "a replica could not join");
                status.state = JoinState::Failed;
                status.error = Some(reason);
                self.shared.change(|record| record.joining = None);
            }
        }
        let export = job.spec.target.export.clone();
        self.joins.insert(replica, (export, status));
    }

    pub(super) async fn cancel(&mut self, epoch: u64, replica: ReplicaId) -> Result<(), Problem> {
        self.shared.look(|record| record.same_epoch(epoch))?;
        if self.is_holding() {
            return Err(busy());
        }
        let Some(mut job) = self.job.take_if(|job| job.spec.target.replica == replica) else {
            return Ok(());
        };
        job.task.0.abort();
        // Gone before anything is undone: it might still be making things.
        let _ = (&mut job.task.0).await;
        if let Ok(daemon) = self.own_daemon().await {
            join::clean(&self.ground, self.server, &self.vm, &daemon, job.slot).await;
        }
        self.shared.change(|record| record.joining = None);
        tracing::info!(server = %self.server, %replica, "a join was cancelled");
        Ok(())
    }

    fn is_in_slot(&self, spec: &JoinSpec, whatever_opening: bool) -> bool {
        self.shared.look(|record| {
            let mut targets = record.slots.iter().filter_map(|slot| slot.target.as_ref());
            targets.any(|target| {
                target.export == spec.target.export
                    || (whatever_opening && target.replica == spec.target.replica)
            })
        })
    }
}

fn copying(job: &Job) -> JoinStatus {
    JoinStatus {
        replica: job.spec.target.replica,
        state: JoinState::Copying,
        copied: Bytes(job.progress.copied()),
        total: Bytes(job.progress.total()),
        pause_ms: None,
        error: None,
        method: job.spec.method,
    }
}

/// A join of which nothing more is known than how it ended.
fn ended_status(spec: &JoinSpec, state: JoinState, error: Option<&str>) -> JoinStatus {
    JoinStatus {
        replica: spec.target.replica,
        state,
        copied: Bytes(0),
        total: Bytes(0),
        pause_ms: None,
        error: error.map(str::to_owned),
        method: spec.method,
    }
}
