//! The nodes' network on one machine: a namespace a node, and one that plays the switches of the
//! management network and of the servers' network.

use anyhow::{Context, Result};

use super::layout::{self, MANAGEMENT_HOST, NodePlace, PREFIX, SERVER_HOST, SERVER_HOST6, SWITCH};
use crate::command::{ask, command, output};

/// The interfaces of this machine's own namespace.
const HOST_MANAGEMENT: &str = "undine-m";
const HOST_SERVERS: &str = "undine-s";

/// Makes what is not there yet.
pub fn ensure(nodes: &[NodePlace]) -> Result<()> {
    if !exists(SWITCH)? {
        make_switch().context("the switch could not be made")?;
    }
    for node in nodes {
        if !exists(&node.namespace)? {
            make_node(node).with_context(|| format!("{} could not be made", node.namespace))?;
        }
    }
    Ok(())
}

/// The namespaces of ours that are there.
pub fn namespaces() -> Result<Vec<String>> {
    let text = ask("ip", &["netns", "list"])?;
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names
        .filter(|name| name.starts_with(PREFIX))
        .map(str::to_owned)
        .collect())
}

/// Removes namespaces and interfaces; what is gone already is no error.
pub fn remove() -> Result<()> {
    for name in namespaces()? {
        ask("ip", &["netns", "delete", &name])?;
    }
    for link in [HOST_MANAGEMENT, HOST_SERVERS] {
        if ask("ip", &["link", "show", link]).is_ok() {
            ask("ip", &["link", "delete", link])?;
        }
    }
    Ok(())
}

fn exists(namespace: &str) -> Result<bool> {
    Ok(namespaces()?.iter().any(|name| name == namespace))
}

fn ip(arguments: &str) -> Result<()> {
    output(&mut command("ip", arguments.split_whitespace())).map(drop)
}

fn make_switch() -> Result<()> {
    remove()?;
    ip(&format!("netns add {SWITCH}"))?;
    ip(&format!("-n {SWITCH} link set lo up"))?;
    for bridge in ["management", "servers"] {
        ip(&format!(
            "-n {SWITCH} link add {bridge} type bridge forward_delay 0"
        ))?;
        // A switch that snoops multicast without a querier would lose neighbour discovery.
        ip(&format!(
            "-n {SWITCH} link set {bridge} type bridge mcast_snooping 0"
        ))?;
        ip(&format!("-n {SWITCH} link set {bridge} up"))?;
    }
    plug("", HOST_MANAGEMENT, "m-host", "management")?;
    plug("", HOST_SERVERS, "s-host", "servers")?;
    ip(&format!(
        "addr add {MANAGEMENT_HOST}/24 dev {HOST_MANAGEMENT}"
    ))?;
    ip(&format!("addr add {SERVER_HOST}/16 dev {HOST_SERVERS}"))?;
    ip(&format!(
        "addr add {SERVER_HOST6}/64 dev {HOST_SERVERS} nodad"
    ))
}

/// A cable from an interface (in a namespace, or in this machine's own) to a port of a bridge.
fn plug(namespace: &str, interface: &str, port: &str, bridge: &str) -> Result<()> {
    let place = if namespace.is_empty() {
        String::new()
    } else {
        format!("-n {namespace} ")
    };
    ip(&format!(
        "{place}link add {interface} type veth peer name {port} netns {SWITCH}"
    ))?;
    ip(&format!("-n {SWITCH} link set {port} master {bridge} up"))?;
    ip(&format!("{place}link set {interface} up"))
}

fn make_node(node: &NodePlace) -> Result<()> {
    let (namespace, address) = (&node.namespace, &node.address);
    let number = namespace.trim_start_matches(PREFIX);
    ip(&format!("netns add {namespace}"))?;
    ip(&format!("-n {namespace} link set lo up"))?;
    plug(namespace, "mgmt0", &format!("m-{number}"), "management")?;
    plug(namespace, "srv0", &format!("s-{number}"), "servers")?;
    ip(&format!("-n {namespace} addr add {address}/24 dev mgmt0"))?;
    ip(&format!(
        "-n {namespace} route add default via {}",
        layout::MANAGEMENT_HOST
    ))
}
