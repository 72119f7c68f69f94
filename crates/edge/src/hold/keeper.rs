//! A room's keeper: looks whether the server answers, and lets those who wait go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;
use undine_api::edge::Target;
use undine_model::ServerId;

use super::Holds;
use super::rooms::{Survey, Wish};
use crate::table::Table;

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// A server in the same network answers much sooner than this, or is not there.
const CONNECT: Duration = Duration::from_secs(1);
/// How long others wait for the answer of those that were let go.
const SLOW: Duration = Duration::from_secs(1);

/// Keeps a server's room until nobody waits in it.
pub async fn keep(holds: Arc<Holds>, server: ServerId) {
    let mut changes = holds.routes.subscribe();
    loop {
        changes.mark_unchanged();
        let table = holds.routes.current();
        let Some(news) = holds.rooms().news(server) else {
            return;
        };
        let survey = holds.rooms().survey(server, |host| wish(&table, host));
        match survey {
            Survey::Empty => return,
            Survey::Wait => tokio::select! {
                _ = changes.changed() => {}
                () = news.notified() => {}
            },
            Survey::Probe(addresses) => {
                let answers = tokio::select! {
                    answers = answers(&addresses) => answers,
                    _ = changes.changed() => continue,
                };
                if answers && release(&holds, server, &addresses, &mut changes).await {
                    continue;
                }
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    _ = changes.changed() => {}
                }
            }
        }
    }
}

/// Lets those who wait go, a few at once. False when one of them found nobody there.
async fn release(
    holds: &Holds,
    server: ServerId,
    addresses: &[SocketAddr],
    changes: &mut watch::Receiver<u64>,
) -> bool {
    loop {
        let table = holds.routes.current();
        let Some(news) = holds.rooms().news(server) else {
            return true;
        };
        let wish = |host: &str| wish(&table, host);
        let left = holds
            .rooms()
            .release(server, addresses, wish, Instant::now());
        if !left {
            return true;
        }
        tokio::select! {
            () = news.notified() => {}
            () = tokio::time::sleep(SLOW) => {}
            _ = changes.changed() => return true,
        }
        if !holds.rooms().is_open(server) {
            return false;
        }
    }
}

/// Does anybody take connections at one of these?
async fn answers(addresses: &[SocketAddr]) -> bool {
    for address in addresses {
        let connected = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
        if matches!(connected, Ok(Ok(_))) {
            return true;
        }
    }
    false
}

/// What the route of a host says about waiting.
pub fn wish(table: &Table, host: &str) -> Wish {
    match table.route(host).map(|entry| &entry.route.target) {
        Some(Target::Server { addresses }) => Wish::Ask(addresses.clone()),
        Some(Target::Held { .. }) => Wish::Wait,
        _ => Wish::GiveUp,
    }
}
