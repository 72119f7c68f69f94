//! Hot-plugging what differs between servers: the data disk and the network card.
//!
//! The disk's stack is always the same, with one replica as with three:
//! `nbd` per replica → `quorum` whose threshold is the number of slots → `raw` → `virtio-blk-pci`.
//! A write is acknowledged to the guest only when every slot has it.

use serde_json::{Value, json};

use super::slots::{greeted, placeholder};
use super::{Vm, VmError};
use crate::command::{DATA_ROOT_PORT, DATA_SERIAL, NIC_ROOT_PORT};
use crate::psk::Psk;
use crate::qmp::QmpError;
use crate::storage::{ExportName, NbdAddress};

const DISK: &str = "data-disk";
const NIC: &str = "nic";
const NETDEV: &str = "net";
/// The disk's block nodes: what the device sees, and what spreads its writes over the slots.
pub(super) const TOP: &str = "data";
pub(super) const QUORUM: &str = "data-q";

/// One replica as the VM sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdChild {
    /// Where its daemon serves.
    pub address: NbdAddress,
    /// Its export.
    pub export: ExportName,
    /// What opens the encrypted connection; `None` for a plain one.
    pub key: Option<Psk>,
}

impl NbdChild {
    /// Its address as QEMU takes it.
    pub(crate) fn server(&self) -> Value {
        match &self.address {
            NbdAddress::Unix(path) => json!({"type": "unix", "path": path}),
            NbdAddress::Inet(address) => json!({"type": "inet", "host": address.ip().to_string(),
                "port": address.port().to_string()}),
        }
    }

    /// Its address in words.
    pub(super) fn at(&self) -> String {
        match &self.address {
            NbdAddress::Unix(path) => path.display().to_string(),
            NbdAddress::Inet(address) => address.to_string(),
        }
    }
}

/// The data disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDisk {
    /// Its replicas, in the order of the slots. Reads go to the first.
    pub replicas: Vec<NbdChild>,
    /// Its slots; those beyond `replicas` get placeholders. Never fewer than there are replicas.
    pub slots: usize,
}

impl DataDisk {
    /// A disk whose slots are all taken.
    pub fn full(replicas: Vec<NbdChild>) -> Self {
        let slots = replicas.len();
        Self { replicas, slots }
    }
}

/// The network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// A tap interface that exists already; it must belong to the VM's user.
    pub tap: String,
    /// The card's address.
    pub mac: String,
}

/// Whether there was anything to plug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugged {
    /// It is new; the guest notices within moments, or when continued.
    Now,
    /// It was there already.
    Before,
}

impl Vm {
    /// Hot-plugs the data disk. Replicas are asked first, since QEMU itself would hang on a silent
    /// one. The same disk plugged already is success; dying inside leaves block nodes that the
    /// next call clears away.
    pub async fn attach_data(&self, disk: &DataDisk) -> Result<Plugged, VmError> {
        if disk.replicas.is_empty() {
            return Err(VmError::NoReplica);
        }
        if self.has_device(DISK).await? {
            return self.same_disk(disk).await;
        }
        for (slot, child) in disk.replicas.iter().enumerate() {
            greeted(slot, child).await?;
        }
        self.clear_nodes().await?;
        if let Err(error) = self.add_disk(disk).await {
            // Leaves nothing half-plugged; the first error is the one to tell.
            let _ = self.clear_nodes().await;
            return Err(error);
        }
        Ok(Plugged::Now)
    }

    async fn add_disk(&self, disk: &DataDisk) -> Result<(), VmError> {
        let taken = disk.replicas.len();
        let slots = disk.slots.max(taken);
        for (slot, child) in disk.replicas.iter().enumerate() {
            self.add_replica(slot, child).await?;
        }
        for slot in taken..slots {
            self.add_placeholder(slot).await?;
        }
        let replicas = (0..taken).map(child_node);
        let children: Vec<String> = replicas.chain((taken..slots).map(placeholder)).collect();
        let quorum = json!({"driver": "quorum", "node-name": QUORUM, "vote-threshold": votes(slots),
            "read-pattern": "fifo", "children": children});
        self.ask("blockdev-add", quorum).await?;
        let raw = json!({"driver": "raw", "node-name": TOP, "file": QUORUM});
        self.ask("blockdev-add", raw).await?;
        let device = json!({"driver": "virtio-blk-pci", "id": DISK, "bus": DATA_ROOT_PORT,
            "addr": "0.0", "drive": TOP, "serial": DATA_SERIAL, "write-cache": "on",
            "werror": "stop", "rerror": "stop"});
        self.ask("device_add", device).await.map(drop)
    }

    /// Compares the plugged disk's exports with the wanted ones.
    async fn same_disk(&self, disk: &DataDisk) -> Result<Plugged, VmError> {
        let nodes = self.data_nodes().await?;
        let children = nodes.iter().filter(|node| node.name.starts_with("data-c"));
        let same = children.clone().count() == disk.replicas.len()
            && disk.replicas.iter().enumerate().all(|(slot, child)| {
                let wanted = child.export.to_string();
                let mut children = children.clone();
                children.any(|node| node.name == child_node(slot) && node.file.contains(&wanted))
            });
        if same {
            Ok(Plugged::Before)
        } else {
            Err(VmError::OtherPlugged { what: "data disk" })
        }
    }

    /// Removes block nodes that a dead predecessor left without their device.
    async fn clear_nodes(&self) -> Result<(), VmError> {
        let mut names: Vec<String> = self
            .data_nodes()
            .await?
            .into_iter()
            .map(|node| node.name)
            .collect();
        // Users before what they use: raw, quorum, children.
        names.sort_by_key(|name| (name != TOP, name != QUORUM));
        for name in names {
            self.ask("blockdev-del", json!({"node-name": name})).await?;
        }
        Ok(())
    }

    /// The data disk's block nodes and what they point to.
    pub(super) async fn data_nodes(&self) -> Result<Vec<DataNode>, VmError> {
        let nodes = self
            .ask("query-named-block-nodes", json!({"flat": true}))
            .await?;
        let nodes = nodes.as_array().cloned().unwrap_or_default();
        let text = |node: &Value, name: &str| node[name].as_str().unwrap_or_default().to_owned();
        let nodes = nodes.iter().map(|node| DataNode {
            name: text(node, "node-name"),
            file: text(node, "file"),
            size: node["image"]["virtual-size"].as_u64().unwrap_or_default(),
        });
        Ok(nodes
            .filter(|node| node.name == TOP || node.name.starts_with("data-"))
            .collect())
    }

    /// Hot-plugs the network card on its tap. The same card plugged already is success; dying
    /// inside leaves a back end that the next call clears away.
    pub async fn attach_nic(&self, nic: &Nic) -> Result<Plugged, VmError> {
        if self.has_device(NIC).await? {
            let path = format!("/machine/peripheral/{NIC}");
            let mac = self
                .ask("qom-get", json!({"path": path, "property": "mac"}))
                .await?;
            let same = mac
                .as_str()
                .is_some_and(|mac| mac.eq_ignore_ascii_case(&nic.mac));
            let other = VmError::OtherPlugged {
                what: "network card",
            };
            return if same {
                Ok(Plugged::Before)
            } else {
                Err(other)
            };
        }
        self.clear_netdev().await?;
        let netdev = json!({"type": "tap", "id": NETDEV, "ifname": nic.tap, "script": "no",
            "downscript": "no", "vhost": false});
        self.ask("netdev_add", netdev).await?;
        let device = json!({"driver": "virtio-net-pci", "id": NIC, "bus": NIC_ROOT_PORT,
            "addr": "0.0", "netdev": NETDEV, "mac": nic.mac, "romfile": ""});
        if let Err(error) = self.ask("device_add", device).await {
            let _ = self.clear_netdev().await;
            return Err(error);
        }
        Ok(Plugged::Now)
    }

    async fn clear_netdev(&self) -> Result<(), VmError> {
        match self.ask("netdev_del", json!({"id": NETDEV})).await {
            // Not there, as it should be.
            Ok(_) | Err(VmError::Qmp(QmpError::Refused { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn has_device(&self, id: &str) -> Result<bool, VmError> {
        let devices = self
            .ask("qom-list", json!({"path": "/machine/peripheral"}))
            .await?;
        Ok(devices
            .as_array()
            .is_some_and(|all| all.iter().any(|device| device["name"] == id)))
    }
}

/// One block node of the data disk.
#[derive(Debug)]
pub(super) struct DataNode {
    pub name: String,
    pub file: String,
    pub size: u64,
}

/// Votes that a write takes: every slot's. The chaos trial plants a mistake here.
const fn votes(slots: usize) -> usize {
    if cfg!(feature = "planted-threshold") {
        1
    } else {
        slots
    }
}

/// The replica's node in a slot.
pub(super) fn child_node(slot: usize) -> String {
    format!("data-c{slot}")
}

pub(super) fn nbd_node(slot: usize, child: &NbdChild) -> Value {
    json!({"driver": "nbd", "node-name": child_node(slot), "server": child.server(),
        "export": child.export.to_string()})
}

#[cfg(test)]
mod tests;
