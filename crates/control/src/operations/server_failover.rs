//! `server.failover`: a server whose node died comes up on another one. New owner, epoch and the
//! copy that counts were committed when the operation was made, if a copy was within reach.
//!
//! | step | does | undo |
//! |---|---|---|
//! | choose | commits a new owner if there is none yet; waits for a copy in sync | none: an epoch never falls |
//! | fence | the copy is opened under the new epoch: older exports are gone for ever | none: an epoch never falls |
//! | turn | under emulation, shorter starts go first | none: it only waits |
//! | boot | the VM runs and its guest answers for itself | none: a VM that came up late is adopted by the next start |
//! | open | state `running`, routes by the new epoch's address; other copies are filled again | none: the last step, one transaction |
//!
//! It is never given up for want of an answer: a copy that returns after days brings it up. A newer
//! operation on the server ends it.

use undine_api::node::{Phase, ReplicaState as Held};
use undine_link::CallError;
use undine_model::lifecycle::ServerState;
use undine_store::{Db, Replica, Server};

use super::server_start::{boot, failed, open, superseded};
use super::start_spec::{open_replica, replica_client};
use super::trouble::{Outcome, Trouble};
use super::turns;
use super::work::Work;
use super::{Kind, NEVER, step};
use crate::background::returned::stop;
use crate::clock::now_ms;
use crate::copies;
use crate::fencing::{Heirs, Taken, take_over};

/// What operations of this kind are called.
pub const NAME: &str = "server.failover";

/// A server comes up elsewhere.
pub const FAILOVER: Kind = Kind {
    name: NAME,
    steps: &[
        step!("choose", choose, keep "an epoch never falls"),
        step!("fence", fence, keep "an epoch never falls"),
        step!("turn", turns::wait, keep "it only waits"),
        step!("boot", boot, keep "a VM that came up late is adopted by the next start"),
        step!("open", open, keep "the last step, one transaction"),
    ],
    failed,
    patience_ms: NEVER,
};

const ACCEPT: &str = "Bring the node back, or accept the loss of the newest writes with `undine \
                      server accept-loss`.";

async fn choose(work: &mut Work) -> Outcome<()> {
    let server = own(work).await?;
    if server.state == ServerState::Starting {
        return Ok(());
    }
    let tx = work.control.store.begin().await?;
    let server = tx.servers().lock(server.id).await?;
    if server.operation != Some(work.operation.id) {
        return Err(superseded());
    }
    let mut heirs = Heirs::read(&work.control, &tx).await?;
    let why = work.operation.reason.clone();
    match take_over(&tx, &mut heirs, server, &why).await? {
        Taken::Over(server) => {
            tx.commit().await?;
            work.progress(server.reason).await
        }
        Taken::Waits(waits) => Err(Trouble::wait(waits, ACCEPT)),
    }
}

/// The server, as long as this operation is the one that works on it.
async fn own(work: &Work) -> Outcome<Server> {
    let server = work.server().await?;
    if server.operation == Some(work.operation.id) {
        Ok(server)
    } else {
        Err(superseded())
    }
}

/// Every copy in sync is opened under the new epoch, then one of them is kept: after an unclean end
/// they may differ in writes that were under way.
async fn fence(work: &mut Work) -> Outcome<()> {
    let server = own(work).await?;
    end_older(work, &server).await?;
    let copies = copies::of(&work.control.store, server.id).await?;
    let members = copies::in_sync(&copies, server.node);
    let mut rest = members.len();
    for copy in members {
        let (node, client) = replica_client(&work.control, copy).await?;
        let status = open_replica(&work.control, &client, &server, copy, rest <= 1).await?;
        if status.state == Held::Open {
            if copy.error.is_some() {
                found_again(work, copy).await?;
            }
            work.progress(format!("{} holds epoch {}", node.name, server.epoch))
                .await?;
            continue;
        }
        change(work, &server, copy, status.state).await?;
        if rest <= 1 {
            let what = format!("{} has lost the server's disk", node.name);
            return Err(Trouble::wait(what, ACCEPT));
        }
        rest -= 1;
    }
    let tx = work.control.store.begin().await?;
    let server = tx.servers().lock(server.id).await?;
    if server.operation != Some(work.operation.id) {
        return Err(superseded());
    }
    copies::settle(&tx, &server).await?;
    tx.commit().await?;
    Ok(())
}

/// The last copy in sync was gone, and is back: its fault is over.
async fn found_again(work: &Work, copy: &Replica) -> Outcome<()> {
    let clear = |copy: &mut Replica| {
        copy.error = None;
        Ok(())
    };
    let replicas = work.control.store.replicas();
    replicas.modify(copy.id, now_ms(), clear).await?;
    Ok(())
}

/// A copy that cannot be had leaves, as long as another is there.
async fn change(work: &Work, server: &Server, copy: &Replica, held: Held) -> Outcome<()> {
    let tx = work.control.store.begin().await?;
    let record = tx.servers().lock(server.id).await?;
    if record.operation != Some(work.operation.id) || record.epoch != server.epoch {
        return Err(superseded());
    }
    match held {
        Held::Lost => copies::lose(&tx, &record, copy.id).await?,
        _ => {
            copies::leave(
                &tx,
                &record,
                &[copy.id],
                "its daemon ended before the start",
            )
            .await?
        }
    };
    tx.commit().await?;
    Ok(())
}

/// The new owner may have been an earlier one: what it still runs is ended first.
async fn end_older(work: &Work, server: &Server) -> Outcome<()> {
    let (node, client) = work.node_of(server).await?;
    match client.server(server.id).await {
        Err(CallError::Refused(problem)) if problem.status == 404 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(status) if status.epoch < server.epoch && status.phase != Phase::Absent => {
            if stop(&client, server.id, status.epoch).await {
                Ok(())
            } else {
                Err(Trouble::wait(
                    format!("{} still ends an older run of the server", node.name),
                    "It is asked again.",
                ))
            }
        }
        Ok(_) => Ok(()),
    }
}
