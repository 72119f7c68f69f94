//! Templates at hand: every ready node is to hold the image and the RAM template of each shape of
//! server in use, so that a server can come up on any of them within seconds. One node at a time
//! fetches or takes one; nodes answer again and again how far they are, so nothing is kept here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use undine_api::node::{FetchImage, TemplatePeer, TemplateState, TemplateWish};
use undine_model::lifecycle::NodeState;
use undine_model::{Bytes, NodeId};
use undine_store::{Db, Node, NodeFilter, Server, ServerFilter, Wanted};

use crate::control::Control;
use crate::manifests::profile_of;
use crate::operations::{Trouble, image_of, sources};
use crate::policy::is_emulated;
use crate::refusal::Result;

/// So many nodes at most are asked for their copy before a node takes one itself.
const PEERS: usize = 8;

/// A shape in use: image, memory in bytes, processors, machine, CPU model.
type Shape = (String, u64, u32, String, String);

/// Looks at every ready node, until one has something to do.
pub(super) async fn turn(control: &Control) -> Result<()> {
    let filter = ServerFilter {
        wanted: Some(Wanted::Running),
        ..ServerFilter::default()
    };
    let servers = control.store.servers().all(&filter).await?;
    let nodes = control.store.nodes().all(&NodeFilter::default()).await?;
    let ready: Vec<&Node> = nodes
        .iter()
        .filter(|node| node.state == NodeState::Ready)
        .collect();
    let mut seen = BTreeSet::new();
    for server in servers.iter().filter(|server| server.template) {
        let Some(shape) = shape_of(control, server) else {
            continue;
        };
        if !seen.insert(shape.clone()) {
            continue;
        }
        // One profile for each shape: what its first server runs. Others start from the template.
        let rehearsal = profile_of(control, server).await.ok().map(Box::new);
        let alike = servers.iter().filter(|other| {
            let is_same = other.template && other.profile == server.profile;
            is_same && shape_of(control, other).as_ref() == Some(&shape)
        });
        let owners = Owners::of(alike.map(|other| other.node));
        for node in &ready {
            let mut wish = wish_of(&shape, &ready, node);
            // Elsewhere nothing is translated, and no spares are kept.
            if is_emulated(&node.accelerator) {
                wish.rehearsal.clone_from(&rehearsal);
                wish.elsewhere = owners.elsewhere(node.id);
            }
            match ask(control, server, node, &wish).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // A node that does not answer holds up no other one.
                Err(trouble) => {
                    tracing::debug!(node = %node.name, %trouble, "a template waits for its next turn");
                }
            }
        }
    }
    Ok(())
}

/// How many servers that could take the same spare run where.
struct Owners {
    all: u32,
    on: BTreeMap<NodeId, u32>,
}

impl Owners {
    /// Counted once: asking for each node costs the same however many servers there are.
    fn of(places: impl Iterator<Item = Option<NodeId>>) -> Self {
        let mut owners = Self {
            all: 0,
            on: BTreeMap::new(),
        };
        for place in places {
            owners.all += 1;
            if let Some(node) = place {
                *owners.on.entry(node).or_default() += 1;
            }
        }
        owners
    }

    fn elsewhere(&self, node: NodeId) -> u32 {
        self.all - self.on.get(&node).copied().unwrap_or_default()
    }
}

fn shape_of(control: &Control, server: &Server) -> Option<Shape> {
    let cluster = &control.cluster;
    let or = |own: &Option<String>, usual: &String| own.as_ref().unwrap_or(usual).clone();
    Some((
        server.image_hash.clone()?,
        server.memory.0,
        server.vcpus,
        or(&server.machine, &cluster.machine),
        or(&server.cpu_model, &cluster.cpu_model),
    ))
}

/// The other ready nodes are asked in an order that begins after this one, so that not all nodes
/// copy from the first.
fn wish_of(shape: &Shape, ready: &[&Node], node: &Node) -> TemplateWish {
    let (image_hash, memory, vcpus, machine, cpu_model) = shape.clone();
    let at = ready.iter().position(|it| it.id == node.id).unwrap_or(0);
    let others = ready
        .iter()
        .cycle()
        .skip(at + 1)
        .take(ready.len().saturating_sub(1));
    let peers = others.take(PEERS).map(|peer| TemplatePeer {
        node: peer.id,
        address: SocketAddr::new(peer.address, peer.port),
    });
    TemplateWish {
        image_hash,
        memory: Bytes(memory),
        vcpus,
        machine,
        cpu_model,
        peers: peers.collect(),
        rehearsal: None,
        elsewhere: 0,
    }
}

/// Is the node busy with it?
async fn ask(
    control: &Control,
    server: &Server,
    node: &Node,
    wish: &TemplateWish,
) -> std::result::Result<bool, Trouble> {
    let client = control
        .nodes
        .of(node)
        .map_err(|error| Trouble::wait(error.to_string(), "It is tried again."))?;
    let status = client.template(wish).await?;
    match status.state {
        TemplateState::Present => Ok(false),
        TemplateState::Making | TemplateState::Fetching => Ok(true),
        TemplateState::Failed => {
            let reason = status.error.unwrap_or_default();
            tracing::debug!(node = %node.name, reason, "no template");
            Ok(false)
        }
        // It lacks the image.
        TemplateState::Absent => {
            let fetch = FetchImage {
                manifest: image_of(control, server).await?,
                sources: sources(control).await?,
            };
            let image = client.image(&fetch).await?;
            Ok(!image.present && image.error.is_none())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_elsewhere_is_what_could_come_here() {
        let [a, b, c] = [1, 2, 3].map(|n| NodeId::from_parts(1, [n; 10]));
        let owners = Owners::of([Some(a), Some(a), Some(b), None].into_iter());
        assert_eq!([a, b, c].map(|node| owners.elsewhere(node)), [2, 3, 4]);
    }
}
