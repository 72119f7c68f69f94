//! Certificates are renewed early, so that they outlive any time without control.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use undine_api::internal::{Instances, RenewAnswer, RenewRequest};
use undine_link::{ControlClient, Credentials, Method};

use crate::problems::chain;

const DEADLINE: Duration = Duration::from_secs(10);
/// How often the certificate's age, and the list of control's instances, is looked at.
const LOOK: Duration = Duration::from_secs(600);
/// A certificate with less than this left is renewed: two thirds of its ninety days.
const LEFT: i64 = 60 * 24 * 3600;

/// Should a certificate that ends then be renewed now?
pub fn is_due(expires_unix_s: i64, now_unix_s: i64) -> bool {
    expires_unix_s - now_unix_s < LEFT
}

/// Watches for ever. `fresh` hears of a new certificate, which the program takes up by serving
/// anew; `instances` hears of control's addresses.
pub async fn run(
    folder: PathBuf,
    control: ControlClient,
    fresh: impl Fn(Credentials),
    instances: impl Fn(&Instances),
) {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Ok(found) = control
            .call::<Instances>(Method::GET, "/internal/v1/instances", None::<&()>, DEADLINE)
            .await
        {
            let _ = control.set_addresses(&found.addresses);
            instances(&found);
        }
        match renew(&folder, &control).await {
            Ok(Some(credentials)) => {
                tracing::info!("certificate renewed");
                fresh(credentials);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error, "the certificate could not be renewed"),
        }
    }
}

async fn renew(folder: &Path, control: &ControlClient) -> Result<Option<Credentials>, String> {
    let old = Credentials::load(folder).map_err(|error| chain(&error))?;
    let expires = old.expires_unix_s().map_err(|error| chain(&error))?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    if !is_due(expires, i64::try_from(now).unwrap_or(i64::MAX)) {
        return Ok(None);
    }
    let (key, csr) = undine_link::csr().map_err(|error| chain(&error))?;
    let answer: RenewAnswer = control
        .call(
            Method::POST,
            "/internal/v1/renew",
            Some(&RenewRequest { csr }),
            DEADLINE,
        )
        .await
        .map_err(|error| chain(&error))?;
    let fresh = Credentials {
        key,
        certificate: answer.certificate,
        ca: old.ca,
    };
    fresh.save(folder).map_err(|error| chain(&error))?;
    Ok(Some(fresh))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_a_third_of_its_life() {
        const DAY: i64 = 24 * 3600;
        assert!(!is_due(90 * DAY, 0));
        assert!(!is_due(90 * DAY, 29 * DAY));
        assert!(is_due(90 * DAY, 31 * DAY));
        assert!(is_due(0, 1));
    }
}
