//! As many spares as are wished, when the node has nothing better to do; fewer when memory is
//! short.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use undine_model::Bytes;
use undine_qemu::accel::Accel;

use super::{Book, Spare, Wished};
use crate::inventory::memory_field;
use crate::server::Ground;

const LOOK: Duration = Duration::from_secs(5);
/// Nothing is made so soon after a server began to start: visitors wait for it, and then for its
/// first pages.
const QUIET: Duration = Duration::from_secs(20);
/// Control repeats its wishes every few seconds; a shape that it says no more of is not in use.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// A shape that failed is tried again then.
const AGAIN: Duration = Duration::from_secs(600);
/// Memory that must stay free beside a new spare, and below which one is given up.
const SPACIOUS: Bytes = Bytes::mib(2048);
const SHORT: Bytes = Bytes::mib(512);

/// Keeps the node's spares for as long as the agent lives.
pub async fn keep(ground: Arc<Ground>) {
    let spares = &ground.spares;
    loop {
        tokio::select! {
            () = spares.news.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        let useless = spares.book().useless(Instant::now(), free());
        for spare in &useless {
            spares.end(spare).await;
        }
        let lacking = spares.book().lacking(Instant::now(), free());
        let Some(wished) = lacking else { continue };
        let begun = Instant::now();
        match spares.make(&ground.templates, &wished).await {
            Ok(spare) => {
                let seconds = begun.elapsed().as_secs_f64();
                tracing::info!(spare = %spare.id, template = wished.kind.key.file_name(), seconds, "a spare is ready");
                let mark = spares.run_dir(spare.id).path().join(super::READY);
                if let Err(error) = std::fs::write(mark, "") {
                    tracing::debug!(%error, "a spare is ready, and nobody is told");
                }
                spares.book().ready.push(spare);
            }
            Err(reason) => {
                tracing::warn!(reason, template = wished.kind.key.file_name(), "no spare");
                let mut book = spares.book();
                if let Some(wished) = book.wishes.get_mut(&wished.kind.key.file_name()) {
                    wished.failed = Some(Instant::now());
                }
            }
        }
    }
}

/// Memory of this machine that nothing needs.
fn free() -> Bytes {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    memory_field(&text, "MemAvailable:")
}

impl Book {
    /// Takes out those that are gone, not wished any more, or in the way.
    pub(super) fn useless(&mut self, now: Instant, free: Bytes) -> Vec<Spare> {
        self.wishes
            .retain(|_, wished| now.duration_since(wished.heard) < FORGOTTEN);
        let wishes = &self.wishes;
        let mut short = free < SHORT;
        let stays = |spare: &Spare| {
            let wished = wishes.get(&spare.kind.key.file_name());
            let wished = wished.is_some_and(|it| it.kind == spare.kind);
            wished && spare.vm.process().exit().is_none()
        };
        // Of those in the way one at a time: what it frees shows at the next look.
        let goes = |spare: &mut Spare| !stays(spare) || std::mem::take(&mut short);
        self.ready.extract_if(.., goes).collect()
    }

    /// The shape whose spares are fewest against what is wished, when one may be made now.
    pub(super) fn lacking(&self, now: Instant, free: Bytes) -> Option<Wished> {
        let busy = self
            .last_start
            .is_some_and(|at| now.duration_since(at) < QUIET);
        if busy {
            return None;
        }
        let have = |wished: &Wished| {
            self.ready
                .iter()
                .filter(|it| it.kind == wished.kind)
                .count()
        };
        let may = |wished: &&Wished| {
            let size = Bytes::mib(wished.kind.key.shape.memory_mib.into());
            wished.kind.key.shape.accel == Accel::Tcg
                && free.0 >= SPACIOUS.0 + size.0
                && have(wished) < wished.count
                && wished
                    .failed
                    .is_none_or(|at| now.duration_since(at) > AGAIN)
        };
        self.wishes
            .values()
            .filter(may)
            .min_by_key(|it| have(it))
            .cloned()
    }
}
