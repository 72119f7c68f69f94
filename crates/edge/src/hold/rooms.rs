//! Who waits for which server, in which order, and within which bounds: no clock, no network.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use undine_model::ServerId;

use super::Limits;

/// A released request that has no answer yet frees its turn after this: it is a slow page, and
/// the others need not wait for it.
const SLOW: Duration = Duration::from_secs(1);

/// Why nobody more is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Too many wait for this server.
    Server,
    /// Too many wait in all.
    All,
    /// They hold too many bytes.
    Bytes,
}

/// What a host's route says about waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The server should be at these addresses.
    Ask(Vec<SocketAddr>),
    /// It is on its way.
    Wait,
    /// Waiting makes no sense any more.
    GiveUp,
}

/// What a keeper is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Survey {
    /// Nobody waits: the room is gone.
    Empty,
    /// Everybody waits for a change of the route.
    Wait,
    /// See whether the server answers here.
    Probe(Vec<SocketAddr>),
}

struct Waiting {
    host: String,
    wake: oneshot::Sender<()>,
}

/// Everybody who waits for one server.
struct Room {
    /// By place: who came first is first.
    waiting: BTreeMap<u64, Waiting>,
    /// Released, without an answer yet.
    out: BTreeMap<u64, Instant>,
    /// All that have a place here, waiting or not.
    places: usize,
    /// The server has answered since the last failure.
    open: bool,
    /// How many may be out at once: one first, and one more with every answer. A server that just
    /// came up starts its programs for the first visitor; many at once would all wait for all.
    pace: usize,
    kept: bool,
    news: Arc<Notify>,
}

/// All rooms.
pub struct Rooms {
    limits: Limits,
    rooms: HashMap<ServerId, Room>,
    held: usize,
    bytes: usize,
    next: u64,
}

impl Rooms {
    /// None yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            rooms: HashMap::new(),
            held: 0,
            bytes: 0,
            next: 0,
        }
    }

    /// How many hold a place.
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Other limits from now on.
    #[cfg(test)]
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How many bytes of theirs are kept.
    #[cfg(test)]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a place in a server's room; its number says whose turn is earlier.
    pub fn enter(&mut self, server: ServerId, bytes: usize) -> Result<u64, Full> {
        let here = self.rooms.get(&server).map_or(0, |room| room.places);
        if here >= self.limits.per_server {
            return Err(Full::Server);
        }
        if self.held >= self.limits.in_all {
            return Err(Full::All);
        }
        if self.bytes.saturating_add(bytes) > self.limits.bytes {
            return Err(Full::Bytes);
        }
        let room = self.rooms.entry(server).or_insert_with(|| Room {
            waiting: BTreeMap::new(),
            out: BTreeMap::new(),
            places: 0,
            open: false,
            pace: 1,
            kept: false,
            news: Arc::default(),
        });
        room.places += 1;
        self.held += 1;
        self.bytes += bytes;
        self.next += 1;
        Ok(self.next)
    }

    /// Gives a place up.
    pub fn leave(&mut self, server: ServerId, place: u64, bytes: usize) {
        self.held -= 1;
        self.bytes -= bytes;
        let Some(room) = self.rooms.get_mut(&server) else {
            return;
        };
        room.places -= 1;
        room.waiting.remove(&place);
        if room.out.remove(&place).is_some() {
            room.pace = room.pace.saturating_add(1);
        }
        room.news.notify_one();
        if room.places == 0 && !room.kept {
            self.rooms.remove(&server);
        }
    }

    /// Waits at a place, because it found nobody (which closes the room) or because others wait.
    /// Also says whether the room needs a keeper.
    pub fn wait(
        &mut self,
        server: ServerId,
        place: u64,
        host: &str,
        found_nobody: bool,
    ) -> Option<(oneshot::Receiver<()>, bool)> {
        let room = self.rooms.get_mut(&server)?;
        let (wake, turn) = oneshot::channel();
        room.out.remove(&place);
        let host = host.to_owned();
        room.waiting.insert(place, Waiting { host, wake });
        if found_nobody {
            room.close();
        }
        room.news.notify_one();
        let needs_keeper = !std::mem::replace(&mut room.kept, true);
        Some((turn, needs_keeper))
    }

    /// A released request found nobody there: the others need not try.
    pub fn failed(&mut self, server: ServerId, place: u64) {
        if let Some(room) = self.rooms.get_mut(&server) {
            room.out.remove(&place);
            room.close();
            room.news.notify_one();
        }
    }

    /// Do requests wait for a server that has not answered yet, or only few of them?
    pub fn is_closed(&self, server: ServerId) -> bool {
        let warm = |room: &Room| room.open && room.pace >= self.limits.at_once;
        let room = self.rooms.get(&server);
        room.is_some_and(|room| !warm(room) && !room.waiting.is_empty())
    }

    /// What makes a keeper look again.
    pub fn news(&self, server: ServerId) -> Option<Arc<Notify>> {
        self.rooms.get(&server).map(|room| Arc::clone(&room.news))
    }

    /// What a room's keeper is to do. Wakes those for whom waiting makes no sense, and whoever
    /// has none left to wait for ends the keeper.
    pub fn survey(&mut self, server: ServerId, wish: impl Fn(&str) -> Wish) -> Survey {
        let Some(room) = self.rooms.get_mut(&server) else {
            return Survey::Empty;
        };
        let mut next = Survey::Wait;
        let mut done = Vec::new();
        for (place, waiting) in &room.waiting {
            match wish(&waiting.host) {
                Wish::Ask(addresses) if next == Survey::Wait => next = Survey::Probe(addresses),
                Wish::Ask(_) | Wish::Wait => {}
                Wish::GiveUp => done.push(*place),
            }
        }
        for place in done {
            room.wake(place);
        }
        if room.waiting.is_empty() {
            room.kept = false;
            if room.places == 0 {
                self.rooms.remove(&server);
            }
            return Survey::Empty;
        }
        next
    }

    /// The server answered at these addresses: so many more may go, in the order in which they
    /// came. Says whether anybody is left who could go as soon as another has an answer.
    pub fn release(
        &mut self,
        server: ServerId,
        addresses: &[SocketAddr],
        wish: impl Fn(&str) -> Wish,
        now: Instant,
    ) -> bool {
        let Some(room) = self.rooms.get_mut(&server) else {
            return false;
        };
        room.open = true;
        room.out
            .retain(|_, since| now.duration_since(*since) < SLOW);
        let fits = |waiting: &Waiting| wish(&waiting.host) == Wish::Ask(addresses.to_vec());
        let mut ready = room
            .waiting
            .iter()
            .filter(|(_, it)| fits(it))
            .map(|(n, _)| *n);
        let most = self.limits.at_once.min(room.pace);
        let room_for = most.saturating_sub(room.out.len());
        let go: Vec<u64> = ready.by_ref().take(room_for).collect();
        let left = ready.next().is_some();
        for place in go {
            if room.wake(place) {
                room.out.insert(place, now);
            }
        }
        left
    }

    /// Has nobody failed since the last release?
    pub fn is_open(&self, server: ServerId) -> bool {
        self.rooms.get(&server).is_some_and(|room| room.open)
    }
}

impl Room {
    fn close(&mut self) {
        self.open = false;
        self.pace = 1;
    }

    /// Wakes a place; false when its visitor is gone.
    fn wake(&mut self, place: u64) -> bool {
        let waiting = self.waiting.remove(&place);
        waiting.is_some_and(|waiting| waiting.wake.send(()).is_ok())
    }
}
