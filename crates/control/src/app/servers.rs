//! Servers: looking at them, and starting, stopping, changing and deleting them.

use serde_json::json;
use undine_api::public::{
    List, Replica, ReplicaStanding, Server, ServerOperation, UpdateServer, WantedState,
};
use undine_model::lifecycle::{NodeState, ServerEvent, ServerState};
use undine_model::{Bytes, ServerId};
use undine_store::{Db, ServerFilter, SiteFilter, Tx, Wanted};

use super::caller::{Caller, Expected};
use super::operations;
use super::paging::PageWish;
use crate::clock::now_ms;
use crate::control::Control;
use crate::copies;
use crate::fencing::{Heirs, fail_over};
use crate::memory::refuse_doubted;
use crate::operations::{NewOperation, start, wake};
use crate::refusal::{Refusal, Result};
use crate::routes::server_changed;

/// A server as the API shows it.
pub async fn show(db: &impl Db, server: undine_store::Server) -> Result<Server> {
    let filter = SiteFilter {
        server: Some(server.id),
        ..SiteFilter::default()
    };
    let copies = copies::of(db, server.id).await?;
    let doubt = db.doubts().find(server.id).await?;
    Ok(Server {
        doubt: doubt.map(|doubt| doubt.blocked.unwrap_or_else(|| ASKING.to_owned())),
        replicas_wanted: server.replica_count,
        replicas: copies.into_iter().map(show_copy).collect(),
        importance: server.importance,
        sites: db.sites().count(&filter).await? as u32,
        id: server.id,
        name: server.name,
        profile: server.profile,
        image: server.image_hash,
        node: server.node,
        reason: server.reason,
        state: server.state,
        wanted: match server.wanted {
            Wanted::Running => WantedState::Running,
            Wanted::Stopped => WantedState::Stopped,
        },
        error: server.error,
        epoch: server.epoch,
        memory: server.memory,
        vcpus: server.vcpus,
        cpu: server.cpu,
        disk: server.disk,
        ipv4: server.ipv4.to_string(),
        ipv6: server.ipv6.to_string(),
        smtp: server.smtp,
        manifest_version: server.manifest_version,
        manifest_applied: server.manifest_applied,
        operation: server.operation,
        scrubbed_at: server.scrubbed_at,
        created_at: server.created_at,
        updated_at: server.updated_at,
        version: server.version,
    })
}

const ASKING: &str = "the nodes of its copies are asked what they have seen; until they have \
                      answered it neither moves nor starts";

fn show_copy(copy: undine_store::Replica) -> Replica {
    use undine_store::ReplicaState as S;
    Replica {
        id: copy.id,
        node: copy.node,
        state: match copy.state {
            S::Creating => ReplicaStanding::Creating,
            S::InSync => ReplicaStanding::InSync,
            S::Syncing => ReplicaStanding::Syncing,
            S::Stale => ReplicaStanding::Stale,
            S::Lost => ReplicaStanding::Lost,
        },
        bytes: copy.bytes,
        left_at: copy.left_at,
        error: copy.error,
    }
}

/// One page of the servers. An account's owner sees none: they are the provider's.
pub async fn all(
    control: &Control,
    wish: &PageWish,
    name: Option<undine_model::Slug>,
) -> Result<List<Server>> {
    let filter = ServerFilter {
        name,
        ..ServerFilter::default()
    };
    let page = control
        .store
        .servers()
        .list(&filter, wish.request(false)?)
        .await?;
    let mut items = Vec::with_capacity(page.items.len());
    for server in page.items {
        items.push(show(&control.store, server).await?);
    }
    Ok(List {
        items,
        next: page.next.map(|id| id.to_string()),
    })
}

/// One server.
pub async fn get(control: &Control, id: ServerId) -> Result<Server> {
    show(&control.store, control.store.servers().get(id).await?).await
}

/// The server with this id or name.
pub async fn named(control: &Control, text: &str) -> Result<undine_store::Server> {
    let found = match text.parse::<ServerId>() {
        Ok(id) => control.store.servers().find(id).await?,
        Err(_) => match text.parse() {
            Ok(name) => {
                let filter = ServerFilter {
                    name: Some(name),
                    ..ServerFilter::default()
                };
                control.store.servers().find_by(&filter).await?
            }
            Err(_) => None,
        },
    };
    found.ok_or_else(|| Refusal::not_found("server", text).field("server"))
}

/// What is wanted of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Up.
    Start,
    /// Down.
    Stop,
    /// Down and up again.
    Restart,
    /// Gone.
    Delete,
}

impl Wish {
    const fn kind(self) -> &'static str {
        match self {
            Self::Start => "server.start",
            Self::Stop => "server.stop",
            Self::Restart => "server.restart",
            Self::Delete => "server.delete",
        }
    }
}

/// Makes a wish come true by an operation.
pub async fn wish(
    control: &Control,
    caller: &Caller,
    id: ServerId,
    expected: Expected,
    wish: Wish,
) -> Result<ServerOperation> {
    let tx = control.store.begin().await?;
    let server = tx.servers().lock(id).await?;
    expected.check("server", server.version)?;
    if wish == Wish::Delete {
        no_sites(&tx, &server).await?;
    }
    let reason = format!("asked for by {}", caller.who());
    let (server, operation) = begin(control, &tx, server, wish, reason).await?;
    caller
        .did(
            &tx,
            wish.kind(),
            format!("server/{id}"),
            None,
            json!({"name": server.name}),
        )
        .await?;
    let shown = ServerOperation {
        server: show(&tx, server).await?,
        operation: operations::show(&tx, operation).await?,
    };
    tx.commit().await?;
    wake(control);
    Ok(shown)
}

/// Within a transaction: the record says what is wanted, routes follow, the operation is made.
pub async fn begin(
    control: &Control,
    tx: &Tx,
    mut server: undine_store::Server,
    wish: Wish,
    reason: String,
) -> Result<(undine_store::Server, undine_store::Operation)> {
    refuse_doubted(tx, server.id).await?;
    free(tx, &server, wish).await?;
    if matches!(wish, Wish::Start | Wish::Restart) && !owner_can(tx, &server).await? {
        // It comes up where a copy in sync is.
        server.wanted = Wanted::Running;
        let mut heirs = Heirs::read(control, tx).await?;
        return fail_over(tx, &mut heirs, server, reason).await;
    }
    let refused = |refused: undine_model::lifecycle::Refused| {
        Refusal::conflict(
            "wrong-state",
            "Not in this state",
            crate::refusal::capital(&refused.to_string()),
        )
    };
    let event = match wish {
        Wish::Start => ServerEvent::Start,
        Wish::Stop | Wish::Restart => ServerEvent::Stop,
        Wish::Delete => ServerEvent::Delete,
    };
    let (mut kind, state) = (wish.kind(), server.state);
    if wish == Wish::Restart && matches!(state, ServerState::Stopped | ServerState::Creating) {
        // Nothing to stop first.
        kind = Wish::Start.kind();
        server.state = state.on(ServerEvent::Start).map_err(refused)?.0;
    } else {
        server.state = state.on(event).map_err(refused)?.0;
    }
    server.wanted = match wish {
        Wish::Start | Wish::Restart => Wanted::Running,
        Wish::Stop | Wish::Delete => Wanted::Stopped,
    };
    if server.wanted == Wanted::Running {
        server.slots = server.replica_count;
        copies::trim(tx, &server).await?;
        if state == ServerState::Failed {
            // Nothing that the earlier run may still have under way counts (decision 13).
            server.epoch += 1;
            copies::settle(tx, &server).await?;
        }
    }
    let operation = start(
        tx,
        NewOperation {
            kind,
            subjects: vec![server.id.uuid()],
            account: None,
            params: json!({"server": server.id, "grace_s": null}),
            reason,
        },
    )
    .await?;
    server.operation = Some(operation.id);
    let server = tx.servers().update(&server, now_ms()).await?;
    server_changed(tx, server.id).await?;
    Ok((server, operation))
}

/// Can its owner start it: is it not dead, and is its own copy in sync, or was nothing ever
/// written? A node that is merely silent is waited for.
async fn owner_can(tx: &Tx, server: &undine_store::Server) -> Result<bool> {
    let Some(owner) = server.node else {
        return Ok(true);
    };
    let node = tx.nodes().find(owner).await?;
    if node.is_some_and(|node| node.state == NodeState::Fenced) {
        return Ok(false);
    }
    let all = copies::of(tx, server.id).await?;
    let members = copies::in_sync(&all, Some(owner));
    let own = members.first().is_none_or(|first| first.node == owner);
    Ok(server.blank || own)
}

/// No other operation works on the server.
async fn free(tx: &Tx, server: &undine_store::Server, wish: Wish) -> Result<()> {
    let Some(id) = server.operation else {
        return Ok(());
    };
    let Some(operation) = tx.operations().find(id).await? else {
        return Ok(());
    };
    use undine_model::lifecycle::OperationState as S;
    if matches!(operation.state, S::Succeeded | S::Failed) {
        return Ok(());
    }
    // A start that waits for something, such as its node, must not stand in the way of a stop.
    if matches!(wish, Wish::Stop | Wish::Delete)
        && operation.state == S::Pending
        && operation.retries > 0
    {
        let mut ended = operation;
        ended.state = S::Failed;
        ended.error =
            Some(json!({"detail": "Given up for a newer wish.", "remedy": ""}).to_string());
        tx.operations().update(&ended, now_ms()).await?;
        return Ok(());
    }
    Err(Refusal::conflict(
        "busy",
        "Another operation works on the server",
        format!(
            "The operation {} ({id}) works on {} now.",
            operation.kind, server.name
        ),
    )
    .remedy("Wait for it to end, then try again."))
}

async fn no_sites(tx: &Tx, server: &undine_store::Server) -> Result<()> {
    let filter = SiteFilter {
        server: Some(server.id),
        ..SiteFilter::default()
    };
    match tx.sites().count(&filter).await? {
        0 => Ok(()),
        sites => Err(Refusal::conflict(
            "in-use",
            "The server still has sites",
            format!("{} still has {sites} sites.", server.name),
        )
        .remedy("Delete its sites first.")),
    }
}

/// Changes what a server is made of, from its next start.
pub async fn update(
    control: &Control,
    caller: &Caller,
    id: ServerId,
    expected: Expected,
    wish: UpdateServer,
) -> Result<Server> {
    let tx = control.store.begin().await?;
    let mut server = tx.servers().lock(id).await?;
    expected.check("server", server.version)?;
    let before = super::server_create::needs(&server);
    server.memory = wish.memory.unwrap_or(server.memory);
    server.vcpus = wish.vcpus.unwrap_or(server.vcpus);
    server.cpu = wish.cpu.unwrap_or(server.cpu);
    server.template = wish.template.unwrap_or(server.template);
    server.smtp = wish.smtp.unwrap_or(server.smtp);
    if let Some(count) = wish.replicas {
        server.replica_count = super::server_create::check_replicas(count)?;
    }
    if let Some(importance) = wish.importance {
        server.importance = super::server_create::check_importance(importance)?;
    }
    super::server_create::check_shape(server.memory, server.vcpus, server.cpu, server.disk)?;
    let after = super::server_create::needs(&server);
    if let Some(node) = server.node {
        let more = undine_api::public::Resources {
            memory: Bytes(after.memory.0.saturating_sub(before.memory.0)),
            cpu: undine_model::MilliCpu(after.cpu.0.saturating_sub(before.cpu.0)),
            disk: Bytes(0),
        };
        super::server_create::fits(control, &tx, node, &more).await?;
    }
    let server = tx.servers().update(&server, now_ms()).await?;
    caller
        .did(
            &tx,
            "server.update",
            format!("server/{id}"),
            None,
            json!({"name": server.name}),
        )
        .await?;
    let shown = show(&tx, server).await?;
    tx.commit().await?;
    Ok(shown)
}
