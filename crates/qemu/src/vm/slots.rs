//! The data disk's slots while the VM runs: a failed replica leaves, another one takes its place.
//!
//! A slot holds the node `data-c<slot>` (a replica) or `data-p<slot>` (a placeholder that takes
//! writes and fails reads). Every function looks at what is there and does what is missing, so
//! each may be repeated after a crash in the middle of it. None of them lets the guest run on.

use std::time::Duration;

use serde_json::{Value, json};

use super::plug::{QUORUM, TOP, child_node, nbd_node};
use super::{NbdChild, Vm, VmError};
use crate::nbd;
use crate::psk;
use crate::qmp::QmpError;

/// How long a replica's NBD server may take to greet.
const GREETING_DEADLINE: Duration = Duration::from_secs(2);
/// A yank takes no time, whatever hangs.
const YANK_DEADLINE: Duration = Duration::from_secs(5);
/// Flushing all replicas takes as long as their disks need.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

/// What is in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotContent {
    /// A replica.
    Replica,
    /// A placeholder.
    Placeholder,
}

impl Vm {
    /// What the data disk's slots hold; empty without a data disk.
    pub async fn slots(&self) -> Result<Vec<SlotContent>, VmError> {
        let children = self.children().await?;
        let has = |name: String| children.iter().any(|(_, node)| *node == name);
        let content = |slot| match (has(child_node(slot)), has(placeholder(slot))) {
            // Both for a moment, while one takes the other's place: it receives writes.
            (true, _) => Some(SlotContent::Replica),
            (false, true) => Some(SlotContent::Placeholder),
            (false, false) => None,
        };
        Ok((0..).map_while(content).collect())
    }

    /// Releases whatever waits for the replica in this slot; its requests fail from then on. Works
    /// while QEMU's main loop hangs. A slot without a replica is success.
    pub async fn yank(&self, slot: usize) -> Result<(), VmError> {
        let instance = json!([{"type": "block-node", "node-name": child_node(slot)}]);
        let asked =
            self.qmp()
                .execute_out_of_band("yank", json!({"instances": instance}), YANK_DEADLINE);
        match asked.await {
            Ok(_) | Err(QmpError::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a placeholder into the slot in the replica's stead. Only after it is committed that
    /// the replica is not in sync: from here on writes are acknowledged without it.
    pub async fn swap_out(&self, slot: usize) -> Result<(), VmError> {
        self.yank(slot).await?;
        self.let_out(slot).await
    }

    /// The same for a replica that answers: what is under way to it ends in order, and the guest
    /// notices nothing. On one that does not answer it hangs until that is [`yank`](Self::yank)ed.
    pub async fn let_out(&self, slot: usize) -> Result<(), VmError> {
        if !self.has_node(&placeholder(slot)).await? {
            self.add_placeholder(slot).await?;
        }
        let children = self.children().await?;
        let edge = |name: &str| children.iter().find(|(_, node)| node == name);
        if edge(&placeholder(slot)).is_none() {
            self.add_child(&placeholder(slot)).await?;
        }
        if let Some((name, _)) = edge(&child_node(slot)) {
            self.remove_child(name).await?;
        }
        self.forget_replica(slot).await
    }

    /// Connects a replica that is to take this slot's place, without letting it: it is asked
    /// first, since QEMU itself would hang on a silent one.
    pub async fn prepare_in(&self, slot: usize, replica: &NbdChild) -> Result<(), VmError> {
        greeted(slot, replica).await?;
        self.forget_replica(slot).await?;
        self.add_replica(slot, replica).await
    }

    /// Lets the prepared replica take the placeholder's place. The VM stands still and the replica
    /// holds all that was written, flushed.
    pub async fn swap_in(&self, slot: usize) -> Result<(), VmError> {
        let children = self.children().await?;
        let edge = |name: &str| children.iter().find(|(_, node)| node == name);
        if edge(&child_node(slot)).is_none() {
            self.add_child(&child_node(slot)).await?;
        }
        if let Some((name, _)) = edge(&placeholder(slot)) {
            self.remove_child(name).await?;
        }
        if self.has_node(&placeholder(slot)).await? {
            self.delete_node(&placeholder(slot)).await?;
        }
        Ok(())
    }

    /// Disconnects a replica that was prepared and is in no slot; one in a slot is refused by
    /// QEMU. None there is success.
    pub async fn forget_replica(&self, slot: usize) -> Result<(), VmError> {
        if self.has_node(&child_node(slot)).await? {
            self.delete_node(&child_node(slot)).await?;
        }
        self.drop_key(slot).await
    }

    /// Disconnects a replica unless it is in the slot. Repeating is harmless.
    pub async fn forget_unslotted(&self, slot: usize) -> Result<(), VmError> {
        let children = self.children().await?;
        if children.iter().any(|(_, node)| *node == child_node(slot)) {
            return Ok(());
        }
        self.forget_replica(slot).await
    }

    /// Undoes a [`swap_in`](Self::swap_in) that failed anywhere: a placeholder is in the slot, and
    /// the replica, which nobody counts on yet, is disconnected.
    pub async fn back_out(&self, slot: usize) -> Result<(), VmError> {
        self.swap_out(slot).await
    }

    /// Waits until every write that was under way has ended on every replica, and flushes them
    /// all; an error when one of them could not. The guest hardly notices.
    pub async fn settle(&self) -> Result<(), VmError> {
        // Reopening a node as it is does exactly that.
        let same = json!([{"driver": "raw", "node-name": TOP, "file": QUORUM}]);
        let asked = json!({"options": same});
        self.qmp()
            .execute_within("blockdev-reopen", asked, SETTLE_DEADLINE)
            .await?;
        Ok(())
    }

    /// Adds the node of a replica, with its key where it has one.
    pub(super) async fn add_replica(&self, slot: usize, replica: &NbdChild) -> Result<(), VmError> {
        let mut node = nbd_node(slot, replica);
        if let Some(key) = &replica.key {
            self.drop_key(slot).await?;
            let folder = self.run_dir().psk();
            psk::write(&folder, key, self.run_dir().owner()?)?;
            let added = self
                .ask(
                    "object-add",
                    json!({"qom-type": "tls-creds-psk", "id": key_id(slot), "endpoint": "client",
                        "username": psk::USER, "dir": folder.to_str()}),
                )
                .await;
            // QEMU has read it.
            std::fs::remove_dir_all(&folder)?;
            added?;
            node["tls-creds"] = key_id(slot).into();
        }
        self.ask("blockdev-add", node).await.map(drop)
    }

    /// Adds a placeholder of the data disk's size: what is written to it vanishes, and reading
    /// from it is an error rather than zeros.
    pub(super) async fn add_placeholder(&self, slot: usize) -> Result<(), VmError> {
        let size = self.size_of_data().await?;
        let fail = json!([{"event": "none", "iotype": "read", "errno": 5}]);
        let node = json!({"driver": "blkdebug", "node-name": placeholder(slot),
            "image": {"driver": "null-co", "size": size, "read-zeroes": true},
            "inject-error": fail});
        self.ask("blockdev-add", node).await.map(drop)
    }

    async fn drop_key(&self, slot: usize) -> Result<(), VmError> {
        match self.ask("object-del", json!({"id": key_id(slot)})).await {
            // Not there, as it should be.
            Ok(_) | Err(VmError::Qmp(QmpError::Refused { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn add_child(&self, node: &str) -> Result<(), VmError> {
        let change = json!({"parent": QUORUM, "node": node});
        self.ask("x-blockdev-change", change).await.map(drop)
    }

    async fn remove_child(&self, name: &str) -> Result<(), VmError> {
        let change = json!({"parent": QUORUM, "child": name});
        self.ask("x-blockdev-change", change).await.map(drop)
    }

    async fn delete_node(&self, name: &str) -> Result<(), VmError> {
        let node = json!({"node-name": name});
        self.ask("blockdev-del", node).await.map(drop)
    }

    async fn has_node(&self, name: &str) -> Result<bool, VmError> {
        let nodes = self.data_nodes().await?;
        Ok(nodes.iter().any(|node| node.name == name))
    }

    async fn size_of_data(&self) -> Result<u64, VmError> {
        let nodes = self.data_nodes().await?;
        let size = nodes.iter().map(|node| node.size).find(|size| *size > 0);
        size.ok_or(VmError::NoReplica)
    }

    /// The quorum's children: each one's name in it, and its node.
    async fn children(&self) -> Result<Vec<(String, String)>, VmError> {
        let graph = self.ask("x-debug-query-block-graph", json!({})).await?;
        let list = |name: &str| graph[name].as_array().cloned().unwrap_or_default();
        let nodes = list("nodes");
        let named = |id: &Value| {
            let node = nodes.iter().find(|node| node["id"] == *id)?;
            node["name"].as_str().map(str::to_owned)
        };
        let edges = list("edges");
        let edges = edges.iter().filter_map(|edge| {
            let own = named(&edge["parent"]).as_deref() == Some(QUORUM);
            let name = edge["name"].as_str()?.to_owned();
            own.then_some((name, named(&edge["child"])?))
        });
        Ok(edges.collect())
    }
}

/// The placeholder's node in a slot.
pub(super) fn placeholder(slot: usize) -> String {
    format!("data-p{slot}")
}

fn key_id(slot: usize) -> String {
    format!("data-key{slot}")
}

/// The slot of a replica's node; `None` for any other node.
pub fn slot_of(node: &str) -> Option<usize> {
    node.strip_prefix("data-c")?.parse().ok()
}

/// Sees that an NBD server greets at the replica's address.
pub(super) async fn greeted(slot: usize, child: &NbdChild) -> Result<(), VmError> {
    let greeted = nbd::greets(&child.address, GREETING_DEADLINE).await;
    greeted.map_err(|source| VmError::ReplicaSilent {
        slot,
        at: child.at(),
        source,
    })
}
