//! The agent's life: open everything, serve, report, until told to end.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use undine_link::{ControlClient, Credentials};

use crate::agent::Agent;
use crate::blobs::Blobs;
use crate::cgroup::{Cgroup, Mounts};
use crate::files;
use crate::guard_file::GuardFile;
use crate::host::{Choice, Host};
use crate::images::Images;
use crate::net::{self, Interfaces, Network};
use crate::replicas::{self, Replicas};
use crate::report::{self, Changed};
use crate::server::{Ground, phase, record};
use crate::settings::{RunSettings, Settings, identity_folder};
use crate::spares::{self, Spares};
use crate::templates::Templates;
use crate::templates::peers::Agents;
use crate::terms::Terms;
use crate::uids::Uids;
use crate::{api, metrics, renew};

/// First port of exports to other nodes' servers.
const FIRST_EXPORT_PORT: u16 = 21_000;

/// How the agent's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Told,
    /// It has a new certificate: begin again with it.
    Renewed,
}

/// Runs the agent. `ready` is called once it serves; `stop` ends it, servers go on.
///
/// # Errors
/// Something is missing or taken, in one sentence.
pub async fn run(
    settings: Settings,
    run: RunSettings,
    choice: Choice,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> anyhow::Result<End> {
    let _lock = lock(&run.state_dir)?;
    let folder = identity_folder(&run.state_dir);
    let credentials = Credentials::load(&folder)?;
    let control = ControlClient::new(credentials.clone(), &settings.control)?;
    let listener = listen(settings.address).await?;
    let ground = Arc::new(ground(&settings, &run, choice, control.clone(), &credentials).await?);
    let keeping = tokio::spawn(spares::keep(ground.clone()));
    let agent = Agent::new(ground.clone(), settings.declared.clone());
    if let Some(address) = run.metrics_listen {
        let listener = listen(address).await?;
        let router = metrics::router(agent.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    tokio::spawn(report::run(agent.clone(), control.clone()));
    let (fresh, mut renewed) = mpsc::channel(1);
    let heard = move |_| {
        let _ = fresh.try_send(());
    };
    let state_dir = run.state_dir.clone();
    let known = settings.clone();
    let instances = move |found: &undine_api::internal::Instances| {
        let next = Settings {
            control: found.addresses.clone(),
            ..known.clone()
        };
        if !next.control.is_empty() && next.save(&state_dir).is_err() {
            tracing::warn!("control's new addresses could not be kept");
        }
    };
    tokio::spawn(renew::run(folder, control, heard, instances));
    let (end, ended) = watch::channel(false);
    let down = async move {
        let mut ended = ended;
        let _ = ended.wait_for(|ended| *ended).await;
    };
    let router = api::router(agent);
    let serving =
        tokio::spawn(async move { undine_link::serve(listener, &credentials, router, down).await });
    tracing::info!(node = %settings.node, name = settings.name.as_str(), address = %settings.address, "node serves");
    ready();
    let how = tokio::select! {
        () = stop => End::Told,
        Some(()) = renewed.recv() => End::Renewed,
    };
    end.send_replace(true);
    // Requests that are under way get a moment; a long upload is sent again.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(3), serving).await;
    // Servers go on without an agent; what nobody is yet does not.
    keeping.abort();
    let _ = keeping.await;
    ground.spares.sweep().await?;
    Ok(how)
}

async fn ground(
    settings: &Settings,
    run: &RunSettings,
    choice: Choice,
    control: ControlClient,
    credentials: &Credentials,
) -> anyhow::Result<Ground> {
    let state_dir = &run.state_dir;
    let host = Host::open(state_dir, choice).await.map_err(|error| {
        anyhow::Error::new(error)
            .context("QEMU is missing: install qemu-system-x86 (10 or newer) and qemu-utils")
    })?;
    for folder in [
        state_dir,
        &run.run_dir,
        &run.run_dir.join("vm"),
        &run.run_dir.join("disk"),
        &run.run_dir.join("join"),
        &run.run_dir.join("spare"),
    ] {
        files::make_folder(folder)?;
        // VMs and daemons run as other users and pass through; what is secret is 0600 itself.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
    }
    let uids = Arc::new(Uids::open(state_dir, run.uid_base, run.uid_count)?);
    let cgroup = Cgroup::new(Mounts::detect()?, &run.cgroup);
    let changed = Changed::default();
    let images = Arc::new(Images::open(
        state_dir.join("images"),
        Arc::new(Blobs::new(control)),
    )?);
    let replicas = Replicas::open(replicas::Ground {
        state_dir: state_dir.clone(),
        run_dir: run.run_dir.clone(),
        uids: uids.clone(),
        cgroup: cgroup.clone(),
        address: settings.address,
        first_port: FIRST_EXPORT_PORT,
        changed: changed.clone(),
        storage_daemon: run.storage_daemon.clone(),
    })
    .await?;
    let templates = Templates::open(
        state_dir.join("templates"),
        run.run_dir.clone(),
        uids.clone(),
        cgroup.clone(),
    )?
    .with_peers(Arc::new(Agents(credentials.clone())));
    let spares = Spares::open(&run.run_dir, uids.clone(), &cgroup, run.spares).await?;
    let network = if run.no_network {
        None
    } else {
        Some(network(settings, run).await?)
    };
    Ok(Ground {
        node: settings.node,
        address: settings.address,
        edges: settings.network.edges.clone(),
        state_dir: state_dir.clone(),
        run_dir: run.run_dir.clone(),
        cgroup,
        host,
        uids,
        images,
        replicas,
        templates,
        spares,
        network,
        guarded: GuardFile::open(state_dir),
        terms: Terms::open(state_dir)?,
        changed,
    })
}

async fn network(settings: &Settings, run: &RunSettings) -> anyhow::Result<Network> {
    let interfaces = Interfaces {
        uplink: settings.server_uplink.clone(),
        egress: settings.egress_interface.clone(),
        denied: run.egress_deny.clone(),
    };
    // Servers that may be running keep their taps and rules from the first moment on.
    let mut known = Vec::new();
    for server in record::known(&run.state_dir) {
        let record = record::Record::new(&run.state_dir, server);
        if let (Ok(Some(state)), Ok(Some(spec))) = (record.state(), record.spec())
            && phase::has_vm(state.phase)
        {
            known.push((server, spec.network));
        }
    }
    let network = Network::set_up(&settings.network, &interfaces, &known).await?;
    let resolver = net::resolver_settings(&settings.network)?;
    net::resolver::supervise(&run.run_dir.join("resolver"), &resolver)?;
    Ok(network)
}

/// Two agents on one state folder would be two owners of every VM.
fn lock(state_dir: &Path) -> anyhow::Result<File> {
    files::make_folder(state_dir)?;
    let file = File::create(state_dir.join("lock"))?;
    file.try_lock().map_err(|_| {
        anyhow::anyhow!(
            "another undine-node runs with the state folder {}",
            state_dir.display()
        )
    })?;
    Ok(file)
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!("cannot listen on {address}: {error}; is another program using the port, or is the address not on this machine?")
    })
}
