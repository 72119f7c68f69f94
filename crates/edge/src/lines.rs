//! Connections to servers, so that those to an owner of the past can be cut.
//!
//! A node that dies says nothing: a request that it had taken would wait for minutes. When a
//! server's route leads elsewhere, every connection to where it was is shut down, whether a
//! request runs on it or it is only kept for the next one. Those that are safe to repeat are then
//! asked again; nobody is answered by an owner of the past.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pingora::upstreams::peer::{PeerOptions, Tracer, Tracing};
use pingora::{Error, ErrorType};
use rustix::net::{Shutdown, shutdown};
use undine_api::edge::Target;
use undine_model::ServerId;

use crate::metrics::Metrics;
use crate::table::{Routes, Table};

/// One connection, as long as the proxy has it.
#[derive(Debug, Default)]
struct Line {
    /// A second handle of the socket: shutting it down ends what waits at the first one.
    socket: Mutex<Option<OwnedFd>>,
}

impl Line {
    fn set(&self, socket: Option<OwnedFd>) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = socket;
    }

    fn cut(&self) -> bool {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        // It may be closed already.
        socket
            .as_ref()
            .is_some_and(|socket| shutdown(socket, Shutdown::Both).is_ok())
    }
}

/// Travels with the connection and tells its end.
#[derive(Debug, Clone)]
struct Label(Arc<Line>);

impl Tracing for Label {
    fn on_connected(&self) {}

    /// The proxy let go: so must we, or the other side would never hear of it.
    fn on_disconnected(&self) {
        self.0.set(None);
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

type ToServer = Vec<(SocketAddr, Weak<Line>)>;

/// Every connection to a server.
#[derive(Debug, Default)]
pub struct Lines(Mutex<HashMap<ServerId, ToServer>>);

impl Lines {
    /// Notes the connection that will be made with these options.
    pub fn note(&self, server: ServerId, address: SocketAddr, options: &mut PeerOptions) {
        let line = Arc::new(Line::default());
        {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let lines = all.entry(server).or_default();
            if lines.len() == lines.capacity() {
                lines.retain(|(_, line)| line.strong_count() > 0);
            }
            lines.push((address, Arc::downgrade(&line)));
        }
        options.tracer = Some(Tracer(Box::new(Label(Arc::clone(&line)))));
        options.upstream_tcp_sock_tweak_hook = Some(Arc::new(move |socket| {
            let second = socket.as_fd().try_clone_to_owned();
            let second = second.map_err(|error| {
                Error::because(ErrorType::SocketError, "no second handle", error)
            })?;
            line.set(Some(second));
            Ok(())
        }));
    }

    /// Cuts every connection to an address at which its server is no longer; says how many.
    fn cut(&self, table: &Table) -> usize {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = addresses(table, &all.keys().copied().collect());
        let mut cut = 0;
        all.retain(|server, lines| {
            lines.retain(|(_, line)| line.strong_count() > 0);
            // Of a server that is nowhere now nothing is known: it may be about to stop, and
            // what runs may end.
            if let Some(valid) = now.get(server) {
                for (address, line) in lines.iter() {
                    if !valid.contains(address) && line.upgrade().is_some_and(|line| line.cut()) {
                        cut += 1;
                    }
                }
            }
            !lines.is_empty()
        });
        cut
    }

    /// Follows the routes, for ever.
    pub async fn watch(self: Arc<Self>, routes: Arc<Routes>, metrics: Arc<Metrics>) {
        let mut changes = routes.subscribe();
        while changes.changed().await.is_ok() {
            let cut = self.cut(&routes.current());
            if cut > 0 {
                metrics.hold.cut(cut);
                tracing::info!(cut, "connections to where servers are no longer were cut");
            }
        }
    }
}

/// Where these servers are, or will be.
fn addresses(table: &Table, servers: &HashSet<ServerId>) -> HashMap<ServerId, HashSet<SocketAddr>> {
    let mut all: HashMap<ServerId, HashSet<SocketAddr>> = HashMap::new();
    for entry in table.entries() {
        let route = &entry.route;
        if let Target::Server { addresses } | Target::Held { addresses } = &route.target
            && servers.contains(&route.server)
        {
            all.entry(route.server).or_default().extend(addresses);
        }
    }
    all
}
