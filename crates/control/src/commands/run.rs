//! `run`: an instance at work, until it is told to end.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use undine_api::internal::Role;
use undine_link::{Credentials, Identity};
use undine_store::Store;

use crate::clock::{now_ms, now_utc};
use crate::control::{CLUSTER_CA, Control, Parts, load_authority};
use crate::failpoint::Failpoints;
use crate::state_dir::StateDir;
use crate::{api, background, internal, memory};

/// How to run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Where the instance keeps its state.
    pub state: StateDir,
    /// Where the public API listens, without TLS: a loopback address.
    pub api_listen: SocketAddr,
    /// Where nodes, edges and other instances are served.
    pub internal_listen: SocketAddr,
    /// Where it dies, in tests.
    pub failpoints: Failpoints,
}

/// Runs until `shutdown` is cancelled; begins again whenever another life of the store has begun:
/// what was read in the one before goes with it.
pub async fn run(wish: Run, shutdown: CancellationToken) -> anyhow::Result<()> {
    loop {
        let life = shutdown.child_token();
        let _ended = life.clone().drop_guard();
        one_life(&wish, &shutdown, life).await?;
        if shutdown.is_cancelled() {
            return Ok(());
        }
        tracing::warn!("begins again in the store's new life");
    }
}

async fn one_life(
    wish: &Run,
    shutdown: &CancellationToken,
    life: CancellationToken,
) -> anyhow::Result<()> {
    let control = open(&wish.state, wish.failpoints.clone()).await?;
    let bind = async |address: SocketAddr| {
        let cannot = || format!("{address} cannot be listened on");
        TcpListener::bind(address).await.with_context(cannot)
    };
    let (api, inside) = (
        bind(wish.api_listen).await?,
        bind(wish.internal_listen).await?,
    );
    let left_s = control.credentials.expires_unix_s()? - now_ms() / 1000 - END_BEFORE_S;
    let (ending, renewed) = (shutdown.clone(), control.clone());
    let beside = async move {
        let expires = tokio::time::sleep(Duration::from_secs(left_s.max(60).unsigned_abs()));
        tokio::select! {
            () = expires => {
                tracing::warn!("ending, to be started again with a fresh certificate");
                ending.cancel();
            }
            () = renewed.outlived.cancelled() => {}
        }
    };
    let over = life.clone();
    let beside = tokio::spawn(async move {
        beside.await;
        over.cancel();
    });
    let keeping = tokio::spawn(remember(control.store.clone(), wish.state.clone()));
    let ended = serve(&control, api, inside, life).await;
    keeping.abort();
    beside.abort();
    ended
}

/// What this instance sees of the store is kept beside its state, so that the next start notices
/// when the store stands behind it.
async fn remember(store: Store, state: StateDir) {
    let mut last = None;
    loop {
        match memory::keep(&store, &state, last).await {
            Ok(now) => last = Some(now),
            Err(error) => tracing::debug!(%error, "how far the store is was not kept"),
        }
        tokio::time::sleep(KEEP).await;
    }
}

const KEEP: Duration = Duration::from_secs(2);

/// Serves on these listeners, with everything that goes on by itself, until `shutdown` is
/// cancelled.
pub async fn serve(
    control: &Control,
    api: TcpListener,
    inside: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    background::heartbeat::announce(control).await?;
    let tasks = background::start(control);
    tracing::info!(
        instance = %control.name, api = %api.local_addr()?, internal = %inside.local_addr()?, "ready"
    );
    let mut servers = tokio::task::JoinSet::new();
    let (router, told) = (api::router(control, true), shutdown.clone());
    servers.spawn(async move {
        let served = axum::serve(api, router)
            .with_graceful_shutdown(told.cancelled_owned())
            .await;
        served.map_err(anyhow::Error::from)
    });
    let (router, told) = (internal::router(control), shutdown.clone());
    let credentials = control.credentials.clone();
    servers.spawn(async move {
        let served = undine_link::serve(inside, &credentials, router, told.cancelled_owned()).await;
        served.map_err(anyhow::Error::from)
    });
    // Told to systemd, where it started us; elsewhere nobody listens.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    shutdown.cancelled().await;
    drop(tasks);
    // Long polls and streams would hold us for long; their clients call again elsewhere.
    let _ = tokio::time::timeout(Duration::from_secs(3), servers.join_all()).await;
    control.store.close().await;
    Ok(())
}

/// The instance of a state directory.
pub async fn open(state: &StateDir, failpoints: Failpoints) -> anyhow::Result<Control> {
    let instance = state.instance()?;
    let store = Store::connect(&instance.store_url)
        .await
        .context("the store cannot be opened")?;
    store
        .migrate()
        .await
        .context("the store's schema cannot be brought up to date")?;
    memory::at_start(&store, state)
        .await
        .context("what the store remembers cannot be told")?;
    let secrets = state.secrets()?;
    let credentials = fresh_credentials(state, &store, &secrets).await?;
    Control::new(Parts {
        id: instance.instance,
        name: instance.name,
        store,
        store_url: instance.store_url,
        secrets,
        credentials,
        blobs: state.blobs(),
        fence_agents: vec![state.fence_agents(), "/usr/sbin".into()],
        failpoints,
    })
    .await
}

/// An instance that has run for so long that its certificate would end within this time ends in
/// order: whoever supervises it starts it again, and a start renews.
const END_BEFORE_S: i64 = 20 * 24 * 3_600;
/// Renewed at a start when less than this is left of the ninety days.
const RENEW_BEFORE_MS: i64 = 60 * 24 * 3_600_000;

/// An instance holds the authority's key: it renews its own certificate.
async fn fresh_credentials(
    state: &StateDir,
    store: &Store,
    secrets: &crate::secrets::Secrets,
) -> anyhow::Result<Credentials> {
    let kept = Credentials::load(state.path())?;
    if kept.expires_unix_s()? * 1000 - now_ms() > RENEW_BEFORE_MS {
        return Ok(kept);
    }
    let authority = load_authority(store, secrets, CLUSTER_CA).await?;
    let (key, csr) = undine_link::csr()?;
    let identity = Identity {
        role: Role::Control,
        id: kept.identity()?.id,
    };
    let certificate = authority.issue(&csr, &identity, now_utc())?;
    let fresh = Credentials {
        key,
        certificate,
        ca: kept.ca,
    };
    fresh.save(state.path())?;
    Ok(fresh)
}
