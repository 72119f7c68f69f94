//! Servers.

use anyhow::Result;
use undine_api::public::{AcceptLoss, Adopt, CreateServer, UpdateServer};
use undine_client::new_key;

use super::{ANY, Context, confirm, every};
use crate::args::Server;

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
        Server::List => context.list(&every!(context, every_servers, ListServersQuery), &COLUMNS),
        Server::Show { server } => {
            let id = context.server(&server).await?;
            context.tell(&context.client.get_server(id).await?)
        }
        Server::Create {
            name,
            profile,
            node,
            memory,
            vcpus,
            cpu,
            disk,
            replicas,
            importance,
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
                replicas,
                importance,
            };
            let answer = context.client.create_server(&new_key(), &wish).await?;
            context.follow(answer, &waiting).await
        }
        Server::Start { server, waiting } => {
            let id = context.server(&server).await?;
            let answer = context.client.start_server(id, ANY, &new_key()).await?;
            context.follow(answer, &waiting).await
        }
        Server::Stop { server, waiting } => {
            let id = context.server(&server).await?;
            let answer = context.client.stop_server(id, ANY, &new_key()).await?;
            context.follow(answer, &waiting).await
        }
        Server::Restart { server, waiting } => {
            let id = context.server(&server).await?;
            let answer = context.client.restart_server(id, ANY, &new_key()).await?;
            context.follow(answer, &waiting).await
        }
        Server::Scrub { server, waiting } => {
            let id = context.server(&server).await?;
            let answer = context.client.scrub_server(id, ANY, &new_key()).await?;
            context.follow(answer, &waiting).await
        }
        Server::Protect {
            server,
            replicas,
            importance,
        } => {
            let id = context.server(&server).await?;
            let wish = UpdateServer {
                memory: None,
                vcpus: None,
                cpu: None,
                template: None,
                smtp: None,
                replicas,
                importance,
            };
            context.tell(&context.client.update_server(id, ANY, &wish).await?)
        }
        Server::Adopt {
            server,
            confirm,
            without,
        } => {
            let id = context.server(&server).await?;
            let wish = Adopt { confirm, without };
            let answer = context.client.adopt(id, ANY, &new_key(), &wish).await?;
            context.tell(&answer)
        }
        Server::AcceptLoss {
            server,
            node,
            confirm,
            waiting,
        } => {
            let id = context.server(&server).await?;
            let wish = AcceptLoss { confirm, node };
            let answer = context
                .client
                .accept_loss(id, ANY, &new_key(), &wish)
                .await?;
            context.follow(answer, &waiting).await
        }
        Server::Delete {
            server,
            sure,
            waiting,
        } => {
            confirm(&sure, "deleting a server with its disk")?;
            let id = context.server(&server).await?;
            let answer = context.client.delete_server(id, ANY).await?;
            context.follow(answer, &waiting).await
        }
    }
}
