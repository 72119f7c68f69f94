//! Servers.

use anyhow::Result;
use reqwest::Method;
use undine_api::public::CreateServer;

use super::{Context, confirm};
use crate::args::{Server, Waiting};

const COLUMNS: [(&str, &str); 7] = [
    ("NAME", "name"),
    ("PROFILE", "profile"),
    ("STATE", "state"),
    ("MEMORY", "memory"),
    ("SITES", "sites"),
    ("ADDRESS", "ipv4"),
    ("WHY THERE", "reason"),
];

pub async fn run(context: &Context, command: Server) -> Result<()> {
    match command {
        Server::List => context.list("/v1/servers", &COLUMNS).await,
        Server::Show { server } => {
            let id = context.id("servers", "name", &server).await?;
            context.look(&format!("/v1/servers/{id}")).await
        }
        Server::Create {
            name,
            profile,
            node,
            memory,
            vcpus,
            cpu,
            disk,
            no_template,
            waiting,
        } => {
            let wish = CreateServer {
                name,
                profile,
                node,
                memory,
                vcpus,
                cpu,
                disk,
                template: no_template.then_some(false),
                smtp: None,
            };
            let answer = context.client.post("/v1/servers", &wish).await?;
            context.follow(answer, &waiting).await
        }
        Server::Start { server, waiting } => act(context, &server, "start", &waiting).await,
        Server::Stop { server, waiting } => act(context, &server, "stop", &waiting).await,
        Server::Restart { server, waiting } => act(context, &server, "restart", &waiting).await,
        Server::Delete {
            server,
            sure,
            waiting,
        } => {
            confirm(&sure, "deleting a server with its disk")?;
            let id = context.id("servers", "name", &server).await?;
            let path = format!("/v1/servers/{id}");
            let answer = context.client.change(Method::DELETE, &path, None).await?;
            context.follow(answer, &waiting).await
        }
    }
}

async fn act(context: &Context, server: &str, verb: &str, waiting: &Waiting) -> Result<()> {
    let id = context.id("servers", "name", server).await?;
    let path = format!("/v1/servers/{id}/{verb}");
    let answer = context.client.post(&path, &serde_json::json!({})).await?;
    context.follow(answer, waiting).await
}
