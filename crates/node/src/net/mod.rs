//! The node's part of the server network: bridge, taps, filter, resolver.
//!
//! Whatever is there already is taken over, so that the agent can restart under running servers;
//! the filter is replaced whole in one transaction, whenever a tap comes or goes.

pub mod links;
pub mod resolver;
pub mod rules;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use ipnet::IpNet;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Mutex;
use undine_api::internal::ClusterNetwork;
use undine_api::node::ServerNetwork;
use undine_model::ServerId;

use links::{LinkError, Links};
use rules::{Filter, Tap};

/// The bridge that holds the uplink and all taps.
pub const BRIDGE: &str = "br0";

/// The network could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// An interface.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The cluster's network is not usable.
    #[error("the cluster's network has `{0}`, which is not a network")]
    Network(String),
    /// nft refused the filter, or is not there.
    #[error("the packet filter could not be loaded: {0}")]
    Filter(String),
    /// A switch of the kernel could not be set.
    #[error("cannot set {path}; does this run as root?")]
    Sysctl {
        /// Which one.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Taps cannot be had.
    #[error("/dev/net/tun cannot be used: load the module tun, or give the agent the device")]
    NoTun(#[source] std::io::Error),
}

/// What differs from node to node.
#[derive(Debug, Clone, Default)]
pub struct Interfaces {
    /// To the other nodes and the edges.
    pub uplink: Option<String>,
    /// To the world.
    pub egress: Option<String>,
    /// Further networks that servers may never reach.
    pub denied: Vec<IpNet>,
}

/// The node's part of the server network.
pub struct Network {
    links: Links,
    filter: Mutex<Filter>,
    taps: std::sync::Mutex<BTreeMap<ServerId, Tap>>,
}

/// A server's tap: as much of its id as an interface name can hold.
pub fn tap_name(server: ServerId) -> String {
    let id = server.uuid().simple().to_string();
    format!("{}{}", rules::TAP_PREFIX, &id[id.len() - 12..])
}

fn tap(server: ServerId, network: &ServerNetwork) -> Tap {
    Tap {
        name: tap_name(server),
        mac: network.mac.clone(),
        ipv4: network.ipv4,
        ipv6: network.ipv6,
        ipv6_epoch: network.ipv6_epoch,
        smtp: network.smtp,
    }
}

fn nets<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<IpNet>, NetError> {
    texts
        .into_iter()
        .map(|text| text.parse().map_err(|_| NetError::Network(text.to_owned())))
        .collect()
}

/// The filter of a node without servers.
///
/// # Errors
/// The cluster's network is not usable.
pub fn filter(cluster: &ClusterNetwork, interfaces: &Interfaces) -> Result<Filter, NetError> {
    links::mac_bytes(&cluster.gateway_mac)?;
    let management = cluster.management.iter().map(String::as_str);
    let mut denied = nets(rules::PRIVATE.into_iter().chain(management))?;
    denied.extend(&interfaces.denied);
    Ok(Filter {
        bridge: BRIDGE.to_owned(),
        uplink: interfaces.uplink.clone(),
        egress: interfaces.egress.clone(),
        gateway_mac: cluster.gateway_mac.clone(),
        gateways: cluster.gateways.clone(),
        servers: nets([cluster.servers_ipv4.as_str(), cluster.servers_ipv6.as_str()])?,
        denied,
        taps: Vec::new(),
    })
}

impl Network {
    /// Sets everything up, with the taps of the servers that may be running here already.
    ///
    /// # Errors
    /// The kernel, or nft, said no.
    pub async fn set_up(
        cluster: &ClusterNetwork,
        interfaces: &Interfaces,
        known: &[(ServerId, ServerNetwork)],
    ) -> Result<Self, NetError> {
        let mut filter = filter(cluster, interfaces)?;
        let taps: BTreeMap<ServerId, Tap> = known
            .iter()
            .map(|(server, network)| (*server, tap(*server, network)))
            .collect();
        filter.taps = taps.values().cloned().collect();
        open_tun()?;
        // The filter stands before the first interface does.
        load(&filter.render()).await?;
        let links = Links::connect()?;
        links.bridge(BRIDGE, &filter.gateway_mac).await?;
        sysctls(interfaces)?;
        for ip in &filter.gateways {
            let net = filter.servers.iter().find(|net| net.contains(ip));
            links
                .address(BRIDGE, *ip, net.map_or(64, IpNet::prefix_len))
                .await?;
        }
        if let Some(uplink) = &interfaces.uplink {
            links.enslave(uplink, BRIDGE).await?;
        }
        for stray in links.names(rules::TAP_PREFIX).await? {
            if stray.len() == 14 && !filter.taps.iter().any(|tap| tap.name == stray) {
                tracing::info!(tap = stray, "removing a tap that belongs to no server");
                links.remove(&stray).await?;
            }
        }
        Ok(Self {
            links,
            filter: Mutex::new(filter),
            taps: std::sync::Mutex::new(taps),
        })
    }

    /// Makes a server's tap, filtered before it exists, for this user.
    ///
    /// # Errors
    /// The kernel, or nft, said no.
    pub async fn plug(
        &self,
        server: ServerId,
        network: &ServerNetwork,
        uid: u32,
    ) -> Result<String, NetError> {
        let tap = tap(server, network);
        links::mac_bytes(&tap.mac)?;
        self.reload(|taps| {
            taps.insert(server, tap.clone());
        })
        .await?;
        self.links.tap(&tap.name, uid).await?;
        self.links.enslave(&tap.name, BRIDGE).await?;
        Ok(tap.name)
    }

    /// Removes a server's tap.
    ///
    /// # Errors
    /// The kernel, or nft, said no.
    pub async fn unplug(&self, server: ServerId) -> Result<(), NetError> {
        self.links.remove(&tap_name(server)).await?;
        self.reload(|taps| {
            taps.remove(&server);
        })
        .await
    }

    async fn reload(
        &self,
        change: impl FnOnce(&mut BTreeMap<ServerId, Tap>),
    ) -> Result<(), NetError> {
        // Held over the load: two loads at once could leave the older one standing.
        let mut filter = self.filter.lock().await;
        {
            let mut taps = self
                .taps
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            change(&mut taps);
            filter.taps = taps.values().cloned().collect();
        }
        load(&filter.render()).await
    }
}

/// Loads a rendered filter in one transaction.
///
/// # Errors
/// nft refused it, or is not there.
pub async fn load(text: &str) -> Result<(), NetError> {
    let filter = |error: std::io::Error| {
        NetError::Filter(format!(
            "nft cannot be run ({error}); install Debian's package nftables"
        ))
    };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(filter)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).await.map_err(filter)?;
    }
    let output = child.wait_with_output().await.map_err(filter)?;
    if output.status.success() {
        return Ok(());
    }
    Err(NetError::Filter(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// Lets unprivileged VMs open their own taps, as Debian's udev does: the kernel checks the owner.
fn open_tun() -> Result<(), NetError> {
    let path = Path::new("/dev/net/tun");
    let mode = std::fs::metadata(path)
        .map_err(NetError::NoTun)?
        .permissions()
        .mode();
    if mode & 0o666 == 0o666 {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(NetError::NoTun)
}

/// Switches of this network namespace only.
fn sysctls(interfaces: &Interfaces) -> Result<(), NetError> {
    let bridge = |key: &str| format!("ipv4/conf/{BRIDGE}/{key}");
    let bridge6 = |key: &str| format!("ipv6/conf/{BRIDGE}/{key}");
    let mut wanted = vec![
        ("ipv4/ip_forward".to_owned(), "1"),
        ("ipv6/conf/all/forwarding".to_owned(), "1"),
        // The node's other addresses are nobody's business on the servers' side.
        (bridge("arp_ignore"), "1"),
        (bridge("arp_announce"), "2"),
        (bridge("send_redirects"), "0"),
        (bridge("rp_filter"), "1"),
        (bridge6("accept_ra"), "0"),
        // Every node has this address on purpose.
        (bridge6("accept_dad"), "0"),
    ];
    if let Some(egress) = &interfaces.egress {
        // Forwarding would otherwise switch off the node's own IPv6 configuration by its router.
        wanted.push((format!("ipv6/conf/{egress}/accept_ra"), "2"));
    }
    for (key, value) in wanted {
        let path = format!("/proc/sys/net/{key}");
        std::fs::write(&path, value).map_err(|source| NetError::Sysctl { path, source })?;
    }
    for family in ["ip", "ip6", "arp"] {
        // There only with br_netfilter: bridged frames are the bridge table's business alone.
        let _ = std::fs::write(
            format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables"),
            "0",
        );
    }
    Ok(())
}

/// What the resolver is told: it listens on the router's addresses.
///
/// # Errors
/// The cluster's network is not usable.
pub fn resolver_settings(cluster: &ClusterNetwork) -> Result<resolver::Settings, NetError> {
    let own: Vec<IpAddr> = cluster.gateways.clone();
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = passwd
        .lines()
        .any(|line| line.starts_with("unbound:"))
        .then(|| "unbound".to_owned());
    Ok(resolver::Settings {
        upstream: resolver::upstream(&resolv_conf, &own),
        listen: own,
        clients: nets([cluster.servers_ipv4.as_str(), cluster.servers_ipv6.as_str()])?,
        user,
    })
}
