//! Questions for the agent inside a server, passed on one at a time.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, Request, State};
use axum::http::HeaderMap;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use undine_api::Problem;
use undine_api::guest::{Answer, Ask, FileTask, Upload};
use undine_api::node::{GuestCall, UPLOAD_HEADER};

use super::Refusal;
use super::json::{Body, Epoch, Server};
use crate::agent::Agent;
use crate::guest::{Guest, problem};

/// A question about the state of things.
const QUICK: Duration = Duration::from_secs(8);
/// Changing what runs.
const APPLY: Duration = Duration::from_secs(115);
/// Installing an application: a database is set up under emulation.
const INSTALL: Duration = Duration::from_secs(890);
/// Making or unpacking an archive among a site's files.
const ARCHIVE: Duration = Duration::from_secs(290);
/// Sending a release.
const UPLOAD: Duration = Duration::from_secs(3_500);
/// Waiting for others' questions to be answered.
const TURN: Duration = Duration::from_secs(110);

/// `POST /node/v1/servers/{server}/guest`
pub async fn ask(
    State(agent): State<Arc<Agent>>,
    Server(server): Server,
    Body(call): Body<GuestCall>,
) -> Result<Json<Answer>, Refusal> {
    let deadline = deadline(&call.ask)?;
    let guest = agent.server(server)?.guest(call.epoch)?;
    let mut guest = turn(&guest, deadline.min(TURN)).await?;
    let answer = guest.ask(call.ask, deadline).await;
    Ok(Json(answer.map_err(|error| problem(&error))?))
}

/// How long an answer may take; or why control may not ask this.
fn deadline(ask: &Ask) -> Result<Duration, Problem> {
    match ask {
        Ask::Hello | Ask::Health | Ask::Usage | Ask::Logs(_) | Ask::Follow(_) => Ok(QUICK),
        Ask::Files(files) => Ok(match files.task {
            FileTask::Pack { .. } | FileTask::Unpack { .. } => ARCHIVE,
            // A whole file is written to every copy of the disk, a large folder is sorted.
            _ => APPLY,
        }),
        Ask::Apply(_)
        | Ask::ApplyDelta(_)
        | Ask::Activate(_)
        | Ask::Blank(_)
        | Ask::Restart { .. } => Ok(APPLY),
        Ask::Install(_) => Ok(INSTALL),
        Ask::Identify(_)
        | Ask::AttachData(_)
        | Ask::Upload(_)
        | Ask::Rehearse(_)
        | Ask::Shutdown => Err(Problem::new(
            422,
            "node-asks-this",
            "The node asks this by itself",
            "identify, attach_data, upload, rehearse and shutdown are not passed on",
        )
        .field("ask")),
    }
}

/// `POST /node/v1/servers/{server}/releases?epoch=N`
pub async fn upload(
    State(agent): State<Arc<Agent>>,
    Server(server): Server,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Answer>, Refusal> {
    let epoch = Epoch::of(query.as_deref())?;
    let upload = described(&headers)?;
    let guest = agent.server(server)?.guest(epoch)?;
    let mut guest = turn(&guest, TURN).await?;
    let body = request.into_body().into_data_stream();
    let answer = guest.upload(upload, body, UPLOAD).await;
    Ok(Json(answer.map_err(|error| problem(&error))?))
}

fn described(headers: &HeaderMap) -> Result<Upload, Problem> {
    let invalid = |detail: String| {
        Problem::new(
            422,
            "upload-undescribed",
            "The upload is not described",
            detail,
        )
        .field(UPLOAD_HEADER)
    };
    let header = headers
        .get(UPLOAD_HEADER)
        .ok_or_else(|| invalid("the header is missing".into()))?;
    serde_json::from_slice(header.as_bytes()).map_err(|error| invalid(error.to_string()))
}

/// Waits for others to be done.
async fn turn(
    guest: &Arc<Mutex<Guest>>,
    patience: Duration,
) -> Result<MutexGuard<'_, Guest>, Problem> {
    timeout(patience, guest.lock()).await.map_err(|_| {
        Problem::new(
            503,
            "guest-busy",
            "The server's agent is busy",
            "it is still at work on an earlier request, such as an upload",
        )
        .remedy("try again later")
    })
}
