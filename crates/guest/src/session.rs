//! Requests in, replies out, one at a time.

use undine_api::guest::{Ask, FailureKind, Reply, Request, Upload};

use crate::agent::Agent;
use crate::fail::{Outcome, failure};
use crate::port::{Broken, Frame, Port};
use crate::release::Incoming;
use undine_api::guest::Answer;

/// Serves the port until it fails.
pub fn serve(port: &mut Port, agent: &mut Agent) -> std::io::Error {
    loop {
        match one(port, agent) {
            Ok(()) | Err(Broken::Lost) => {}
            Err(Broken::Io(error)) => return error,
        }
    }
}

fn one(port: &mut Port, agent: &mut Agent) -> Result<(), Broken> {
    let Frame::Json(text) = port.read(false)? else {
        // The rest of a stream that was broken off.
        return Ok(());
    };
    let request: Request = match serde_json::from_slice(&text) {
        Ok(request) => request,
        Err(error) => return refuse(port, &text, &error.to_string()),
    };
    let result = match request.ask {
        Ask::Upload(ask) => upload(port, agent, ask)?,
        ask => agent.answer(ask),
    };
    reply(
        port,
        &Reply {
            id: request.id,
            result,
        },
    )
}

/// A request that this agent does not know, perhaps from a newer node.
fn refuse(port: &mut Port, text: &[u8], why: &str) -> Result<(), Broken> {
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|_| Broken::Lost)?;
    let Some(id) = value.get("id").and_then(serde_json::Value::as_u64) else {
        return Err(Broken::Lost);
    };
    let result = Err(failure(
        FailureKind::Invalid,
        format!("this agent does not understand the request: {why}"),
    ));
    reply(port, &Reply { id, result })
}

fn reply(port: &mut Port, reply: &Reply) -> Result<(), Broken> {
    let text = serde_json::to_vec(reply).map_err(|error| Broken::Io(error.into()))?;
    port.write(&text)
}

/// Reads the whole stream, even when its archive was refused at once: the reply comes after it.
fn upload(port: &mut Port, agent: &Agent, ask: Upload) -> Result<Outcome<Answer>, Broken> {
    let mut incoming = agent
        .releases_of(ask.site)
        .and_then(|releases| Incoming::begin(releases, ask));
    loop {
        match port.read(true)? {
            Frame::Data(piece) if piece.is_empty() => return Ok(incoming.and_then(Incoming::end)),
            Frame::Data(piece) => {
                if let Ok(open) = &mut incoming
                    && let Err(error) = open.piece(&piece)
                {
                    incoming = Err(error);
                }
            }
            Frame::Json(_) => return Err(Broken::Lost),
        }
    }
}
