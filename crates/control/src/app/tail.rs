//! A site's log as it is written, for somebody who watches: asked for every second, told as
//! server-sent events whose ids are the places to go on from.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::sse::Event;
use serde_json::json;
use tokio::sync::mpsc::{Receiver, Sender};
use undine_api::guest::{Follow, LogPiece};
use undine_model::SiteId;
use undine_store::Db as _;

use super::caller::Caller;
use super::sessions::{self, Viewer};
use super::sites;
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// How often the log is asked for.
const EVERY: Duration = Duration::from_secs(1);
/// How many questions pass until it is seen that a token or session has ended.
const LOOK: u32 = 5;
/// A server answers one question at a time: so many people watch one site, an instance.
const MOST: u32 = 8;

/// Who watches which site.
#[derive(Default, Clone)]
pub struct Tails(Arc<Mutex<HashMap<SiteId, u32>>>);

/// Somebody who watches; dropped, the place is free.
struct Place {
    tails: Tails,
    site: SiteId,
}

impl Tails {
    fn take(&self, site: SiteId) -> Result<Place> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(site).or_default();
        if *count >= MOST {
            return Err(Refusal::of(
                429,
                "too-many-watch",
                "Too many watch this log",
                format!("{MOST} people or programs follow the site's logs already."),
            )
            .remedy("Close another window that follows it, or read its last lines."));
        }
        *count += 1;
        Ok(Place {
            tails: self.clone(),
            site,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.tails.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.site) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.site);
            }
        }
    }
}

/// Who watches, and so until when.
pub enum Watcher {
    /// The bearer of a token.
    Token(Box<Caller>),
    /// A person in the panel.
    Person(Box<Viewer>),
}

impl Watcher {
    fn caller(&self) -> &Caller {
        match self {
            Self::Token(caller) => caller,
            Self::Person(viewer) => &viewer.caller,
        }
    }

    /// What ends for a caller, ends its streams too.
    async fn lasts(&self, control: &Control) -> bool {
        match self {
            Self::Token(caller) => {
                let secret = &caller.token.secret_sha256;
                let found = control.store.tokens().by_secret(secret, now_ms()).await;
                matches!(found, Ok(Some(_)))
            }
            Self::Person(viewer) => matches!(sessions::lasts(control, viewer).await, Ok(true)),
        }
    }
}

/// Tells the log's last lines, or what it said since a mark, and from then on what is new.
pub async fn follow(
    control: &Control,
    watcher: Watcher,
    ask: Follow,
) -> Result<Receiver<Result<Event, Infallible>>> {
    sites::reach(control, watcher.caller(), ask.site).await?;
    let place = control.tails.take(ask.site)?;
    let first = sites::follow(control, watcher.caller(), ask.clone()).await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let control = control.clone();
    tokio::spawn(async move {
        // Kept as long as somebody listens.
        let _place = place;
        run(&control, &watcher, ask, first, &sender).await;
    });
    Ok(receiver)
}

async fn run(
    control: &Control,
    watcher: &Watcher,
    mut ask: Follow,
    first: LogPiece,
    sender: &Sender<Result<Event, Infallible>>,
) {
    let (mut piece, mut asked) = (first, 0);
    loop {
        let news = !piece.lines.is_empty() || piece.skipped;
        if news && sender.send(Ok(event(&piece))).await.is_err() {
            return;
        }
        // A log that was never written has no mark: all of it is new once it is there.
        ask.after = Some(piece.mark).filter(|mark| !mark.is_empty());
        tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        asked += 1;
        if asked % LOOK == 0 && !watcher.lasts(control).await {
            return;
        }
        piece = match sites::follow(control, watcher.caller(), ask.clone()).await {
            Ok(piece) => piece,
            // The browser comes again in a while, and goes on where it was.
            Err(refusal) => {
                let _ = sender.send(Ok(trouble(&refusal))).await;
                return;
            }
        };
    }
}

fn event(piece: &LogPiece) -> Event {
    let data = json!({"lines": piece.lines, "skipped": piece.skipped});
    let event = Event::default().event("lines").data(data.to_string());
    match piece.mark.is_empty() {
        true => event,
        false => event.id(&piece.mark),
    }
}

fn trouble(refusal: &Refusal) -> Event {
    let data = json!({"detail": refusal.0.detail});
    let event = Event::default().event("trouble").data(data.to_string());
    event.retry(Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_somebody_leaves() {
        let (tails, site) = (Tails::default(), SiteId::from_parts(1, [0; 10]));
        let mut places: Vec<Place> = (0..MOST).map(|_| tails.take(site).unwrap()).collect();
        let refusal = tails.take(site).err().unwrap();
        assert_eq!(refusal.0.status, 429);
        assert!(tails.take(SiteId::from_parts(2, [0; 10])).is_ok());
        places.pop();
        places.push(tails.take(site).unwrap());
        drop(places);
        assert!(tails.0.lock().unwrap().is_empty());
    }
}
