//! Certificates of the panel and the sites that end soon are made anew, and the edges told.

use undine_store::{Db, SiteCertificateFilter};

use crate::clock::now_ms;
use crate::control::Control;
use crate::operations::ensure_certificate;
use crate::refusal::{Refusal, Result};

const SOON_MS: i64 = 30 * 24 * 3_600_000;

/// Looks at every certificate.
pub(super) async fn turn(control: &Control) -> Result<()> {
    ensure(control, &control.cluster.panel_host()).await?;
    let soon = now_ms() + SOON_MS;
    for kept in control
        .store
        .certificates()
        .all(&SiteCertificateFilter::default())
        .await?
    {
        if kept.expires_at < soon {
            ensure(control, &kept.host).await?;
        }
    }
    Ok(())
}

async fn ensure(control: &Control, host: &str) -> Result<()> {
    let made = ensure_certificate(control, host)
        .await
        .map_err(|trouble| Refusal::unavailable(trouble.to_string()))?;
    if made {
        control.store.routes().changed([host.to_owned()]).await?;
        tracing::info!(host, "a certificate was made");
    }
    Ok(())
}
