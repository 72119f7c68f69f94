//! `site.delete`: a site is gone for good. It was marked and its routes closed when the operation
//! was made.
//!
//! | step | does | undo |
//! |---|---|---|
//! | apply | the server removes the site with its content, now or when it starts | none: what is deleted is gone |
//! | forget | databases, releases, certificates, names and site leave the store | none: the last step, one transaction |

use futures_util::future::BoxFuture;
use serde_json::json;
use undine_model::SiteId;
use undine_store::{DatabaseFilter, Db, ReleaseFilter, SiteCertificateFilter};

use super::new::event_of;
use super::site_create::apply_version;
use super::trouble::Outcome;
use super::work::Work;
use super::{Kind, step};

/// A site goes, with its content.
pub const DELETE: Kind = Kind {
    name: "site.delete",
    steps: &[
        step!("apply", apply, keep "what is deleted is gone"),
        step!("forget", forget, keep "the last step, one transaction"),
    ],
    failed,
    patience_ms: super::PATIENCE_MS,
};

async fn apply(work: &mut Work) -> Outcome<()> {
    let server = work.param("server")?;
    let version = work.param("manifest_version")?;
    apply_version(work, server, version, false).await
}

async fn forget(work: &mut Work) -> Outcome<()> {
    let id: SiteId = work.param("site")?;
    let tx = work.control.store.begin().await?;
    let Some(site) = tx.sites().find(id).await? else {
        return Ok(());
    };
    let names = tx.sites().aliases_of(id).await?;
    for host in std::iter::once(&site.domain).chain(&names) {
        let filter = SiteCertificateFilter {
            host: Some(host.to_string()),
        };
        if let Some(certificate) = tx.certificates().find_by(&filter).await? {
            tx.certificates().delete(certificate.id, None).await?;
        }
    }
    let filter = DatabaseFilter {
        site: Some(id),
        ..DatabaseFilter::default()
    };
    for database in tx.databases().all(&filter).await? {
        tx.databases().delete(database.id, None).await?;
    }
    let mut site = tx.sites().lock(id).await?;
    site.current_release = None;
    tx.sites().update(&site, crate::clock::now_ms()).await?;
    let filter = ReleaseFilter {
        site: Some(id),
        ..ReleaseFilter::default()
    };
    for release in tx.releases().all(&filter).await?.into_iter().rev() {
        tx.releases().delete(release.id, None).await?;
    }
    tx.sites().delete(id, None).await?;
    tx.metrics().forget(id.uuid()).await?;
    let data = json!({"domain": site.domain});
    tx.events()
        .announce(vec![event_of(
            "site.deleted",
            id.uuid(),
            Some(site.account),
            data,
        )])
        .await?;
    tx.commit().await?;
    Ok(())
}

/// The site stays `deleting`, off the edges, with the reason at the operation; deleting it again
/// goes on.
fn failed(work: &mut Work, detail: String) -> BoxFuture<'_, Outcome<()>> {
    Box::pin(async move {
        let id: SiteId = work.param("site")?;
        let written = work
            .control
            .store
            .sites()
            .modify(id, crate::clock::now_ms(), |site| {
                site.error = Some(detail.clone());
                Ok(())
            })
            .await;
        match written {
            Ok(_) | Err(undine_store::StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
}
