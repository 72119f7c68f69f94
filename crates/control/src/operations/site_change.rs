//! `site.update`: other names, runtime or settings, suspended, or tried again. The record was
//! changed when the operation was made.
//!
//! | step | does | undo |
//! |---|---|---|
//! | certificate | each name has a certificate | none: it goes with the site |
//! | apply | the server runs the change, now or when it starts | none: the guest keeps the last good state; the reason stands at the site |
//! | open | state and routes say so | none: the last step, one transaction |

use super::site_create::{applied_well, apply_version, certificate, failed, open, site_of};
use super::trouble::Outcome;
use super::work::Work;
use super::{Kind, step};
use crate::manifests::{Pushed, push};

/// A site's change counts.
pub const UPDATE: Kind = Kind {
    name: "site.update",
    steps: &[
        step!("certificate", certificate, keep "it goes with the site"),
        step!("apply", apply, keep "the guest keeps the last good state"),
        step!("open", open, keep "the last step, one transaction"),
    ],
    failed,
    patience_ms: super::PATIENCE_MS,
};

async fn apply(work: &mut Work) -> Outcome<()> {
    let site = site_of(work).await?;
    let version: u64 = work.param("manifest_version")?;
    if site.applied_version == 0 {
        apply_version(work, site.server, version, true).await?;
        return applied_well(work, version).await;
    }
    match push(&work.control, site.server, version).await? {
        Pushed::Applied => applied_well(work, version).await,
        Pushed::Later => {
            work.progress("the server is not up; it gets this when it starts")
                .await
        }
    }
}
