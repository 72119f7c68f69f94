//! Tells a page that something changed which it may show; what it is, the page reads itself.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use tokio_stream::wrappers::ReceiverStream;

use crate::app::observe;
use crate::app::sessions::{self, Viewer};
use crate::control::Control;
use crate::refusal::Result;

/// Changes of other instances are noticed at the latest after this.
const LOOK: Duration = Duration::from_secs(2);

/// The stream.
pub async fn stream(
    State(control): State<Control>,
    viewer: Viewer,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let after = observe::newest(&control).await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(follow(control, viewer, after, sender));
    let keep = KeepAlive::new().interval(Duration::from_secs(15));
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(keep))
}

async fn follow(
    control: Control,
    viewer: Viewer,
    mut after: u64,
    sender: tokio::sync::mpsc::Sender<Result<Event, Infallible>>,
) {
    let mut changes = control.store.changes();
    // A browser that comes back after its instance died has missed what happened between.
    let mut tell = true;
    loop {
        // A session that ends, ends its streams too.
        let Ok(true) = sessions::lasts(&control, &viewer).await else {
            return;
        };
        let Ok(events) = observe::events(&control, &viewer.caller, after).await else {
            return;
        };
        if let Some(last) = events.last() {
            after = last.seq;
            tell = true;
        }
        if std::mem::take(&mut tell)
            && sender
                .send(Ok(Event::default().event("change").data("1")))
                .await
                .is_err()
        {
            return;
        }
        tokio::select! {
            () = sender.closed() => return,
            _ = tokio::time::timeout(LOOK, changes.next()) => {}
        }
    }
}
