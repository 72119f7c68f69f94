//! The doors that visitors come through: listening, TLS, and letting running requests end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::{HttpServerApp, ServerApp};
use pingora::http::ResponseHeader;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::stream::Stream as Plain;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{GetProxyDigest, GetSocketDigest, SocketDigest, Stream};
use pingora::proxy::HttpProxy;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::connection::{Connection, Connections};
use crate::proxy::Gate;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// An idle visitor, or one whose request's head takes longer, is let go.
const IDLE: Duration = Duration::from_secs(60);
const BACKLOG: i32 = 4096;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else does.
    #[error("{0} is taken by another program; stop that one or listen elsewhere")]
    Taken(SocketAddr),
    /// Ports below 1024 are guarded.
    #[error("listening on {0} needs root, or the capability CAP_NET_BIND_SERVICE")]
    Forbidden(SocketAddr),
    /// It is another machine's.
    #[error("{0} is no address of this machine")]
    NotOurs(SocketAddr),
    /// Anything else.
    #[error("{address} cannot be listened on")]
    Other {
        /// Which one.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Listens on an address. With `share`, a program that does the same with the same address may
/// run beside this one, which is how an edge is replaced without a gap.
pub fn listen(address: SocketAddr, share: bool) -> Result<TcpListener, ListenError> {
    bind(address, share).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken(address),
        io::ErrorKind::PermissionDenied => ListenError::Forbidden(address),
        io::ErrorKind::AddrNotAvailable => ListenError::NotOurs(address),
        _ => ListenError::Other { address, source },
    })
}

fn bind(address: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can be given side by side.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Takes visitors in.
pub struct Door {
    /// Serves them.
    pub proxy: Arc<HttpProxy<Gate>>,
    /// Secures them.
    pub acceptor: Acceptor,
    /// Counts them.
    pub connections: Arc<Connections>,
    /// Turns true when no more are taken in.
    pub stop: watch::Receiver<bool>,
}

impl Door {
    /// Takes visitors in until told to stop.
    pub async fn open(self: Arc<Self>, listener: TcpListener, secure: bool) {
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, address)) => self.take_in(stream, address, secure),
                Err(error) => {
                    // Out of file descriptors, most likely: others are about to be closed.
                    tracing::warn!(%error, "a visitor could not be taken in");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        // Who stands in the queue already is taken in: closing would turn them away.
        while let Ok(Ok((stream, address))) =
            tokio::time::timeout(Duration::ZERO, listener.accept()).await
        {
            self.take_in(stream, address, secure);
        }
    }

    /// Ends idle connections and waits for running requests, but no longer than `patience`.
    pub async fn close(&self, patience: Duration) {
        self.proxy.http_cleanup().await;
        if tokio::time::timeout(patience, self.connections.all_closed())
            .await
            .is_err()
        {
            let left = self.connections.open();
            tracing::warn!(left, "requests that do not end are cut off");
        }
    }

    fn take_in(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, secure: bool) {
        let Some(admitted) = self.connections.admit(address.ip().to_canonical()) else {
            return;
        };
        let door = Arc::clone(self);
        tokio::spawn(async move {
            door.serve(stream, address, secure).await;
            drop(admitted);
        });
    }

    async fn serve(&self, stream: TcpStream, address: SocketAddr, secure: bool) {
        let connection = Arc::new(Connection::new());
        let plain = match labelled(stream, address, &connection) {
            Ok(plain) => plain,
            Err(error) => {
                tracing::debug!(%address, %error, "a connection broke at once");
                return;
            }
        };
        let stream: Stream = if secure {
            match tokio::time::timeout(HANDSHAKE, self.acceptor.tls_handshake(plain)).await {
                Ok(Ok(secured)) => Box::new(secured),
                Ok(Err(error)) => {
                    tracing::debug!(%address, %error, "TLS handshake failed");
                    return;
                }
                Err(_) => {
                    tracing::debug!(%address, "TLS handshake took too long");
                    return;
                }
            }
        } else {
            Box::new(plain)
        };
        tokio::select! {
            _ = self.proxy.process_new(stream, &self.stop) => {}
            () = connection.overdue(IDLE) => {
                tracing::debug!(%address, "an idle connection is closed");
            }
        }
    }
}

/// The connection travels along as the stream's label, so that each request finds it.
fn labelled(
    stream: TcpStream,
    address: SocketAddr,
    connection: &Arc<Connection>,
) -> pingora::Result<Plain> {
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    // Fresh, so that nothing is set yet.
    let _ = digest.peer_addr.set(Some(address.into()));
    let mut plain = Plain::from(stream);
    plain.set_nodelay()?;
    plain.set_socket_digest(digest);
    plain.set_proxy_digest(ProxyDigest::new(
        Box::new(ResponseHeader::build(200, Some(0))?),
        Some(Box::new(Arc::clone(connection))),
    ));
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_or_not_ours_is_told_in_a_sentence() {
        let first = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address, false).unwrap_err();
        assert!(error.to_string().contains("taken by another program"));
        let error = listen("192.0.2.1:80".parse().unwrap(), false).unwrap_err();
        assert!(error.to_string().contains("no address of this machine"));
    }

    #[tokio::test]
    async fn two_edges_may_share_an_address_when_both_agree() {
        let first = listen("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let address = first.local_addr().unwrap();
        listen(address, true).unwrap();
        assert!(listen(address, false).is_err());
    }
}
