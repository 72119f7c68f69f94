//! Nodes, edges, instances, join tokens, capacity.

use anyhow::Result;
use undine_api::public::{CreateJoinToken, FenceNode, JoinRole, NodeUse, UpdateNode};
use undine_client::new_key;

use super::{ANY, Context, confirm, every};
use crate::args::{JoinRoleName, JoinToken, Node, WhatIf};
use crate::show::say;

const NODES: [(&str, &str); 7] = [
    ("NAME", "name"),
    ("STATE", "state"),
    ("ADDRESS", "address"),
    ("SERVERS", "committed.servers"),
    ("MEMORY", "inventory.memory"),
    ("PROMISED", "committed.memory"),
    ("RUNS ON", "inventory.accelerator"),
];
const INSTANCES: [(&str, &str); 5] = [
    ("NAME", "name"),
    ("ALIVE", "alive"),
    ("ADDRESS", "address"),
    ("STARTED", "started_at"),
    ("ANSWERS THIS", "this"),
];
const EDGES: [(&str, &str); 4] = [
    ("NAME", "name"),
    ("ADDRESSES", "addresses"),
    ("ROUTES AT VERSION", "table_version"),
    ("LAST REPORT", "last_report_at"),
];
const JOIN_TOKENS: [(&str, &str); 5] = [
    ("ID", "id"),
    ("ADMITS", "role"),
    ("NAME", "name"),
    ("ENDS", "expires_at"),
    ("USED", "used_at"),
];
const CAPACITY: [(&str, &str); 5] = [
    ("NODE", "name"),
    ("STATE", "state"),
    ("MEMORY", "total.memory"),
    ("MEMORY LEFT", "free.memory"),
    ("DISK LEFT", "free.disk"),
];
const STEPS: [(&str, &str); 5] = [
    ("SERVER", "server"),
    ("STEP", "action"),
    ("FROM", "from"),
    ("TO", "to"),
    ("WHY", "reason"),
];

pub async fn node(context: &Context, command: Node) -> Result<()> {
    match command {
        Node::List => context.list(&every!(context, every_nodes, ListNodesQuery), &NODES),
        Node::Show { node } => {
            let id = context.node(&node).await?;
            context.tell(&context.client.get_node(id).await?)
        }
        Node::Cordon { node } => set(context, &node, NodeUse::Cordoned).await,
        Node::Uncordon { node } => set(context, &node, NodeUse::Ready).await,
        Node::Fence { node, confirm } => {
            let id = context.node(&node).await?;
            let wish = FenceNode { confirm };
            context.tell(&context.client.fence_node(id, &new_key(), &wish).await?)
        }
        Node::Remove {
            node,
            sure,
            waiting,
        } => {
            confirm(&sure, "removing a node")?;
            let id = context.node(&node).await?;
            let answer = context.client.remove_node(id, ANY).await?;
            context.follow(answer, &waiting).await
        }
    }
}

async fn set(context: &Context, node: &str, state: NodeUse) -> Result<()> {
    let id = context.node(node).await?;
    let wish = UpdateNode { state };
    let answer = context.client.update_node(id, ANY, &wish).await?;
    context.tell(&answer)
}

pub async fn instances(context: &Context) -> Result<()> {
    context.list(
        &every!(context, every_instances, ListInstancesQuery),
        &INSTANCES,
    )
}

pub async fn edges(context: &Context) -> Result<()> {
    context.list(&every!(context, every_edges, ListEdgesQuery), &EDGES)
}

pub async fn join_token(context: &Context, command: JoinToken) -> Result<()> {
    match command {
        JoinToken::List => context.list(
            &every!(context, every_join_tokens, ListJoinTokensQuery),
            &JOIN_TOKENS,
        ),
        JoinToken::Create { role, name, ttl } => {
            let role = match role {
                JoinRoleName::Node => JoinRole::Node,
                JoinRoleName::Edge => JoinRole::Edge,
                JoinRoleName::Control => JoinRole::Control,
            };
            let wish = CreateJoinToken {
                role,
                name,
                ttl_s: ttl,
            };
            let answer = context.client.create_join_token(&new_key(), &wish).await?;
            if context.json {
                return context.tell(&answer);
            }
            say!("{}", answer.token);
            Ok(())
        }
    }
}

pub async fn capacity(context: &Context) -> Result<()> {
    let answer = context.client.get_capacity().await?;
    if context.json {
        return context.tell(&answer);
    }
    context.list(&answer.nodes, &CAPACITY)?;
    for one in &answer.outlook {
        let (count, profile) = (one.fits, &one.profile);
        say!("{count} more of {profile} fit; then: {}", one.stopped_by);
        if let Some(days) = one.full_in_days {
            say!("  full in {days:.0} days at the growth of the last 30");
        }
        if let Some(best) = one.advice.first() {
            say!("  {} more with {}", best.more, best.machine);
        }
    }
    Ok(())
}

pub async fn what_if(context: &Context, wish: WhatIf) -> Result<()> {
    let mut servers = std::collections::BTreeMap::new();
    for (profile, count) in wish.add_servers {
        servers.insert(profile.parse()?, count);
    }
    let wish = undine_api::public::WhatIf {
        load_percent: wish.load,
        add_nodes: wish.add_nodes.into_iter().collect(),
        lose: wish.lose,
        drain: wish.drain,
        add_servers: servers,
        replicas: wish.replicas,
        rebalance: wish.rebalance,
    };
    let answer = context.client.what_if(&new_key(), &wish).await?;
    if context.json {
        return context.tell(&answer);
    }
    context.list(&answer.steps, &STEPS)?;
    for one in &answer.not_possible {
        say!("not possible: {}: {}", one.subject, one.reason);
    }
    say!("{}", answer.summary);
    Ok(())
}
