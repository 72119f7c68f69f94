//! The guard's life: ten times a second the brain says what is due, and that is begun; answers
//! come back to it when they come.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use undine_api::guard::Peer;
use undine_api::internal::{LeaseAnswer, LeaseRequest};
use undine_link::{CallError, ControlClient, Credentials, Method};
use undine_model::NodeId;

use crate::brain::Do;
use crate::hands::Hands;
use crate::lease::State;
use crate::served;
use crate::shared::{Shared, boot_id, boottime_ms};
use crate::status::{self, Status};
use crate::witness::Witness;
use crate::{api, metrics, renew};

/// How often the brain is asked.
const TICK: Duration = Duration::from_millis(100);
/// The agent's list is read, and the status written, every so many ticks.
const FILES_EVERY: u64 = 5;
/// An instance that has not answered by then is passed over for the next one.
const DEADLINE: Duration = Duration::from_millis(900);
/// A port that is taken is tried again: renewing does not wait for it.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// With less than this left of the lease, control is asked by new connections.
const RECONNECT_LEFT_MS: u64 = 600;

/// What the guard is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its node.
    pub node: NodeId,
    /// The folder with its key and certificate; the agent's list and its own files lie there too.
    pub folder: PathBuf,
    /// Control's instances.
    pub control: Vec<SocketAddr>,
    /// Where it answers control and other guards.
    pub listen: SocketAddr,
    /// Where Prometheus may ask.
    pub metrics_listen: Option<SocketAddr>,
}

/// How the guard's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Told,
    /// It has a new certificate: begin again with it.
    Renewed,
}

/// Guards until told to end. `alive` is called at every tick, for a watchdog.
///
/// # Errors
/// The credentials are not usable, or the metrics address is taken.
pub async fn run(
    settings: Settings,
    alive: impl Fn(),
    stop: impl Future<Output = ()>,
) -> anyhow::Result<End> {
    let credentials = Credentials::load(&settings.folder)?;
    let expires = credentials.expires_unix_s()?;
    let control = ControlClient::new(credentials.clone(), &settings.control)?;
    let shared = Arc::new(Shared::open(&settings.folder, &boot_id(), boottime_ms()));
    let witness = Arc::new(Witness::new(credentials.clone()));
    if let Some(address) = settings.metrics_listen {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| anyhow::anyhow!("cannot listen on {address}: {error}"))?;
        tokio::spawn(metrics::serve(listener, shared.clone()));
    }
    let served = Arc::new(api::Served {
        node: settings.node,
        shared: shared.clone(),
        witness: witness.clone(),
    });
    let keeper = Keeper {
        hands: Hands::new(shared.clone()),
        shared,
        control: control.clone(),
        witness,
    };
    tokio::select! {
        () = stop => Ok(End::Told),
        () = renew::until_renewed(&settings.folder, &control, expires) => Ok(End::Renewed),
        () = keeper.keep(alive) => Ok(End::Told),
        () = answer(settings.listen, &credentials, served) => Ok(End::Told),
    }
}

/// Answers control and other guards, for ever.
async fn answer(address: SocketAddr, credentials: &Credentials, served: Arc<api::Served>) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let router = api::router(served.clone());
                let serving =
                    undine_link::serve(listener, credentials, router, std::future::pending());
                if let Err(error) = serving.await {
                    tracing::warn!(%error, "nobody is answered");
                }
            }
            Err(error) => tracing::warn!(%address, %error, "cannot listen; it is tried again"),
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// What the keeping of the lease needs.
struct Keeper {
    shared: Arc<Shared>,
    control: ControlClient,
    witness: Arc<Witness>,
    hands: Hands,
}

impl Keeper {
    async fn keep(&self, alive: impl Fn()) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut last = None;
        for count in 0_u64.. {
            tick.tick().await;
            alive();
            if count % FILES_EVERY == 0 {
                self.read_list();
            }
            let now_ms = boottime_ms();
            let due = self.shared.brain().tick(now_ms);
            for due in due {
                self.begin(due, now_ms);
            }
            let status = status::of(&self.shared.brain(), now_ms);
            let seen = (status.state, status.isolated);
            if last != Some(seen) {
                tell(&status);
            }
            if last != Some(seen) || count % FILES_EVERY == 0 {
                self.shared.keep_status(&status);
            }
            last = Some(seen);
        }
    }

    fn read_list(&self) {
        match served::read(self.shared.folder()) {
            Ok(served) => {
                let changed = self.shared.brain().serves(served);
                if changed {
                    self.shared.keep_ledger();
                }
            }
            Err(error) => tracing::warn!(%error, "the agent's list of servers cannot be read"),
        }
    }

    fn begin(&self, due: Do, now_ms: u64) {
        match due {
            Do::Ask(request) => self.ask(request, now_ms),
            Do::Probe(peer) => self.probe(peer, now_ms),
            Do::Pause(served) => self.hands.pause(served),
            Do::Continue(served, entry) => self.hands.go_on(served, entry),
        }
    }

    /// Sends a renewal, also while an earlier one is not answered yet.
    fn ask(&self, request: LeaseRequest, now_ms: u64) {
        let left_ms = self.shared.brain().lease().left_ms(now_ms);
        if request.number > 1 && left_ms < RECONNECT_LEFT_MS {
            // What a broken link has swallowed is repeated ever more rarely; a new connection
            // gets through at once.
            self.control.reconnect();
        }
        let (control, shared) = (self.control.clone(), self.shared.clone());
        tokio::spawn(async move {
            let answer: Result<LeaseAnswer, CallError> = control
                .call(Method::POST, "/internal/v1/lease", Some(&request), DEADLINE)
                .await;
            match answer {
                Ok(answer) => heard(&shared, answer),
                Err(error) => tracing::debug!(%error, "renewal not answered"),
            }
        });
    }

    fn probe(&self, peer: Peer, sent_ms: u64) {
        let (witness, shared) = (self.witness.clone(), self.shared.clone());
        tokio::spawn(async move {
            let found = witness.reach(&peer).await;
            shared.brain().probed(&peer, sent_ms, found.reachable);
        });
    }
}

fn heard(shared: &Shared, answer: LeaseAnswer) {
    let news = shared.brain().answered(answer);
    if news.peers {
        shared.keep_peers();
    }
    if !news.stay.is_empty() {
        shared.keep_ledger();
    }
    for server in news.stay {
        tracing::warn!(
            %server,
            "stays paused: it is owned elsewhere, or at another epoch; its agent has to end it"
        );
    }
}

fn tell(status: &Status) {
    let state = status.state.as_str();
    if status.isolated {
        tracing::warn!(state, "cut off from control and from most peers");
    } else if status.state == State::Held {
        tracing::info!(state, "lease");
    } else {
        tracing::warn!(state, "control does not answer; servers go on");
    }
}
