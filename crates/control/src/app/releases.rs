//! Releases: an archive is streamed through control and node into the server, checked there, and
//! made live by an operation.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::BodyDataStream;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::json;
use sha2::{Digest, Sha256};
use undine_api::guest::{Answer, ArchiveFormat, Upload};
use undine_api::public::{List, MAX_ARCHIVE, Release, ReleaseOperation, ReleaseState, Rollback};
use undine_link::CallError;
use undine_model::{ReleaseId, SiteId};
use undine_store::{Db, ReleaseFilter, Tx};

use super::caller::{Caller, Expected};
use super::paging::PageWish;
use super::{operations, sites};
use crate::clock::{new_id, now_ms};
use crate::control::Control;
use crate::operations::{NewOperation, start, wake};
use crate::refusal::{Refusal, Result};

type Kept = undine_store::ReleaseState;

fn show(release: undine_store::Release, live: bool) -> Release {
    Release {
        id: release.id,
        site: release.site,
        state: match release.state {
            Kept::Uploading => ReleaseState::Uploading,
            Kept::Ready => ReleaseState::Ready,
            Kept::Failed => ReleaseState::Failed,
            Kept::Removed => ReleaseState::Removed,
        },
        sha256: release.sha256,
        size: release.size,
        live,
        previous: release.previous,
        error: release.error,
        created_at: release.created_at,
        version: release.version,
    }
}

/// One page of a site's releases, newest first.
pub async fn all(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    wish: &PageWish,
) -> Result<List<Release>> {
    let site = sites::reach(control, caller, site).await?;
    let filter = ReleaseFilter {
        site: Some(site.id),
        ..ReleaseFilter::default()
    };
    let page = control
        .store
        .releases()
        .list(&filter, wish.request(true)?)
        .await?;
    let live = |release: &undine_store::Release| site.current_release == Some(release.id);
    let next = page.next.map(|id| id.to_string());
    let items = page
        .items
        .into_iter()
        .map(|r| {
            let on = live(&r);
            show(r, on)
        })
        .collect();
    Ok(List { items, next })
}

async fn reach(
    control: &Control,
    caller: &Caller,
    id: ReleaseId,
) -> Result<(undine_store::Release, undine_store::Site)> {
    let Some(release) = control.store.releases().find(id).await? else {
        return Err(Refusal::not_found("release", &id.to_string()));
    };
    let site = control.store.sites().get(release.site).await?;
    if !caller.sees_site(site.account, site.id) {
        return Err(caller.stranger(control, "release", &id.to_string()).await);
    }
    Ok((release, site))
}

/// One release.
pub async fn get(control: &Control, caller: &Caller, id: ReleaseId) -> Result<Release> {
    let (release, site) = reach(control, caller, id).await?;
    let live = site.current_release == Some(id);
    Ok(show(release, live))
}

/// What is said about an archive before it comes.
pub struct Announced {
    /// How it is packed.
    pub format: ArchiveFormat,
    /// Its SHA-256.
    pub sha256: String,
    /// Its size, if it was said.
    pub size: Option<u64>,
    /// Should it go live?
    pub activate: bool,
}

/// Takes an archive, streaming, and starts the operation that makes it live.
pub async fn upload(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    announced: Announced,
    body: BodyDataStream,
) -> Result<ReleaseOperation> {
    let site = sites::reach(control, caller, site).await?;
    super::site_change::not_going(&site)?;
    if !crate::blobs::is_hash(&announced.sha256) {
        return Err(Refusal::invalid(
            "sha256",
            "The archive's SHA-256 has 64 lower-case hexadecimal digits.",
        ));
    }
    let size = right_size(announced.size)?;
    let (server, client) = sites::running_server(control, site.server).await?;
    let release = begin(control, &site, &announced.sha256, size).await?;
    let upload = Upload {
        site: site.id,
        release: release.id,
        format: announced.format,
        size,
        sha256: announced.sha256.clone(),
    };
    let found = Arc::new(Mutex::new(Sha256::new()));
    let stream = hashing(body, found.clone());
    let answer = client
        .upload(server.id, server.epoch, &upload, stream)
        .await;
    let digest = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let outcome = judge(answer, &hex::encode(digest.finalize()), &announced);
    finish(control, caller, &site, release, announced.activate, outcome).await
}

fn right_size(size: Option<u64>) -> Result<u64> {
    match size {
        Some(size) if (1..=MAX_ARCHIVE).contains(&size) => Ok(size),
        Some(size) => Err(Refusal::of(
            413,
            "too-large",
            "The archive's size is out of bounds",
            format!("An archive has 1 byte to {MAX_ARCHIVE} bytes; this one has {size}."),
        )),
        None => Err(Refusal::of(
            411,
            "length-required",
            "Say how long the archive is",
            "An upload needs a Content-Length.",
        )
        .remedy("Send the archive with its Content-Length.")),
    }
}

/// The archive's pieces as they pass, counted into its hash.
fn hashing(
    body: BodyDataStream,
    into: Arc<Mutex<Sha256>>,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
    body.map(move |piece| {
        if let Ok(bytes) = &piece {
            into.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .update(bytes);
        }
        piece
    })
}

fn judge(answer: Result<Answer, CallError>, found: &str, announced: &Announced) -> Result<()> {
    match answer {
        Ok(Answer::Uploaded { .. }) if found == announced.sha256 => Ok(()),
        Ok(Answer::Uploaded { .. }) => Err(Refusal::invalid(
            "sha256",
            format!(
                "The archive has the SHA-256 {found}, not {}.",
                announced.sha256
            ),
        )),
        Ok(_) => Err(Refusal::unavailable(
            "The server answered something else than expected.",
        )),
        Err(CallError::Refused(problem)) => Err(problem.into()),
        Err(error) => Err(error.into()),
    }
}

async fn begin(
    control: &Control,
    site: &undine_store::Site,
    sha256: &str,
    size: u64,
) -> Result<undine_store::Release> {
    let now = now_ms();
    let release = undine_store::Release {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        site: site.id,
        sha256: sha256.to_owned(),
        size: undine_model::Bytes(size),
        state: Kept::Uploading,
        previous: None,
        error: None,
    };
    control.store.releases().insert(&release).await?;
    Ok(release)
}

async fn finish(
    control: &Control,
    caller: &Caller,
    site: &undine_store::Site,
    mut release: undine_store::Release,
    activate: bool,
    outcome: Result<()>,
) -> Result<ReleaseOperation> {
    if let Err(refusal) = outcome {
        release.state = Kept::Failed;
        release.error = Some(refusal.0.detail.clone());
        control.store.releases().update(&release, now_ms()).await?;
        return Err(refusal);
    }
    let tx = control.store.begin().await?;
    release.state = Kept::Ready;
    let release = tx.releases().update(&release, now_ms()).await?;
    let operation = match activate {
        true => {
            let made = operate(&tx, caller, "release.deploy", site, release.id).await?;
            Some(operations::show(&tx, made).await?)
        }
        false => None,
    };
    let data = json!({"domain": site.domain, "sha256": release.sha256, "size": release.size});
    let subject = format!("release/{}", release.id);
    caller
        .did(&tx, "release.upload", subject, Some(site.account), data)
        .await?;
    tx.commit().await?;
    wake(control);
    Ok(ReleaseOperation {
        release: show(release, false),
        operation,
    })
}

async fn operate(
    tx: &Tx,
    caller: &Caller,
    kind: &str,
    site: &undine_store::Site,
    release: ReleaseId,
) -> Result<undine_store::Operation> {
    start(
        tx,
        NewOperation {
            kind,
            subjects: vec![release.uuid(), site.id.uuid()],
            account: Some(site.account),
            params: json!({"site": site.id, "server": site.server, "release": release}),
            reason: format!("asked for by {}", caller.who()),
        },
    )
    .await
}

/// Makes an earlier release live again: the named one, or the one before.
pub async fn rollback(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    expected: Expected,
    wish: Rollback,
) -> Result<ReleaseOperation> {
    let site = sites::reach(control, caller, site).await?;
    expected.check("site", site.version)?;
    super::site_change::not_going(&site)?;
    let target = match wish.release {
        Some(release) => release,
        None => before(control, &site).await?,
    };
    let release = control
        .store
        .releases()
        .find(target)
        .await?
        .filter(|r| r.site == site.id);
    let Some(release) = release else {
        return Err(Refusal::not_found("release", &target.to_string()).field("release"));
    };
    if release.state != Kept::Ready {
        return Err(Refusal::conflict(
            "wrong-state",
            "The release cannot go live",
            format!("The release is {}.", release.state),
        ));
    }
    let tx = control.store.begin().await?;
    let operation = operate(&tx, caller, "release.rollback", &site, target).await?;
    let data = json!({"domain": site.domain});
    caller
        .did(
            &tx,
            "release.rollback",
            format!("release/{target}"),
            Some(site.account),
            data,
        )
        .await?;
    let operation = Some(operations::show(&tx, operation).await?);
    tx.commit().await?;
    wake(control);
    Ok(ReleaseOperation {
        release: show(release, site.current_release == Some(target)),
        operation,
    })
}

async fn before(control: &Control, site: &undine_store::Site) -> Result<ReleaseId> {
    let nothing = || {
        Refusal::conflict(
            "no-release",
            "There is no earlier release",
            "The site has no release before the present one.",
        )
    };
    let current = site.current_release.ok_or_else(nothing)?;
    control
        .store
        .releases()
        .get(current)
        .await?
        .previous
        .ok_or_else(nothing)
}
