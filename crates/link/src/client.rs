//! Calls to one program of the cluster, or to any instance of control.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use undine_api::Problem;
use undine_api::internal::Role;

use crate::credentials::{Credentials, CredentialsError};
use crate::identity::{CONTROL_HOST, host_of};

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The other side said no, and why.
    #[error("{0}")]
    Refused(Problem),
    /// Nobody answered in time; trying again later may help.
    #[error("no answer from {peer}")]
    Unreachable {
        /// Whom we asked.
        peer: String,
        /// Why.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The answer is not what the wire allows.
    #[error("{peer} answered something else than expected: {detail}")]
    Unexpected {
        /// Whom we asked.
        peer: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl CallError {
    /// Could the same call succeed a little later?
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(problem) => matches!(problem.status, 429 | 502 | 503 | 504),
            Self::Unreachable { .. } => true,
            Self::Unexpected { .. } => false,
        }
    }

    /// The problem, if the other side told one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

pub(crate) fn builder(config: rustls::ClientConfig) -> reqwest::ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(config)
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .http2_keep_alive_timeout(Duration::from_secs(5))
        .pool_idle_timeout(Duration::from_secs(60))
        .no_proxy()
}

fn damaged(error: &reqwest::Error) -> CredentialsError {
    CredentialsError::Damaged {
        what: "TLS client",
        reason: error.to_string(),
    }
}

/// Calls one program, known by role and id.
#[derive(Clone)]
pub struct PeerClient {
    client: Client,
    host: String,
    port: u16,
    says: Option<(&'static str, u64)>,
}

impl PeerClient {
    /// A client for the program with this role and id at this address.
    pub fn new(
        credentials: &Credentials,
        role: Role,
        id: &str,
        address: SocketAddr,
    ) -> Result<Self, CredentialsError> {
        Self::named(credentials, host_of(role, id), address)
    }

    fn named(
        credentials: &Credentials,
        host: String,
        address: SocketAddr,
    ) -> Result<Self, CredentialsError> {
        let client = builder(credentials.client_config()?)
            .resolve(&host, address)
            .build()
            .map_err(|error| damaged(&error))?;
        Ok(Self {
            client,
            host,
            port: address.port(),
            says: None,
        })
    }

    /// Says this number in this header of every request.
    #[must_use]
    pub fn saying(mut self, header: &'static str, number: u64) -> Self {
        self.says = Some((header, number));
        self
    }

    /// The host name that the other side's certificate must carry.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Starts a request to a path, for callers that stream a body or an answer; its own deadline,
    /// headers and body are the caller's to set. Pass what comes back through [`checked`].
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("https://{}:{}{path}", self.host, self.port);
        let request = self.client.request(method, url);
        match self.says {
            Some((header, number)) => request.header(header, number),
            None => request,
        }
    }

    /// Sends JSON and reads JSON, all within the deadline.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
        deadline: Duration,
    ) -> Result<T, CallError> {
        let mut request = self.request(method, path).timeout(deadline);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = self.checked(request.send().await).await?;
        self.read(response).await
    }

    /// Turns what came back into an answer or the problem that the other side told.
    pub async fn checked(
        &self,
        sent: Result<Response, reqwest::Error>,
    ) -> Result<Response, CallError> {
        let response = sent.map_err(|source| CallError::Unreachable {
            peer: self.host.clone(),
            source: Some(source),
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let bytes = response.bytes().await.unwrap_or_default();
        Err(CallError::Refused(
            serde_json::from_slice(&bytes).unwrap_or_else(|_| {
                Problem::new(
                    status,
                    "unexplained",
                    "The other side refused without a reason",
                    format!("{} answered with status {status}", self.host),
                )
            }),
        ))
    }

    /// Reads a JSON answer; an empty one counts as `null`.
    pub async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, CallError> {
        let bytes = response
            .bytes()
            .await
            .map_err(|source| CallError::Unreachable {
                peer: self.host.clone(),
                source: Some(source),
            })?;
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|error| CallError::Unexpected {
            peer: self.host.clone(),
            detail: error.to_string(),
        })
    }
}

/// Calls any instance of control: the last one that answered first, then the others.
#[derive(Clone)]
pub struct ControlClient {
    credentials: Arc<Credentials>,
    peers: Arc<Mutex<Vec<(SocketAddr, PeerClient)>>>,
}

impl ControlClient {
    /// A client for the instances at these addresses.
    pub fn new(
        credentials: Credentials,
        addresses: &[SocketAddr],
    ) -> Result<Self, CredentialsError> {
        let client = Self {
            credentials: Arc::new(credentials),
            peers: Arc::new(Mutex::new(Vec::new())),
        };
        client.set_addresses(addresses)?;
        Ok(client)
    }

    /// Replaces the addresses; clients of those that stay are kept. An empty list changes nothing.
    pub fn set_addresses(&self, addresses: &[SocketAddr]) -> Result<(), CredentialsError> {
        if addresses.is_empty() {
            return Ok(());
        }
        let mut peers = self.lock();
        let mut next = Vec::with_capacity(addresses.len());
        for address in addresses {
            match peers.iter().find(|(known, _)| known == address) {
                Some(kept) => next.push(kept.clone()),
                None => next.push((
                    *address,
                    PeerClient::named(&self.credentials, CONTROL_HOST.to_owned(), *address)?,
                )),
            }
        }
        *peers = next;
        Ok(())
    }

    /// Asks by new connections from now on: one that a broken link has cut repeats what was lost
    /// ever more rarely, also when the link is whole again.
    pub fn reconnect(&self) {
        let mut peers = self.lock();
        for (address, peer) in &mut *peers {
            // It could be made before, of the same credentials.
            if let Ok(fresh) =
                PeerClient::named(&self.credentials, CONTROL_HOST.to_owned(), *address)
            {
                *peer = fresh;
            }
        }
    }

    /// The addresses, the last one that answered first.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.lock().iter().map(|(address, _)| *address).collect()
    }

    /// The clients, the last one that answered first, for callers that stream.
    pub fn peers(&self) -> Vec<PeerClient> {
        self.lock().iter().map(|(_, peer)| peer.clone()).collect()
    }

    /// Sends JSON and reads JSON. An instance that does not answer within the deadline is passed
    /// over for the next one; an instance that says no has spoken for all.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
        deadline: Duration,
    ) -> Result<T, CallError> {
        let mut last = CallError::Unreachable {
            peer: CONTROL_HOST.to_owned(),
            source: None,
        };
        // A copy: nobody waits for the list while a call is under way.
        let peers = self.lock().clone();
        for (address, peer) in peers {
            match peer.call(method.clone(), path, body, deadline).await {
                Err(error) if error.is_transient() => last = error,
                outcome => {
                    self.prefer(address);
                    return outcome;
                }
            }
        }
        Err(last)
    }

    fn prefer(&self, address: SocketAddr) {
        let mut peers = self.lock();
        if let Some(at) = peers.iter().position(|(known, _)| *known == address) {
            peers[..=at].rotate_right(1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(SocketAddr, PeerClient)>> {
        // The list is replaced whole, so a panic elsewhere cannot leave it half done.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
