//! Nodes, edges, instances, join tokens, capacity.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use undine_api::public::{
    CreateJoinToken, FenceNode, JoinRole, NodeUse, SetBmc, UpdateFailoverPolicy, UpdateNode,
};
use undine_client::new_key;

use super::{ANY, Context, confirm, every, mail};
use crate::args::{FailoverFlags, JoinRoleName, JoinToken, Node, Settings, WhatIf};
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
        Node::Bmc {
            node,
            agent,
            options,
            none: _,
        } => bmc(context, &node, agent.zip(options)).await,
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

/// What is told in confidence comes from a file: arguments are for everybody to read.
async fn bmc(context: &Context, node: &str, wish: Option<(String, PathBuf)>) -> Result<()> {
    let id = context.node(node).await?;
    let Some((agent, file)) = wish else {
        return context.tell(&context.client.unset_node_bmc(id, ANY).await?);
    };
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(&file).with_context(|| file.display().to_string())?
    };
    let mut options = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line
            .split_once('=')
            .with_context(|| format!("`{}` has a line without `=`", file.display()))?;
        options.insert(name.trim().to_owned(), value.to_owned());
    }
    let wish = SetBmc { agent, options };
    context.tell(&context.client.set_node_bmc(id, ANY, &wish).await?)
}

async fn set(context: &Context, node: &str, state: NodeUse) -> Result<()> {
    let id = context.node(node).await?;
    let wish = UpdateNode { state };
    let answer = context.client.update_node(id, ANY, &wish).await?;
    context.tell(&answer)
}

pub async fn settings(context: &Context, command: Settings) -> Result<()> {
    let flags = match command {
        Settings::Failover(flags) => flags,
        other => return mail::run(context, other).await,
    };
    let wish = changes(&flags);
    let policy = if wish == UpdateFailoverPolicy::default() {
        context.client.get_failover_policy().await?
    } else {
        context.client.update_failover_policy(ANY, &wish).await?
    };
    context.tell(&policy)
}

fn changes(flags: &FailoverFlags) -> UpdateFailoverPolicy {
    UpdateFailoverPolicy {
        silence_kvm_ms: flags.silence_kvm_ms,
        silence_tcg_ms: flags.silence_tcg_ms,
        brake_percent: flags.brake_percent,
        brake_window_ms: flags.brake_window_ms,
        replace_after_ms: flags.replace_after_ms,
        limit_bytes_s: flags.limit_bytes_s,
        joins_per_node: flags.joins_per_node,
        scrub_every_days: flags.scrub_every_days,
        scrub_limit_bytes_s: flags.scrub_limit_bytes_s,
        tls: flags.tls,
    }
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
