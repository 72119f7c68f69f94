//! Letting nodes, edges and further instances in, and renewing certificates.

use serde_json::json;
use undine_api::internal::{ControlSecrets, JoinAnswer, JoinRequest, RenewAnswer, Role};
use undine_link::Identity;
use undine_model::lifecycle::NodeState;
use undine_model::{EdgeId, InstanceId, NodeId};
use undine_store::{Db, JoinTokenFilter, Joiner, NewEvent, Tx};

use super::cluster::addresses;
use crate::clock::{new_id, now_ms, now_utc, sha256};
use crate::control::Control;
use crate::operations::event_of;
use crate::refusal::{Refusal, Result, chain};

/// Ninety days, as the authority gives.
const CERTIFICATE_MS: i64 = 90 * 24 * 3_600_000;

/// Lets a program in, once for each token.
pub async fn join(control: &Control, wish: JoinRequest) -> Result<JoinAnswer> {
    let secret = sha256(&wish.secret);
    let kind = joiner(wish.role)?;
    right_token(control, &secret, kind, &wish).await?;
    if wish.role == Role::Node && wish.guard_csr.is_none() {
        return Err(Refusal::invalid(
            "guard_csr",
            "A node sends a certificate request for its guard too.",
        ));
    }
    let id = new_id::<undine_model::id::kind::Node>().to_string();
    let certificate = issue(control, &wish.csr, "csr", wish.role, &id)?;
    let guard_certificate = match &wish.guard_csr {
        Some(csr) if wish.role == Role::Node => {
            Some(issue(control, csr, "guard_csr", Role::Guard, &id)?)
        }
        _ => None,
    };
    // Token and record in one transaction: a refused name leaves the token unused.
    let tx = control.store.begin().await?;
    tx.join_tokens()
        .consume(&secret, kind, &wish.name, &id, now_ms())
        .await?;
    let event = insert(&tx, &wish, &id).await?;
    tx.events().announce(vec![event]).await?;
    if wish.role == Role::Control {
        tx.routes().changed([control.cluster.panel_host()]).await?;
    }
    tx.commit().await?;
    Ok(JoinAnswer {
        id,
        certificate,
        guard_certificate,
        ca: control.authority.certificate_pem().to_owned(),
        instances: addresses(&control.store).await?,
        network: control.cluster.network.clone(),
        control: (wish.role == Role::Control).then(|| ControlSecrets {
            store_url: control.store_url.clone(),
            secrets_key: control.secrets.to_base64().to_string(),
        }),
    })
}

fn joiner(role: Role) -> Result<Joiner> {
    match role {
        Role::Control => Ok(Joiner::Control),
        Role::Node => Ok(Joiner::Node),
        Role::Edge => Ok(Joiner::Edge),
        Role::Guard => Err(Refusal::invalid(
            "role",
            "A guard joins together with its node.",
        )),
    }
}

/// Says precisely what is wrong with a token; [`join`] then uses it up, which has the last word.
async fn right_token(
    control: &Control,
    secret: &str,
    kind: Joiner,
    wish: &JoinRequest,
) -> Result<()> {
    let tokens = control
        .store
        .join_tokens()
        .all(&JoinTokenFilter::default())
        .await?;
    let Some(token) = tokens
        .into_iter()
        .find(|token| token.secret_sha256 == secret)
    else {
        return Ok(());
    };
    let refuse = |kind: &str, detail: String| {
        Err(
            Refusal::of(403, kind, "The join token is not accepted", detail).remedy(
                "Make a token that fits with `undine-control token` or `undine join-token create`.",
            ),
        )
    };
    if token.kind != kind {
        return refuse(
            "join-token-wrong-role",
            format!(
                "The join token admits a program of the role {}, not {kind}.",
                token.kind
            ),
        );
    }
    match token.name {
        Some(name) if name != wish.name => refuse(
            "join-token-wrong-name",
            format!(
                "The join token admits the name {name} only, not {}.",
                wish.name
            ),
        ),
        _ => Ok(()),
    }
}

fn issue(control: &Control, csr: &str, field: &str, role: Role, id: &str) -> Result<String> {
    let identity = Identity {
        role,
        id: id.to_owned(),
    };
    control
        .authority
        .issue(csr, &identity, now_utc())
        .map_err(|error| Refusal::invalid(field, crate::refusal::capital(&chain(&error))))
}

async fn insert(tx: &Tx, wish: &JoinRequest, id: &str) -> Result<NewEvent> {
    let now = now_ms();
    let bad = |error: undine_model::id::InvalidId| Refusal::internal(&error);
    let data = json!({"name": wish.name, "address": wish.address});
    match wish.role {
        Role::Node | Role::Guard => {
            let node = node(wish, id.parse().map_err(bad)?, now);
            tx.nodes().insert(&node).await?;
            Ok(event_of("node.joined", node.id.uuid(), None, data))
        }
        Role::Edge => {
            let edge = undine_store::Edge {
                id: id.parse::<EdgeId>().map_err(bad)?,
                version: 1,
                created_at: now,
                updated_at: now,
                name: wish.name.clone(),
                addresses: Vec::new(),
                certificate_serial: None,
                certificate_expires_at: Some(now + CERTIFICATE_MS),
                program: String::new(),
                last_report_at: None,
                table_version: 0,
            };
            tx.edges().insert(&edge).await?;
            Ok(event_of("edge.joined", edge.id.uuid(), None, data))
        }
        Role::Control => {
            let instance = instance(
                id.parse().map_err(bad)?,
                wish.name.clone(),
                wish.address,
                now,
            );
            tx.instances().insert(&instance).await?;
            Ok(event_of("instance.joined", instance.id.uuid(), None, data))
        }
    }
}

fn node(wish: &JoinRequest, id: NodeId, now: i64) -> undine_store::Node {
    let inventory = wish.inventory.as_ref();
    undine_store::Node {
        id,
        version: 1,
        created_at: now,
        updated_at: now,
        name: wish.name.clone(),
        state: NodeState::Ready,
        address: wish.address.ip(),
        port: wish.address.port(),
        storage_address: None,
        rack: None,
        certificate_serial: None,
        certificate_expires_at: Some(now + CERTIFICATE_MS),
        inventory: json!(inventory),
        capacity: json!({}),
        accelerator: inventory
            .map(|it| it.accelerator.clone())
            .unwrap_or_default(),
        versions: json!({}),
        last_report_at: Some(now),
        cordoned: false,
        fenced_at: None,
        bmc: None,
    }
}

/// An instance's record.
pub fn instance(
    id: InstanceId,
    name: undine_model::Slug,
    address: std::net::SocketAddr,
    now: i64,
) -> undine_store::Instance {
    undine_store::Instance {
        id,
        version: 1,
        created_at: now,
        updated_at: now,
        name,
        internal_url: address.to_string(),
        api_url: address.to_string(),
        heartbeat_at: now,
        program: crate::control::PROGRAM.to_owned(),
        started_at: now,
    }
}

/// Gives a program of the cluster a fresh certificate for what it is.
pub async fn renew(control: &Control, identity: &Identity, csr: &str) -> Result<RenewAnswer> {
    still_in(control, identity).await?;
    let certificate = issue(control, csr, "csr", identity.role, &identity.id)?;
    let expires = Some(now_ms() + CERTIFICATE_MS);
    match identity.role {
        Role::Node => {
            if let Ok(id) = identity.id.parse() {
                control
                    .store
                    .nodes()
                    .modify(id, now_ms(), |node| {
                        node.certificate_expires_at = expires;
                        Ok(())
                    })
                    .await?;
            }
        }
        Role::Edge => {
            if let Ok(id) = identity.id.parse() {
                control
                    .store
                    .edges()
                    .modify(id, now_ms(), |edge| {
                        edge.certificate_expires_at = expires;
                        Ok(())
                    })
                    .await?;
            }
        }
        Role::Guard | Role::Control => {}
    }
    Ok(RenewAnswer { certificate })
}

/// A program that was removed is a stranger, whatever its certificate says.
pub async fn still_in(control: &Control, identity: &Identity) -> Result<()> {
    let known = match identity.role {
        Role::Node | Role::Guard => match identity.id.parse() {
            Ok(id) => control
                .store
                .nodes()
                .find(id)
                .await?
                .is_some_and(|node| node.state != NodeState::Removed),
            Err(_) => false,
        },
        Role::Edge => match identity.id.parse() {
            Ok(id) => control.store.edges().find(id).await?.is_some(),
            Err(_) => false,
        },
        Role::Control => match identity.id.parse() {
            Ok(id) => control.store.instances().find(id).await?.is_some(),
            Err(_) => false,
        },
    };
    if known {
        return Ok(());
    }
    Err(Refusal::of(
        403,
        "removed",
        "This program was removed from the cluster",
        format!("{} is not known here any more.", identity.uri()),
    )
    .remedy("Let it join again with a new token."))
}
