//! The guard's certificate, renewed early, and the list of control's instances.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use undine_api::internal::{Instances, RenewAnswer, RenewRequest};
use undine_link::{CallError, ControlClient, Credentials, Method};

/// How often both are looked at.
pub const LOOK: Duration = Duration::from_secs(60);
const CALM: Duration = Duration::from_secs(10);
/// A certificate with less than this left is renewed: two thirds of its ninety days.
const RENEW_LEFT_S: i64 = 60 * 24 * 3600;

/// Ends when there is a fresh certificate.
pub async fn until_renewed(folder: &Path, control: &ControlClient, expires: i64) {
    while !look(folder, control, expires).await {
        tokio::time::sleep(LOOK).await;
    }
}

/// Looks for control's instances and at the certificate; tells whether it was renewed.
async fn look(folder: &Path, control: &ControlClient, expires: i64) -> bool {
    let found: Result<Instances, CallError> = control
        .call(Method::GET, "/internal/v1/instances", None::<&()>, CALM)
        .await;
    if let Ok(found) = found {
        let _ = control.set_addresses(&found.addresses);
    }
    let now = clock_gettime(ClockId::Realtime).tv_sec;
    if expires - now > RENEW_LEFT_S {
        return false;
    }
    match fresh(folder, control).await {
        Ok(()) => true,
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "the certificate could not be renewed");
            false
        }
    }
}

async fn fresh(folder: &Path, control: &ControlClient) -> anyhow::Result<()> {
    let old = Credentials::load(folder)?;
    let (key, csr) = undine_link::csr()?;
    let answer: RenewAnswer = control
        .call(
            Method::POST,
            "/internal/v1/renew",
            Some(&RenewRequest { csr }),
            CALM,
        )
        .await?;
    Credentials {
        key,
        certificate: answer.certificate,
        ca: old.ca,
    }
    .save(folder)?;
    Ok(())
}
