//! Nodes, edges, instances, join tokens, capacity.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use undine_api::public::{CreateJoinToken, JoinRole};

use super::{Context, confirm};
use crate::args::{JoinRoleName, JoinToken, Node};
use crate::show;

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

pub async fn node(context: &Context, command: Node) -> Result<()> {
    match command {
        Node::List => context.list("/v1/nodes", &NODES).await,
        Node::Show { node } => {
            let id = context.id("nodes", "name", &node).await?;
            context.look(&format!("/v1/nodes/{id}")).await
        }
        Node::Cordon { node } => set(context, &node, "cordoned").await,
        Node::Uncordon { node } => set(context, &node, "ready").await,
        Node::Remove {
            node,
            sure,
            waiting,
        } => {
            confirm(&sure, "removing a node")?;
            let id = context.id("nodes", "name", &node).await?;
            let path = format!("/v1/nodes/{id}");
            let answer = context.client.change(Method::DELETE, &path, None).await?;
            context.follow(answer, &waiting).await
        }
    }
}

async fn set(context: &Context, node: &str, state: &str) -> Result<()> {
    let id = context.id("nodes", "name", node).await?;
    let body = json!({ "state": state });
    let path = format!("/v1/nodes/{id}");
    let answer = context
        .client
        .change(Method::PATCH, &path, Some(&body))
        .await?;
    context.tell(&answer)
}

pub async fn instances(context: &Context) -> Result<()> {
    context.list("/v1/instances", &INSTANCES).await
}

pub async fn edges(context: &Context) -> Result<()> {
    context.list("/v1/edges", &EDGES).await
}

pub async fn join_token(context: &Context, command: JoinToken) -> Result<()> {
    match command {
        JoinToken::List => context.list("/v1/join-tokens", &JOIN_TOKENS).await,
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
            let answer: Value = context.client.post("/v1/join-tokens", &wish).await?;
            if context.json {
                return context.tell(&answer);
            }
            println!(
                "{}",
                answer
                    .get("token")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            );
            Ok(())
        }
    }
}

pub async fn capacity(context: &Context) -> Result<()> {
    let answer: Value = context.client.get("/v1/capacity").await?;
    if context.json {
        return context.tell(&answer);
    }
    let nodes = answer
        .get("nodes")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    show::table(&nodes, &CAPACITY);
    for (profile, count) in answer
        .get("fits")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        println!("{count} more of {profile} fit");
    }
    Ok(())
}
