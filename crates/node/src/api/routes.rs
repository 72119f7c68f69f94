//! Images, replicas and servers: what control asks, in the order in which a server comes up.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use undine_api::Problem;
use undine_api::node::{
    FetchImage, ImageStatus, JoinSpec, JoinStatus, NodeStatus, ReplicaSpec, ReplicaStatus,
    ScrubSpec, ScrubStatus, ServerStatus, SlotsSpec, StartSpec, StopSpec,
};

use super::Refusal;
use super::json::{Body, Epoch, Server, ServerReplica};
use crate::agent::Agent;

type Answer<T> = Result<Json<T>, Refusal>;

/// `GET /node/v1/status`
pub async fn status(State(agent): State<Arc<Agent>>) -> Json<NodeStatus> {
    Json(agent.status().await)
}

/// `PUT /node/v1/images/{hash}`
pub async fn image(
    State(agent): State<Arc<Agent>>,
    Path(hash): Path<String>,
    Body(wish): Body<FetchImage>,
) -> Answer<ImageStatus> {
    if wish.manifest.hash != hash {
        let detail = "the hash in the path is not the one in the description";
        return Err(Problem::new(422, "image-invalid", "The image's hash differs", detail).into());
    }
    Ok(Json(agent.ground().images.fetch(wish)?))
}

/// `PUT /node/v1/replicas/{server}`
pub async fn replica(
    State(agent): State<Arc<Agent>>,
    Server(server): Server,
    Body(spec): Body<ReplicaSpec>,
) -> Answer<ReplicaStatus> {
    // In a task of its own: a caller that goes away leaves nothing half done.
    let put = tokio::spawn(async move { agent.put_replica(server, &spec).await });
    Ok(Json(put.await.map_err(|error| {
        crate::problems::internal(error.to_string())
    })??))
}

/// `DELETE /node/v1/replicas/{server}?epoch=N`
pub async fn remove_replica(
    State(agent): State<Arc<Agent>>,
    Server(server): Server,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Refusal> {
    let epoch = Epoch::of(query.as_deref())?;
    agent.remove_replica(server, epoch).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /node/v1/servers/{server}`
pub async fn start(
    State(agent): State<Arc<Agent>>,
    Server(server): Server,
    Body(spec): Body<StartSpec>,
) -> Answer<ServerStatus> {
    Ok(Json(agent.start(server, spec).await?))
}

/// `GET /node/v1/servers/{server}`
pub async fn server(
    State(agent): State<Arc<Agent>>,
    Server(server): Server,
) -> Answer<ServerStatus> {
    Ok(Json(agent.server(server)?.status()))
}

/// `DELETE /node/v1/servers/{server}?epoch=N`
pub async fn forget(
    State(agent): State<Arc<Agent>>,
    Server(server): Server,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Refusal> {
    let epoch = Epoch::of(query.as_deref())?;
    agent.forget(server, epoch).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /node/v1/servers/{server}/slots`
pub async fn slots(
    State(agent): State<Arc<Agent>>,
    Server(server): Server,
    Body(spec): Body<SlotsSpec>,
) -> Answer<ServerStatus> {
    Ok(Json(agent.slots(server, spec).await?))
}

/// `PUT /node/v1/servers/{server}/joins/{replica}`
pub async fn join(
    State(agent): State<Arc<Agent>>,
    ServerReplica(server, replica): ServerReplica,
    Body(spec): Body<JoinSpec>,
) -> Answer<JoinStatus> {
    if spec.target.replica != replica {
        let detail = "the replica in the path is not the one in the target";
        return Err(
            Problem::new(422, "replica-differs", "The replica differs", detail)
                .field("target")
                .into(),
        );
    }
    Ok(Json(agent.server(server)?.join(spec).await?))
}

/// `DELETE /node/v1/servers/{server}/joins/{replica}?epoch=N`
pub async fn cancel_join(
    State(agent): State<Arc<Agent>>,
    ServerReplica(server, replica): ServerReplica,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Refusal> {
    let epoch = Epoch::of(query.as_deref())?;
    agent.server(server)?.cancel_join(epoch, replica).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /node/v1/servers/{server}/scrubs/{replica}`
pub async fn scrub(
    State(agent): State<Arc<Agent>>,
    ServerReplica(server, replica): ServerReplica,
    Body(spec): Body<ScrubSpec>,
) -> Answer<ScrubStatus> {
    Ok(Json(agent.server(server)?.scrub(replica, spec).await?))
}

/// `DELETE /node/v1/servers/{server}/scrubs/{replica}?epoch=N`
pub async fn end_scrub(
    State(agent): State<Arc<Agent>>,
    ServerReplica(server, replica): ServerReplica,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Refusal> {
    let epoch = Epoch::of(query.as_deref())?;
    agent.server(server)?.end_scrub(epoch, replica).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /node/v1/servers/{server}/stop`
pub async fn stop(
    State(agent): State<Arc<Agent>>,
    Server(server): Server,
    Body(spec): Body<StopSpec>,
) -> Answer<ServerStatus> {
    Ok(Json(agent.server(server)?.stop(spec).await?))
}
