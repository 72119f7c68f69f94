//! `release.deploy` and `release.rollback`. The release is on the server already.
//!
//! | step | does | undo |
//! |---|---|---|
//! | activate | the guest switches to the release, atomically | none needed: a switch that failed changed nothing |
//! | commit | the site's record and manifest name the release | none: one transaction |
//! | apply | the server has the manifest that says so, now or when it starts | none: it is what runs already |

use futures_util::future::BoxFuture;
use serde_json::json;
use undine_api::guest::{Activate, Ask};
use undine_model::lifecycle::ServerState;
use undine_model::{ReleaseId, SiteId};
use undine_store::{Db, ManifestChange, ReleaseState};

use super::new::event_of;
use super::site_create::{apply_version, site_of};
use super::trouble::{Outcome, Trouble};
use super::work::Work;
use super::{Kind, StepOf, step};
use crate::clock::now_ms;

const STEPS: &[StepOf] = &[
    step!("activate", activate, keep "a switch that failed changed nothing"),
    step!("commit", commit, keep "one transaction"),
    step!("apply", apply, keep "it is what runs already"),
];

/// A new release goes live.
pub const DEPLOY: Kind = Kind {
    name: "release.deploy",
    steps: STEPS,
    failed,
    patience_ms: super::PATIENCE_MS,
};

/// An earlier release goes live again.
pub const ROLLBACK: Kind = Kind {
    name: "release.rollback",
    steps: STEPS,
    failed,
    patience_ms: super::PATIENCE_MS,
};

async fn activate(work: &mut Work) -> Outcome<()> {
    let site = site_of(work).await?;
    let release: ReleaseId = work.param("release")?;
    let server = work.control.store.servers().get(site.server).await?;
    if server.state != ServerState::Running {
        return Err(Trouble::wait(
            "the server is not up",
            "Start the server; the release follows.",
        ));
    }
    let (_, client) = work.node_of(&server).await?;
    let ask = Ask::Activate(Activate {
        site: site.id,
        release,
    });
    client.guest(server.id, server.epoch, ask).await?;
    Ok(())
}

/// The site's record and manifest name the release.
pub(super) async fn commit(work: &mut Work) -> Outcome<()> {
    let id: SiteId = site_of(work).await?.id;
    let release: ReleaseId = work.param("release")?;
    let tx = work.control.store.begin().await?;
    let mut site = tx.sites().lock(id).await?;
    if site.current_release != Some(release) {
        let mut record = tx.releases().lock(release).await?;
        record.previous = site.current_release;
        record.state = ReleaseState::Ready;
        tx.releases().update(&record, now_ms()).await?;
        site.current_release = Some(release);
        tx.sites().update(&site, now_ms()).await?;
    }
    let version = tx
        .manifests()
        .changed(site.server, &[ManifestChange::Site(id)])
        .await?;
    let data = json!({"domain": site.domain, "release": release});
    tx.events()
        .announce(vec![event_of(
            "release.live",
            release.uuid(),
            Some(site.account),
            data,
        )])
        .await?;
    tx.commit().await?;
    work.keep("manifest_version", version);
    Ok(())
}

/// The server has the manifest that names the release.
pub(super) async fn apply(work: &mut Work) -> Outcome<()> {
    let site = site_of(work).await?;
    let version = work.found("manifest_version")?;
    apply_version(work, site.server, version, false).await
}

/// What was live stays live; the reason stands at the release that did not become it.
pub(super) fn failed(work: &mut Work, detail: String) -> BoxFuture<'_, Outcome<()>> {
    Box::pin(async move {
        let release: ReleaseId = work.param("release")?;
        let written = work
            .control
            .store
            .releases()
            .modify(release, now_ms(), |release| {
                release.error = Some(detail.clone());
                if release.state == ReleaseState::Uploading {
                    release.state = ReleaseState::Failed;
                }
                Ok(())
            })
            .await;
        match written {
            Ok(_) | Err(undine_store::StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
}
