//! Serving under mutual TLS: every request knows who sent it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use undine_api::internal::Role;

use crate::credentials::{Credentials, CredentialsError};
use crate::identity::Identity;

/// A caller that has not shown who it is within this time is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Who sent a request: a handler takes it as an argument.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What its certificate says; none without one (only joining is open to such a caller).
    pub identity: Option<Identity>,
    /// Where it calls from.
    pub address: SocketAddr,
}

impl Peer {
    /// The caller's id, when it has this role.
    pub fn id_as(&self, role: Role) -> Option<&str> {
        self.identity
            .as_ref()
            .filter(|it| it.role == role)
            .map(|it| it.id.as_str())
    }

    /// The caller's role.
    pub fn role(&self) -> Option<Role> {
        self.identity.as_ref().map(|it| it.role)
    }
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = axum::http::StatusCode;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        // Absent only when a router is served without `serve`: then nobody is trusted.
        let info = parts.extensions.get::<ConnectInfo<Peer>>();
        info.map(|ConnectInfo(peer)| peer.clone())
            .ok_or(axum::http::StatusCode::FORBIDDEN)
    }
}

struct TlsListener {
    streams: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.streams.recv().await {
            Some(stream) => stream,
            // The acceptor ends only with the server itself.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl axum::extract::connect_info::Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let (_, tls) = stream.io().get_ref();
        let leaf = tls.peer_certificates().and_then(|chain| chain.first());
        Peer {
            identity: leaf.and_then(|leaf| Identity::from_certificate(leaf)),
            address: *stream.remote_addr(),
        }
    }
}

/// Serves a router until `shutdown` resolves; running requests end first.
pub async fn serve(
    listener: TcpListener,
    credentials: &Credentials,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), CredentialsError> {
    let local = listener
        .local_addr()
        .map_err(|source| CredentialsError::File {
            path: "listener".into(),
            source,
        })?;
    let acceptor = TlsAcceptor::from(Arc::new(credentials.server_config()?));
    let (sender, streams) = mpsc::channel(64);
    let accepting = EndsWithIt(tokio::spawn(accept(listener, acceptor, sender)));
    let service = router.into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(TlsListener { streams, local }, service)
        .with_graceful_shutdown(shutdown)
        .await;
    drop(accepting);
    if let Err(error) = served {
        tracing::error!(%error, "the server ended");
    }
    Ok(())
}

/// Also when serving is dropped half-way nobody goes on accepting.
struct EndsWithIt(tokio::task::JoinHandle<()>);

impl Drop for EndsWithIt {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Handshakes run side by side, so that a slow caller holds up nobody.
async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others are about to be closed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            // Small requests and answers must not wait for each other's packets.
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(tls)) => {
                    let _ = sender.send((tls, address)).await;
                }
                Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake refused"),
                Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
            }
        });
    }
}
