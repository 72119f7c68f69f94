//! The guard's life: a renewal every half second, a status file, figures for Prometheus.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use undine_api::internal::{Instances, LeaseAnswer, RenewAnswer, RenewRequest};
use undine_link::{CallError, ControlClient, Credentials, Method};

use crate::lease::{Lease, State};

/// How often the lease is renewed.
pub const EVERY: Duration = Duration::from_millis(500);
/// An instance that has not answered by then is passed over for the next one.
const DEADLINE: Duration = Duration::from_millis(900);
/// How often the list of control's instances and the certificate's age are looked at.
const LOOK: Duration = Duration::from_secs(60);
const CALM: Duration = Duration::from_secs(10);
/// A certificate with less than this left is renewed: two thirds of its ninety days.
const RENEW_LEFT_S: i64 = 60 * 24 * 3600;
/// The file that tells how the lease stands.
pub const STATUS_FILE: &str = "lease.json";

/// What the guard is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder with its key and certificate; the status file is written there as well.
    pub folder: PathBuf,
    /// Control's instances.
    pub control: Vec<SocketAddr>,
    /// Where Prometheus may ask.
    pub metrics_listen: Option<SocketAddr>,
}

/// How the lease stands, for everybody on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How it stands.
    pub state: State,
    /// Milliseconds of the boot-time clock at which this was written.
    pub at_boottime_ms: u64,
    /// Milliseconds of the boot-time clock at which the lease ends.
    pub until_boottime_ms: u64,
    /// Renewals sent.
    pub sent: u64,
    /// The last one that was answered.
    pub answered: u64,
}

/// How the guard's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Told,
    /// It has a new certificate: begin again with it.
    Renewed,
}

/// Milliseconds of the boot-time clock.
pub fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    part(now.tv_sec) * 1000 + part(now.tv_nsec) / 1_000_000
}

/// Renews until told to end.
///
/// # Errors
/// The credentials are not usable, or the metrics address is taken.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> anyhow::Result<End> {
    let credentials = Credentials::load(&settings.folder)?;
    let expires = credentials.expires_unix_s()?;
    let control = ControlClient::new(credentials, &settings.control)?;
    let lease = Arc::new(Mutex::new(Lease::default()));
    if let Some(address) = settings.metrics_listen {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| anyhow::anyhow!("cannot listen on {address}: {error}"))?;
        tokio::spawn(serve_metrics(listener, lease.clone()));
    }
    let renewing = async {
        loop {
            if renew(&settings.folder, &control, expires).await {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = stop => Ok(End::Told),
        () = renewing => Ok(End::Renewed),
        () = keep(&settings.folder, &control, &lease) => Ok(End::Told),
    }
}

/// Sends a renewal every half second, also while an earlier one is not answered yet.
async fn keep(folder: &Path, control: &ControlClient, lease: &Arc<Mutex<Lease>>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = State::Unknown;
    loop {
        tick.tick().await;
        let request = lock(lease).ask(boottime_ms());
        let (control, shared) = (control.clone(), lease.clone());
        tokio::spawn(async move {
            let answer: Result<LeaseAnswer, CallError> = control
                .call(Method::POST, "/internal/v1/lease", Some(&request), DEADLINE)
                .await;
            match answer {
                Ok(answer) => lock(&shared).answered(&answer),
                Err(error) => tracing::debug!(%error, "renewal not answered"),
            }
        });
        let status = status(&lock(lease), boottime_ms());
        if status.state != last {
            tracing::info!(from = last.as_str(), to = status.state.as_str(), "lease");
            last = status.state;
        }
        if let Err(error) = write(folder, &status) {
            tracing::warn!(%error, "the status file could not be written");
        }
    }
}

fn status(lease: &Lease, now_ms: u64) -> Status {
    Status {
        state: lease.state(now_ms),
        at_boottime_ms: now_ms,
        until_boottime_ms: now_ms + lease.left_ms(now_ms),
        sent: lease.number(),
        answered: lease.last_answered(),
    }
}

/// Readers see the old status or the new one, whole. Not flushed: it means nothing after a crash.
fn write(folder: &Path, status: &Status) -> std::io::Result<()> {
    let path = folder.join(STATUS_FILE);
    let beside = folder.join(format!("{STATUS_FILE}.new"));
    std::fs::write(&beside, serde_json::to_vec(status)?)?;
    std::fs::rename(beside, path)
}

/// Looks for control's instances and at the certificate; tells whether it was renewed.
async fn renew(folder: &Path, control: &ControlClient, expires: i64) -> bool {
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
            tracing::warn!(
                error = format!("{error:#}"),
                "the certificate could not be renewed"
            );
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

/// The smallest server that Prometheus understands: every request gets the figures.
async fn serve_metrics(listener: TcpListener, lease: Arc<Mutex<Lease>>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(EVERY).await;
            continue;
        };
        let text = figures(&status(&lock(&lease), boottime_ms()));
        tokio::spawn(async move {
            let mut request = [0; 1024];
            let reading = tokio::time::timeout(CALM, stream.read(&mut request));
            if !matches!(reading.await, Ok(Ok(1..))) {
                return;
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

fn figures(status: &Status) -> String {
    let held = u8::from(status.state == State::Held);
    let left = status.until_boottime_ms - status.at_boottime_ms;
    format!(
        "# HELP undine_guard_lease_held 1 while control counts this node as alive\n\
         # TYPE undine_guard_lease_held gauge\nundine_guard_lease_held {held}\n\
         # HELP undine_guard_lease_left_seconds What is left of the lease\n\
         # TYPE undine_guard_lease_left_seconds gauge\n\
         undine_guard_lease_left_seconds {}.{:03}\n\
         # HELP undine_guard_renewals_total Renewals sent\n\
         # TYPE undine_guard_renewals_total counter\nundine_guard_renewals_total {}\n",
        left / 1000,
        left % 1000,
        status.sent
    )
}

fn lock(lease: &Mutex<Lease>) -> std::sync::MutexGuard<'_, Lease> {
    // A number too many or too few does no harm.
    lease.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut lease = Lease::default();
        lease.ask(1_000);
        lease.answered(&LeaseAnswer {
            number: 1,
            lease_ms: 2_000,
            owns: None,
            peers: Vec::new(),
        });
        for now in [1_500, 4_000] {
            let status = status(&lease, now);
            write(dir.path(), &status).unwrap();
            let text = std::fs::read(dir.path().join(STATUS_FILE)).unwrap();
            assert_eq!(serde_json::from_slice::<Status>(&text).unwrap(), status);
        }
        let text = std::fs::read_to_string(dir.path().join(STATUS_FILE)).unwrap();
        assert!(text.contains("\"lapsed\""));
    }

    #[test]
    fn the_figures_tell_what_is_left() {
        let mut lease = Lease::default();
        lease.ask(0);
        lease.answered(&LeaseAnswer {
            number: 1,
            lease_ms: 2_000,
            owns: None,
            peers: Vec::new(),
        });
        let text = figures(&status(&lease, 750));
        assert!(text.contains("lease_held 1\n") && text.contains("left_seconds 1.250\n"));
    }

    #[test]
    fn the_boot_time_clock_goes_forward() {
        let before = boottime_ms();
        assert!(before > 0 && boottime_ms() >= before);
    }
}
