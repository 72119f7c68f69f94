//! `init`: makes a cluster with its first instance.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use undine_api::internal::{ClusterNetwork, Role};
use undine_link::{Credentials, Identity};
use undine_model::{InstanceId, Slug};
use undine_store::{Db, Role as TokenRole, Store};

use super::import::{self, Imports};
use crate::app::{joining, plans, tokens};
use crate::clock::{new_id, now_ms, now_utc};
use crate::control::{CLUSTER_CA, Cluster, PublicPorts, SITES_CA, load_authority, make_authority};
use crate::secrets::Secrets;
use crate::state_dir::{InstanceFile, StateDir};

/// What a new cluster is to be.
#[derive(Debug, Clone)]
pub struct Init {
    /// Where the instance keeps its state.
    pub state_dir: PathBuf,
    /// Where the store is.
    pub store_url: String,
    /// Name of the first instance.
    pub name: Slug,
    /// The panel is at `panel.<domain>`.
    pub domain: String,
    /// Where nodes, edges and other instances reach this one.
    pub internal_address: SocketAddr,
    /// Networks of nodes, control and edges, which no server may reach.
    pub management: Vec<String>,
    /// The servers' IPv4 network.
    pub servers_ipv4: String,
    /// The servers' IPv6 network.
    pub servers_ipv6: String,
    /// The edges' addresses in the servers' network.
    pub edges: Vec<IpAddr>,
    /// Machine type of new servers.
    pub machine: String,
    /// CPU baseline of new servers.
    pub cpu_model: String,
    /// Where visitors reach the edges.
    pub ports: PublicPorts,
    /// What to take in at once.
    pub imports: Imports,
}

/// The router's hardware address, the same on every node.
const GATEWAY_MAC: &str = "02:75:6e:00:00:01";

impl Init {
    fn cluster(&self) -> anyhow::Result<Cluster> {
        let ipv4: ipnet::Ipv4Net = self
            .servers_ipv4
            .parse()
            .context("--server-network-ipv4 is no network")?;
        let ipv6: ipnet::Ipv6Net = self
            .servers_ipv6
            .parse()
            .context("--server-network-ipv6 is no network")?;
        for network in &self.management {
            network
                .parse::<ipnet::IpNet>()
                .with_context(|| format!("{network} is no network"))?;
        }
        ensure!(
            (8..=22).contains(&ipv4.prefix_len()),
            "--server-network-ipv4 needs room for servers and must number them with 24 bits: /8 to /22"
        );
        ensure!(
            ipv6.prefix_len() <= 64,
            "--server-network-ipv6 holds an address for every server and epoch: /64 or larger"
        );
        let first4 = std::net::Ipv4Addr::from(u32::from(ipv4.network()) + 1);
        let first6 = std::net::Ipv6Addr::from(u128::from(ipv6.network()) + 1);
        Ok(Cluster {
            domain: self.domain.clone(),
            network: ClusterNetwork {
                management: self.management.clone(),
                servers_ipv4: ipv4.to_string(),
                servers_ipv6: ipv6.to_string(),
                gateways: vec![first4.into(), first6.into()],
                gateway_mac: GATEWAY_MAC.to_owned(),
                edges: self.edges.clone(),
            },
            machine: self.machine.clone(),
            cpu_model: self.cpu_model.clone(),
            cpu_overcommit: 4,
            disk_overcommit: 20,
            sites_per_server: 5_000,
        })
    }
}

/// Makes the cluster; answers the provider's first token.
pub async fn init(wish: &Init) -> anyhow::Result<String> {
    let state = StateDir::new(&wish.state_dir);
    if state.is_taken() {
        bail!(
            "{} already holds an instance of control; nothing was changed",
            wish.state_dir.display()
        );
    }
    let cluster = wish.cluster()?;
    state.create()?;
    let store = Store::connect(&wish.store_url)
        .await
        .context("the store cannot be opened")?;
    store
        .migrate()
        .await
        .context("the store's schema cannot be made")?;
    if store.settings().find(Cluster::KEY).await?.is_some() {
        bail!("this store already holds a cluster; `undine-control join` adds an instance to it");
    }
    let secrets = Secrets::generate();
    state.write_secrets(&secrets)?;
    make_authority(&store, &secrets, CLUSTER_CA, "Undine cluster authority").await?;
    make_authority(&store, &secrets, SITES_CA, "Undine sites authority").await?;
    let id = credentials(&state, &store, &secrets).await?;
    let instance = joining::instance(id, wish.name.clone(), wish.internal_address, now_ms());
    store.instances().insert(&instance).await?;
    import::import(&store, &state, &wish.imports).await?;
    let (token, secret) = tokens::fresh(
        "first provider token",
        TokenRole::Provider,
        None,
        vec![],
        None,
    );
    store.tokens().insert(&token).await?;
    state.write_private("provider-token", format!("{secret}\n").as_bytes())?;
    plans::make_standard(&store).await?;
    store
        .settings()
        .put(PublicPorts::KEY, &wish.ports, now_ms())
        .await?;
    store
        .settings()
        .put(Cluster::KEY, &cluster, now_ms())
        .await?;
    let link = super::owner_link::made(&store, &cluster.domain).await?;
    state.write_private("owner-link", format!("{link}\n").as_bytes())?;
    state.write_instance(&InstanceFile {
        instance: id,
        name: wish.name.clone(),
        internal_address: wish.internal_address,
        store_url: wish.store_url.clone(),
    })?;
    store.close().await;
    Ok(secret)
}

async fn credentials(
    state: &StateDir,
    store: &Store,
    secrets: &Secrets,
) -> anyhow::Result<InstanceId> {
    let id: InstanceId = new_id();
    let authority = load_authority(store, secrets, CLUSTER_CA).await?;
    let (key, csr) = undine_link::csr()?;
    let identity = Identity {
        role: Role::Control,
        id: id.to_string(),
    };
    let certificate = authority.issue(&csr, &identity, now_utc())?;
    let ca = authority.certificate_pem().to_owned();
    Credentials {
        key,
        certificate,
        ca,
    }
    .save(state.path())?;
    Ok(id)
}
