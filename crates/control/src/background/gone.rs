//! Deleted sites are removed when the day is over in which that can be undone.

use crate::app::site_delete;
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::Result;
use undine_store::{Db, DoubtFilter};

/// Removes those whose day is over.
pub(super) async fn turn(control: &Control) -> Result<()> {
    // A store from a backup may be older than an undo: first it must be itself again.
    let doubts = control.store.doubts();
    if doubts.count(&DoubtFilter::default()).await? > 0 {
        return Ok(());
    }
    site_delete::remove_due(control, now_ms()).await.map(drop)
}
