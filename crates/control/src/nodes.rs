//! Calls to the agents of hardware nodes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use undine_api::guest::{Answer, Ask, FileTask, Files, Upload};
use undine_api::internal::Role;
use undine_api::node::{
    FetchImage, GuestCall, ImageStatus, JoinSpec, JoinStatus, NodeStatus, ReplicaSpec,
    ReplicaStatus, ScrubSpec, ScrubStatus, ServerStatus, SlotsSpec, StartSpec, StopSpec,
    TERM_HEADER, TemplateStatus, TemplateWish, UPLOAD_HEADER,
};
use undine_link::{CallError, Credentials, CredentialsError, Method, PeerClient};
use undine_model::{NodeId, ServerId};
use undine_store::Node;

/// A node answers a question about itself within this time.
const QUICK: Duration = Duration::from_secs(10);
/// A guest applies a manifest within this time, also under emulation.
const APPLY: Duration = Duration::from_secs(120);
/// An archive is made or unpacked within this time, also under emulation.
const ARCHIVE: Duration = Duration::from_secs(300);
/// An application installs itself within this time, also under emulation.
const INSTALL: Duration = Duration::from_secs(900);

/// One client a node, kept while its address stays.
pub struct NodeClients {
    credentials: Credentials,
    /// The life of the store that all is read from.
    term: u64,
    known: Mutex<HashMap<NodeId, (SocketAddr, PeerClient)>>,
}

impl NodeClients {
    /// Clients with these credentials, whose orders are read from this life of the store.
    pub fn new(credentials: Credentials, term: u64) -> Self {
        Self {
            credentials,
            term,
            known: Mutex::default(),
        }
    }

    /// The client of a node.
    pub fn of(&self, node: &Node) -> Result<NodeClient, CredentialsError> {
        let address = SocketAddr::new(node.address, node.port);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, client)) = known.get(&node.id)
            && *at == address
        {
            return Ok(NodeClient(client.clone()));
        }
        let client = PeerClient::new(&self.credentials, Role::Node, &node.id.to_string(), address)?;
        let client = client.saying(TERM_HEADER, self.term);
        known.insert(node.id, (address, client.clone()));
        Ok(NodeClient(client))
    }
}

/// The agent of one node.
#[derive(Clone)]
pub struct NodeClient(PeerClient);

type Called<T> = Result<T, CallError>;

impl NodeClient {
    /// What it is and runs.
    pub async fn status(&self) -> Called<NodeStatus> {
        self.0
            .call(Method::GET, "/node/v1/status", None::<&()>, QUICK)
            .await
    }

    /// Fetches an image, or tells how far that is.
    pub async fn image(&self, fetch: &FetchImage) -> Called<ImageStatus> {
        let path = format!("/node/v1/images/{}", fetch.manifest.hash);
        self.0.call(Method::PUT, &path, Some(fetch), QUICK).await
    }

    /// Fetches or takes a template, or tells how far that is.
    pub async fn template(&self, wish: &TemplateWish) -> Called<TemplateStatus> {
        self.0
            .call(Method::PUT, "/node/v1/templates", Some(wish), QUICK)
            .await
    }

    /// Makes or opens a replica.
    pub async fn replica(&self, server: ServerId, spec: &ReplicaSpec) -> Called<ReplicaStatus> {
        let path = format!("/node/v1/replicas/{server}");
        self.0
            .call(Method::PUT, &path, Some(spec), Duration::from_secs(30))
            .await
    }

    /// Removes a replica.
    pub async fn remove_replica(&self, server: ServerId, epoch: u64) -> Called<()> {
        let path = format!("/node/v1/replicas/{server}?epoch={epoch}");
        self.0
            .call(Method::DELETE, &path, None::<&()>, Duration::from_secs(30))
            .await
    }

    /// Starts a server, or tells how far that is.
    pub async fn start(&self, server: ServerId, spec: &StartSpec) -> Called<ServerStatus> {
        let path = format!("/node/v1/servers/{server}");
        self.0
            .call(Method::PUT, &path, Some(spec), Duration::from_secs(30))
            .await
    }

    /// Forgets a server that does not run any more; its replica stays.
    pub async fn forget(&self, server: ServerId, epoch: u64) -> Called<()> {
        let path = format!("/node/v1/servers/{server}?epoch={epoch}");
        self.0.call(Method::DELETE, &path, None::<&()>, QUICK).await
    }

    /// How a server stands.
    pub async fn server(&self, server: ServerId) -> Called<ServerStatus> {
        let path = format!("/node/v1/servers/{server}");
        self.0.call(Method::GET, &path, None::<&()>, QUICK).await
    }

    /// Stops a server, or tells how far that is.
    pub async fn stop(&self, server: ServerId, spec: &StopSpec) -> Called<ServerStatus> {
        let path = format!("/node/v1/servers/{server}/stop");
        let deadline = QUICK + Duration::from_secs(u64::from(spec.grace_s));
        self.0.call(Method::POST, &path, Some(spec), deadline).await
    }

    /// Tells the owner which copies are in sync: those that failed leave their slots.
    pub async fn slots(&self, server: ServerId, spec: &SlotsSpec) -> Called<ServerStatus> {
        let path = format!("/node/v1/servers/{server}/slots");
        self.0.call(Method::PUT, &path, Some(spec), QUICK).await
    }

    /// Copies to a replica that is to take a slot, or tells how far that is.
    pub async fn join(&self, server: ServerId, spec: &JoinSpec) -> Called<JoinStatus> {
        let path = format!("/node/v1/servers/{server}/joins/{}", spec.target.replica);
        self.0.call(Method::PUT, &path, Some(spec), QUICK).await
    }

    /// Ends a copy that is under way.
    pub async fn cancel_join(
        &self,
        server: ServerId,
        replica: undine_model::ReplicaId,
        epoch: u64,
    ) -> Called<()> {
        let path = format!("/node/v1/servers/{server}/joins/{replica}?epoch={epoch}");
        self.0.call(Method::DELETE, &path, None::<&()>, QUICK).await
    }

    /// Compares a replica with the owner's own one, or tells how far that is.
    pub async fn scrub(
        &self,
        server: ServerId,
        replica: undine_model::ReplicaId,
        spec: &ScrubSpec,
    ) -> Called<ScrubStatus> {
        let path = format!("/node/v1/servers/{server}/scrubs/{replica}");
        self.0.call(Method::PUT, &path, Some(spec), QUICK).await
    }

    /// Ends a comparison that is under way.
    pub async fn end_scrub(
        &self,
        server: ServerId,
        replica: undine_model::ReplicaId,
        epoch: u64,
    ) -> Called<()> {
        let path = format!("/node/v1/servers/{server}/scrubs/{replica}?epoch={epoch}");
        self.0.call(Method::DELETE, &path, None::<&()>, QUICK).await
    }

    /// Asks the agent inside of a server.
    pub async fn guest(&self, server: ServerId, epoch: u64, ask: Ask) -> Called<Answer> {
        let path = format!("/node/v1/servers/{server}/guest");
        let deadline = match ask {
            Ask::Install(_) => INSTALL,
            Ask::Files(Files {
                task: FileTask::Pack { .. } | FileTask::Unpack { .. },
                ..
            }) => ARCHIVE,
            Ask::Apply(_) | Ask::ApplyDelta(_) | Ask::Activate(_) => APPLY,
            Ask::Files(_) | Ask::Blank(_) => APPLY,
            _ => QUICK,
        };
        self.0
            .call(
                Method::POST,
                &path,
                Some(&GuestCall { epoch, ask }),
                deadline,
            )
            .await
    }

    /// Streams an archive through the node into a server.
    pub async fn upload<S>(
        &self,
        server: ServerId,
        epoch: u64,
        upload: &Upload,
        archive: S,
    ) -> Called<Answer>
    where
        S: futures_util::TryStream + Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        bytes::Bytes: From<S::Ok>,
    {
        let header = serde_json::to_string(upload).unwrap_or_default();
        let request = self
            .0
            .request(
                Method::POST,
                &format!("/node/v1/servers/{server}/releases?epoch={epoch}"),
            )
            .timeout(Duration::from_secs(3_600))
            .header(UPLOAD_HEADER, header)
            .header("content-length", upload.size)
            .body(reqwest::Body::wrap_stream(archive));
        let response = self.0.checked(request.send().await).await?;
        self.0.read(response).await
    }
}
