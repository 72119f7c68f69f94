//! Visitors: readers who come at a fixed pace, whether or not the one before was answered, and
//! writers who wait for an answer. All that they meet goes into the journal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::fleet::{Content, Fleet, Member};
use super::journal::{Found, Journal, Kind, Read, Write, now_ms};
use super::writes::{self, Visitor, WordPress};
use crate::bench::wire;

/// A reader waits longer than any edge holds a request.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two writes of one writer.
const WRITE_EVERY: Duration = Duration::from_millis(1_000);
const ROW_EVERY: Duration = Duration::from_secs(8);
/// What is on the disk is asked for again until somebody answers.
const FOUND_PATIENCE: Duration = Duration::from_secs(120);

/// Visitors of every site; they go home when told to.
pub struct Crowd {
    journal: Arc<Journal>,
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<()>>,
    writers: Vec<JoinHandle<Writer>>,
}

impl Content {
    /// Between two visits of a reader: 2 a second at quick sites, one in five at WordPress.
    const fn pace(self) -> Duration {
        match self {
            Self::Static | Self::Php => Duration::from_millis(500),
            Self::WordPress => Duration::from_secs(5),
        }
    }
}

/// Where a visitor goes: a site, by any edge.
#[derive(Debug, Clone)]
struct Door {
    edges: Vec<SocketAddr>,
    host: String,
    expect: &'static str,
}

impl Crowd {
    /// They come.
    pub fn gather(edges: &[SocketAddr], fleet: &Fleet, journal: &Arc<Journal>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut crowd = Self {
            journal: journal.clone(),
            stop: stop.clone(),
            readers: Vec::new(),
            writers: Vec::new(),
        };
        for member in &fleet.members {
            let door = Door {
                edges: edges.to_vec(),
                host: member.host.clone(),
                expect: member.content.expect(),
            };
            let (reading, journal, pace) = (door.clone(), journal.clone(), member.content.pace());
            let done = stop.clone();
            let read = move || read(&reading, pace, &journal, &done);
            crowd.readers.push(thread::spawn(read));
            if let Some(writer) = Writer::of(member, fleet, door) {
                let (journal, done) = (crowd.journal.clone(), stop.clone());
                crowd
                    .writers
                    .push(thread::spawn(move || writer.run(&journal, &done)));
            }
        }
        crowd
    }

    /// They go; what the servers hold in the end, as the writers find it.
    pub fn dismiss(self) -> anyhow::Result<Held> {
        self.stop.store(true, Ordering::SeqCst);
        for reader in self.readers {
            anyhow::ensure!(reader.join().is_ok(), "a reader broke off");
        }
        let mut held = Held::default();
        for writer in self.writers {
            let Ok(writer) = writer.join() else {
                anyhow::bail!("a writer broke off");
            };
            match writer.found() {
                Ok(found) => held.found.extend(found),
                Err(error) => held.silent.push(error),
            }
        }
        Ok(held)
    }
}

/// What servers hold in the end.
#[derive(Debug, Default)]
pub struct Held {
    /// What was found.
    pub found: Vec<Found>,
    /// Why others did not tell.
    pub silent: Vec<anyhow::Error>,
}

impl Held {
    /// All of it; an error if somebody did not tell.
    pub fn all(mut self) -> anyhow::Result<Vec<Found>> {
        match self.silent.pop() {
            Some(error) => Err(error),
            None => Ok(self.found),
        }
    }
}

/// Comes at the pace, each visit by itself; ends when the last one has been answered.
fn read(door: &Door, pace: Duration, journal: &Arc<Journal>, stop: &AtomicBool) {
    let mut visits: Vec<JoinHandle<()>> = Vec::new();
    let mut next = Instant::now();
    for count in 0_usize.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (door, journal) = (door.clone(), journal.clone());
        visits.retain(|it| !it.is_finished());
        let visit = thread::Builder::new().stack_size(256 << 10);
        if let Ok(visit) = visit.spawn(move || journal.read(door.visit(count))) {
            visits.push(visit);
        }
        next += pace;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    for visit in visits {
        let _ = visit.join();
    }
}

impl Door {
    fn edge(&self, count: usize) -> SocketAddr {
        self.edges[count % self.edges.len()]
    }

    fn visit(&self, count: usize) -> Read {
        let edge = self.edge(count);
        let asked_ms = now_ms();
        let answer = wire::get(edge, &self.host, "/", PATIENCE);
        let mut read = Read {
            site: self.host.clone(),
            asked_ms,
            ended_ms: now_ms(),
            is_right: false,
            seen: None,
            epoch: None,
            trouble: None,
        };
        match answer {
            Ok(page) if page.status == 200 && page.text().contains(self.expect) => {
                let text = page.text();
                read.is_right = true;
                read.seen = writes::number(&text, "newest");
                read.epoch = writes::epoch(&text);
            }
            Ok(page) => read.trouble = Some(format!("by {edge}: status {}", page.status)),
            Err(error) => read.trouble = Some(format!("by {edge}: {error:#}")),
        }
        read
    }
}

/// One who writes to a site.
struct Writer {
    door: Door,
    how: How,
    next: u64,
    count: usize,
}

enum How {
    Php(Visitor),
    WordPress(WordPress),
}

impl Writer {
    fn of(member: &Member, fleet: &Fleet, door: Door) -> Option<Self> {
        let how = match member.content {
            Content::Static => return None,
            Content::Php => How::Php(Visitor::default()),
            Content::WordPress => How::WordPress(fleet.wordpress.clone()),
        };
        Some(Self {
            door,
            how,
            // Higher than whatever an earlier trial left there.
            next: now_ms() / 100,
            count: 0,
        })
    }

    fn run(mut self, journal: &Journal, stop: &AtomicBool) -> Self {
        while !stop.load(Ordering::SeqCst) {
            let begun = Instant::now();
            let every = match self.how {
                How::Php(_) => WRITE_EVERY,
                How::WordPress(_) => ROW_EVERY,
            };
            let write = self.write();
            journal.write(write);
            while begun.elapsed() < every && !stop.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(50));
            }
        }
        self
    }

    fn write(&mut self) -> Write {
        self.count += 1;
        let edge = self.door.edge(self.count);
        let host = self.door.host.clone();
        let asked_ms = now_ms();
        let (kind, mut number) = match self.how {
            How::Php(_) => match self.count % 3 {
                0 => (Kind::Session, 0),
                1 => (Kind::File, self.next),
                _ => (Kind::Line, self.next),
            },
            How::WordPress(_) => (Kind::Row, self.next),
        };
        self.next += u64::from(kind != Kind::Session);
        let said = match &mut self.how {
            How::Php(visitor) => {
                let path = match kind {
                    Kind::Session => "/?do=session".to_owned(),
                    Kind::Line => format!("/?do=line&number={number}"),
                    _ => format!("/?do=file&number={number}"),
                };
                visitor.write(edge, &host, &path)
            }
            How::WordPress(wordpress) => {
                let title = format!("trial-{number}");
                wordpress
                    .publish(edge, &host, &title)
                    .map(|()| String::new())
            }
        };
        if let (Kind::Session, Ok(text)) = (kind, &said) {
            number = writes::number(text, "number").unwrap_or(0);
        }
        Write {
            site: host,
            kind,
            number,
            asked_ms,
            ended_ms: now_ms(),
            is_acked: said.is_ok(),
            epoch: said.as_deref().ok().and_then(writes::epoch),
            trouble: said.err().map(|error| format!("{error:#}")),
        }
    }

    /// What the site holds, asked until it answers.
    fn found(mut self) -> anyhow::Result<Vec<Found>> {
        let begun = Instant::now();
        loop {
            match self.look() {
                Ok(found) => return Ok(found),
                Err(error) if begun.elapsed() > FOUND_PATIENCE => {
                    return Err(error.context(format!("what {} holds", self.door.host)));
                }
                Err(_) => thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    fn look(&mut self) -> anyhow::Result<Vec<Found>> {
        let (edge, host) = (self.door.edge(0), self.door.host.clone());
        let found = |kind, numbers| Found {
            site: host.clone(),
            kind,
            numbers,
        };
        match &mut self.how {
            How::WordPress(wordpress) => {
                let numbers = wordpress.numbers(edge, &host)?;
                Ok(vec![found(Kind::Row, numbers)])
            }
            How::Php(visitor) => {
                let text = visitor.found(edge, &host)?;
                let session = writes::number(&text, "session");
                Ok(vec![
                    found(Kind::Session, session.into_iter().collect()),
                    found(Kind::File, writes::numbers(&text, "files")),
                    found(Kind::Line, writes::numbers(&text, "lines")),
                ])
            }
        }
    }
}
