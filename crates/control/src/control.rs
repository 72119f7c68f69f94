//! One instance of control: what every use case, operation and reconciler works with.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use undine_api::internal::ClusterNetwork;
use undine_link::{Authority, Credentials};
use undine_model::{InstanceId, Slug};
use undine_store::{Db, Store};

use crate::app::brand::Brands;
use crate::app::dns::DnsBook;
use crate::app::tail::Tails;
use crate::asking::AskBook;
use crate::blobs::Blobs;
use crate::clock::now_ms;
use crate::failpoint::Failpoints;
use crate::heard::HeardBook;
use crate::leases::LeaseBook;
use crate::manifests::PushLocks;
use crate::nodes::NodeClients;
use crate::secrets::Secrets;
use crate::slots::SlotBook;

/// The version of this program.
pub const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// What is the same for the whole cluster; made by `init`, kept in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// The panel is at `panel.<domain>`.
    pub domain: String,
    /// Its networks.
    pub network: ClusterNetwork,
    /// Versioned machine type of new servers.
    pub machine: String,
    /// CPU baseline of new servers.
    pub cpu_model: String,
    /// How many times a node's CPUs may be promised.
    pub cpu_overcommit: u32,
    /// How many times a server's disk may be promised to its sites.
    pub disk_overcommit: u32,
    /// How many sites a server takes at most.
    pub sites_per_server: u32,
}

/// Where visitors reach the edges, for the URLs that the API shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicPorts {
    /// Plain HTTP.
    pub http: u16,
    /// TLS.
    pub https: u16,
}

impl PublicPorts {
    /// The setting that holds them.
    pub const KEY: &'static str = "public_ports";
}

impl Default for PublicPorts {
    fn default() -> Self {
        Self {
            http: 80,
            https: 443,
        }
    }
}

impl Cluster {
    /// The setting that holds it.
    pub const KEY: &'static str = "cluster";

    /// The host name of panel and API.
    pub fn panel_host(&self) -> String {
        format!("panel.{}", self.domain)
    }
}

/// An authority as the store keeps it.
#[derive(Serialize, Deserialize)]
struct KeptAuthority {
    certificate: String,
    sealed_key: String,
}

/// The cluster's own authority.
pub const CLUSTER_CA: &str = "ca.cluster";
/// The authority of sites without a public certificate.
pub const SITES_CA: &str = "ca.sites";

/// Makes an authority, once in the life of a cluster, and keeps it.
pub async fn make_authority(
    store: &Store,
    secrets: &Secrets,
    key: &str,
    name: &str,
) -> anyhow::Result<()> {
    let (authority, private) = Authority::create(name, crate::clock::now_utc())?;
    let kept = KeptAuthority {
        certificate: authority.certificate_pem().to_owned(),
        sealed_key: secrets.seal(key, private.as_bytes()),
    };
    store.settings().put_new(key, &kept, now_ms()).await?;
    Ok(())
}

/// Reads an authority.
pub async fn load_authority(
    store: &Store,
    secrets: &Secrets,
    key: &str,
) -> anyhow::Result<Authority> {
    let kept: KeptAuthority = store.settings().get(key).await?.ok_or_else(|| {
        anyhow::anyhow!(
            "the store has no authority `{key}`; was it set up by `undine-control init`?"
        )
    })?;
    Ok(Authority::from_pem(
        &kept.certificate,
        &secrets.open(key, &kept.sealed_key)?,
    )?)
}

/// One instance of control. Clones are the same instance.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

/// What an instance has.
pub struct Inner {
    /// Who it is.
    pub id: InstanceId,
    /// Its name.
    pub name: Slug,
    /// The records.
    pub store: Store,
    /// Where the store is, for further instances.
    pub store_url: String,
    /// Seals and opens secrets.
    pub secrets: Secrets,
    /// What is the same for the whole cluster.
    pub cluster: Cluster,
    /// Its key and certificate.
    pub credentials: Credentials,
    /// The cluster's authority.
    pub authority: Authority,
    /// The authority of sites.
    pub sites_authority: Authority,
    /// Calls to nodes.
    pub nodes: NodeClients,
    /// Files by hash.
    pub blobs: Blobs,
    /// Renewals that are not yet written.
    pub leases: LeaseBook,
    /// When each node was last heard by this instance.
    pub heard: HeardBook,
    /// Whom it asks about nodes that are silent.
    pub asking: AskBook,
    /// What the owners of servers have confirmed about their disks.
    pub slots: SlotBook,
    /// Copies are to be looked after at once.
    pub copies_due: Notify,
    /// What was looked up in DNS lately.
    pub dns: DnsBook,
    /// Mail is to be sent at once.
    pub mail_due: Notify,
    /// One push at a time to each server.
    pub pushes: PushLocks,
    /// How the panel looks, as it was read last.
    pub brands: Brands,
    /// Where programs that cut power are looked for.
    pub fence_agents: Vec<PathBuf>,
    /// Where it dies, in tests.
    pub failpoints: Failpoints,
    /// An operation was made here.
    pub work: Notify,
    /// Who follows sites' logs here.
    pub tails: Tails,
    /// When this process started.
    pub started_at: i64,
    /// The life of the store that it was started in: what it read belongs to that one.
    pub term: u64,
    /// Cancelled when another life has begun: whoever runs it ends it.
    pub outlived: CancellationToken,
}

/// What an instance is made from.
pub struct Parts {
    /// Who it is.
    pub id: InstanceId,
    /// Its name.
    pub name: Slug,
    /// The records.
    pub store: Store,
    /// Where the store is.
    pub store_url: String,
    /// Seals and opens secrets.
    pub secrets: Secrets,
    /// Its key and certificate.
    pub credentials: Credentials,
    /// Where its blobs lie.
    pub blobs: PathBuf,
    /// Where programs that cut power are looked for.
    pub fence_agents: Vec<PathBuf>,
    /// Where it dies, in tests.
    pub failpoints: Failpoints,
}

impl Control {
    /// An instance over a store that `init` has set up.
    pub async fn new(parts: Parts) -> anyhow::Result<Self> {
        let cluster = parts
            .store
            .settings()
            .get(Cluster::KEY)
            .await?
            .ok_or_else(|| {
                anyhow::anyhow!("the store has not been set up by `undine-control init`")
            })?;
        let term = parts.store.life().now().await?.term;
        let authority = load_authority(&parts.store, &parts.secrets, CLUSTER_CA).await?;
        let sites_authority = load_authority(&parts.store, &parts.secrets, SITES_CA).await?;
        Ok(Self(Arc::new(Inner {
            id: parts.id,
            name: parts.name,
            nodes: NodeClients::new(parts.credentials.clone(), term),
            blobs: Blobs::new(parts.blobs),
            leases: LeaseBook::default(),
            heard: HeardBook::default(),
            asking: AskBook::default(),
            slots: SlotBook::default(),
            copies_due: Notify::new(),
            dns: DnsBook::default(),
            mail_due: Notify::new(),
            pushes: PushLocks::default(),
            brands: Brands::default(),
            work: Notify::new(),
            tails: Tails::default(),
            started_at: now_ms(),
            term,
            outlived: CancellationToken::new(),
            store: parts.store,
            store_url: parts.store_url,
            secrets: parts.secrets,
            cluster,
            credentials: parts.credentials,
            authority,
            sites_authority,
            fence_agents: parts.fence_agents,
            failpoints: parts.failpoints,
        })))
    }
}

impl Deref for Control {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}
