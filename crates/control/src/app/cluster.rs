//! Control's instances, the edges, and the join tokens that let more of them in.

use serde_json::json;
use undine_api::internal::Instances;
use undine_api::public::{
    CreateJoinToken, Edge, Instance, JoinRole, JoinToken, List, NewJoinToken,
};
use undine_model::Slug;
use undine_store::{Db, EdgeFilter, InstanceFilter, JoinTokenFilter, JoinTokenId, Joiner, Store};

use super::caller::{Caller, Expected};
use super::paging::{PageWish, list};
use crate::clock::{new_id, new_secret, now_ms, sha256};
use crate::control::Control;
use crate::refusal::{Refusal, Result};
use crate::routes::INSTANCE_SILENT_MS;

/// One page of the edges.
pub async fn edges(control: &Control, wish: &PageWish) -> Result<List<Edge>> {
    let page = control
        .store
        .edges()
        .list(&EdgeFilter::default(), wish.request(false)?)
        .await?;
    Ok(list(page, |edge| Edge {
        id: edge.id,
        name: edge.name,
        addresses: edge.addresses,
        program: edge.program,
        last_report_at: edge.last_report_at,
        table_version: edge.table_version,
        created_at: edge.created_at,
    }))
}

/// One page of control's instances.
pub async fn instances(control: &Control, wish: &PageWish) -> Result<List<Instance>> {
    let alive_since = now_ms() - INSTANCE_SILENT_MS;
    let page = control
        .store
        .instances()
        .list(&InstanceFilter::default(), wish.request(false)?)
        .await?;
    Ok(list(page, |instance| Instance {
        alive: instance.heartbeat_at > alive_since,
        this: instance.id == control.id,
        id: instance.id,
        name: instance.name,
        address: instance.internal_url,
        heartbeat_at: instance.heartbeat_at,
        started_at: instance.started_at,
        program: instance.program,
    }))
}

/// Where the instances are that have been heard of lately, the freshest first.
pub async fn addresses(store: &Store) -> Result<Instances> {
    let mut instances = store.instances().all(&InstanceFilter::default()).await?;
    instances.sort_by_key(|instance| std::cmp::Reverse(instance.heartbeat_at));
    let alive_since = now_ms() - INSTANCE_SILENT_MS;
    let alive: Vec<_> = instances
        .iter()
        .filter(|i| i.heartbeat_at > alive_since)
        .collect();
    // After a pause of the whole cluster nobody is alive yet: then all are worth a try.
    let some = if alive.is_empty() {
        instances.iter().collect()
    } else {
        alive
    };
    Ok(Instances {
        addresses: some
            .iter()
            .filter_map(|i| i.internal_url.parse().ok())
            .collect(),
    })
}

fn show(token: undine_store::JoinToken) -> JoinToken {
    JoinToken {
        id: token.id.to_string(),
        role: match token.kind {
            Joiner::Node => JoinRole::Node,
            Joiner::Edge => JoinRole::Edge,
            Joiner::Control => JoinRole::Control,
        },
        name: token.name,
        expires_at: token.expires_at,
        used_at: token.used_at,
        created_at: token.created_at,
        version: token.version,
    }
}

/// One page of the join tokens.
pub async fn join_tokens(control: &Control, wish: &PageWish) -> Result<List<JoinToken>> {
    let page = control
        .store
        .join_tokens()
        .list(&JoinTokenFilter::default(), wish.request(false)?)
        .await?;
    Ok(list(page, show))
}

const USUAL_TTL_S: u32 = 3_600;
const LONGEST_TTL_S: u32 = 7 * 24 * 3_600;

/// A join token's record and its secret, not yet kept.
pub fn fresh_join_token(
    store: &Store,
    kind: Joiner,
    name: Option<Slug>,
    ttl_s: Option<u32>,
) -> Result<(undine_store::JoinToken, String)> {
    let ttl_s = ttl_s.unwrap_or(USUAL_TTL_S);
    if !(1..=LONGEST_TTL_S).contains(&ttl_s) {
        return Err(Refusal::invalid(
            "ttl_s",
            "A join token lasts 1 second to one week.",
        ));
    }
    if kind == Joiner::Control && store.kind() == "sqlite" {
        return Err(Refusal::conflict(
            "one-instance-only",
            "SQLite serves one instance",
            "The store is an embedded SQLite file, which only this instance can reach.",
        )
        .field("role")
        .remedy("Set the cluster up on PostgreSQL for more than one instance of control."));
    }
    let secret = new_secret();
    let now = now_ms();
    let token = undine_store::JoinToken {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        secret_sha256: sha256(&secret),
        kind,
        name,
        expires_at: now + i64::from(ttl_s) * 1000,
        used_at: None,
        used_by: None,
    };
    Ok((token, secret))
}

/// What to paste: where control is, how to know it, and the secret.
pub async fn join_token_text(store: &Store, ca: &str, secret: String) -> Result<String> {
    let ca_fingerprint = undine_link::JoinToken::fingerprint(ca).ok_or_else(|| {
        Refusal::of(
            500,
            "internal",
            "Control failed",
            "The cluster's CA is damaged.",
        )
    })?;
    let addresses = addresses(store).await?.addresses;
    Ok(undine_link::JoinToken {
        addresses,
        ca_fingerprint,
        secret,
    }
    .to_string())
}

/// Makes a join token.
pub async fn create_join_token(
    control: &Control,
    caller: &Caller,
    wish: CreateJoinToken,
) -> Result<NewJoinToken> {
    let kind = match wish.role {
        JoinRole::Node => Joiner::Node,
        JoinRole::Edge => Joiner::Edge,
        JoinRole::Control => Joiner::Control,
    };
    let (token, secret) = fresh_join_token(&control.store, kind, wish.name, wish.ttl_s)?;
    let text = join_token_text(&control.store, control.authority.certificate_pem(), secret).await?;
    let tx = control.store.begin().await?;
    tx.join_tokens().insert(&token).await?;
    let subject = format!("join_token/{}", token.id);
    caller
        .did(
            &tx,
            "join_token.create",
            subject,
            None,
            json!({"role": kind}),
        )
        .await?;
    tx.commit().await?;
    Ok(NewJoinToken {
        join_token: show(token),
        token: text,
    })
}

/// One join token, without its secret.
pub async fn join_token(control: &Control, id: JoinTokenId) -> Result<JoinToken> {
    Ok(show(control.store.join_tokens().get(id).await?))
}

/// Takes a join token back.
pub async fn delete_join_token(
    control: &Control,
    caller: &Caller,
    id: JoinTokenId,
    expected: Expected,
) -> Result<()> {
    let tx = control.store.begin().await?;
    let token = tx.join_tokens().lock(id).await?;
    expected.check("join token", token.version)?;
    tx.join_tokens().delete(id, Some(token.version)).await?;
    caller
        .did(
            &tx,
            "join_token.delete",
            format!("join_token/{id}"),
            None,
            json!({}),
        )
        .await?;
    tx.commit().await?;
    Ok(())
}
