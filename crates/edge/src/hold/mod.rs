//! Requests for a server that is away for a moment wait here instead of failing.
//!
//! A server that fails over or restarts is back within seconds; a visitor would rather wait. Each
//! server has a room: whoever finds nobody there takes a place, and one keeper a room looks every
//! few hundred milliseconds whether the server answers, or sooner when its route changes. Then
//! those who wait go in the order in which they came: one, then a few, then more at once, as fast as
//! the server answers. Time, number and bytes are
//! bounded; whoever is over the bounds gets a page that asks to try again.

mod keeper;
mod rooms;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use undine_model::ServerId;

use crate::metrics::Metrics;
use crate::table::Routes;
use rooms::Rooms;

pub use rooms::Full;

/// How much is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long one request waits in all; zero holds nothing.
    pub time: Duration,
    /// How many wait for one server.
    pub per_server: usize,
    /// How many wait in all.
    pub in_all: usize,
    /// Bytes of their heads and bodies in all.
    pub bytes: usize,
    /// How many are let go at once when a server answers again.
    pub at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(60),
            per_server: 1_000,
            in_all: 10_000,
            bytes: 64 << 20,
            at_once: 16,
        }
    }
}

/// How a held request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A server began to answer it.
    Answered,
    /// It waited for as long as is allowed.
    TooLong,
    /// Its server is not awaited any more, or failed in another way.
    Failed,
    /// Its visitor left.
    Left,
}

/// All requests that are held.
pub struct Holds {
    limits: Limits,
    routes: Arc<Routes>,
    metrics: Arc<Metrics>,
    rooms: Mutex<Rooms>,
}

impl Holds {
    /// Holds within these limits.
    pub fn new(limits: Limits, routes: Arc<Routes>, metrics: Arc<Metrics>) -> Self {
        Self {
            limits,
            routes,
            metrics,
            rooms: Mutex::new(Rooms::new(limits)),
        }
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is anything held at all?
    pub const fn is_on(&self) -> bool {
        !self.limits.time.is_zero()
    }

    /// Takes a place for a request that keeps so many bytes.
    ///
    /// # Errors
    /// Too many, or too many bytes, are held.
    pub fn enter(self: &Arc<Self>, server: ServerId, bytes: usize) -> Result<Place, Full> {
        let mut rooms = self.rooms();
        match rooms.enter(server, bytes) {
            Ok(number) => {
                self.metrics.hold.began(rooms.held());
                Ok(Place {
                    number,
                    server,
                    bytes,
                    since: Instant::now(),
                    ended: Ended::Left,
                    holds: Arc::clone(self),
                })
            }
            Err(full) => {
                self.metrics.hold.refused.fetch_add(1, Ordering::Relaxed);
                Err(full)
            }
        }
    }

    /// Do requests wait for a server that has not answered yet, or only few? Then others join them.
    pub fn is_closed(&self, server: ServerId) -> bool {
        self.rooms().is_closed(server)
    }
}

/// A request's place among those that wait; given up when dropped.
pub struct Place {
    number: u64,
    server: ServerId,
    bytes: usize,
    since: Instant,
    ended: Ended,
    holds: Arc<Holds>,
}

impl Place {
    /// Resolves when it is this request's turn, or when waiting makes no sense any more: look at
    /// the route again. Says whether it was at the server and found nobody.
    pub fn turn(&self, host: &str, found_nobody: bool) -> oneshot::Receiver<()> {
        let (mut rooms, number) = (self.holds.rooms(), self.number);
        let waiting = rooms.wait(self.server, number, host, found_nobody);
        drop(rooms);
        let Some((turn, needs_keeper)) = waiting else {
            // There is a room for every place; without one, nobody would wake us.
            return oneshot::channel().1;
        };
        if needs_keeper {
            tokio::spawn(keeper::keep(Arc::clone(&self.holds), self.server));
        }
        turn
    }

    /// Nobody was there when it was this request's turn.
    pub fn failed(&self) {
        self.holds.rooms().failed(self.server, self.number);
    }

    /// How long it may still wait.
    pub fn left(&self) -> Duration {
        self.holds.limits.time.saturating_sub(self.since.elapsed())
    }

    /// How long ago it began to wait.
    pub fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    /// Gives the place up.
    pub fn end(mut self, how: Ended) -> Duration {
        self.ended = how;
        self.waited()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut rooms = self.holds.rooms();
        rooms.leave(self.server, self.number, self.bytes);
        let held = rooms.held();
        drop(rooms);
        let metrics = &self.holds.metrics.hold;
        metrics.ended(self.ended, self.since.elapsed(), held);
    }
}
