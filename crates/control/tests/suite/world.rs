//! A cluster in one process: instances of control on real listeners, fake nodes, callers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use undine_control::Control;
use undine_control::clock::sha256;
use undine_control::commands::import::Imports;
use undine_control::commands::init::{Init, init};
use undine_control::commands::join::{Join, join};
use undine_control::commands::run::{open, serve};
use undine_control::commands::token::token;
use undine_control::control::PublicPorts;
use undine_control::failpoint::Failpoints;
use undine_control::state_dir::StateDir;
use undine_model::Bytes;
use undine_store::Joiner;
use undine_testkit::node::FakeNode;

/// A cluster; dropped, all of it ends.
pub struct World {
    /// Where everything lies.
    pub folder: tempfile::TempDir,
    /// The instances.
    pub instances: Vec<Instance>,
    /// The provider's token.
    pub provider: String,
    http: reqwest::Client,
}

/// An instance of control.
pub struct Instance {
    /// Its state directory.
    pub state: StateDir,
    /// Its heart.
    pub control: Control,
    /// Its public API.
    pub api: SocketAddr,
    /// Its internal API.
    pub internal: SocketAddr,
    /// Where it dies.
    pub failpoints: Failpoints,
    told: CancellationToken,
    task: JoinHandle<()>,
}

impl Instance {
    /// As dead as by `kill -9`.
    pub fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.told.cancel();
        self.task.abort();
    }
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body; null when empty.
    pub body: Value,
    /// `ETag`.
    pub etag: Option<String>,
    /// Whether it was given before.
    pub replayed: bool,
}

impl Reply {
    /// A text of the body, by JSON pointer.
    pub fn text(&self, pointer: &str) -> String {
        match self.body.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => panic!("no {pointer} in {self:?}"),
        }
    }

    /// Panics unless the status is this one.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// The checkout that this is tested in.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A tiny image: three files and their description.
pub fn image(folder: &Path) -> PathBuf {
    let path = folder.join("image");
    std::fs::create_dir_all(&path).unwrap();
    let file = |name: &str| {
        std::fs::write(path.join(name), name).unwrap();
        json!({"file": name, "sha256": sha256(name), "size": name.len()})
    };
    let image = json!({
        "name": "debian12-web", "release": "bookworm", "hash": sha256("image"),
        "files": {"root": file("root"), "kernel": file("kernel"), "initrd": file("initrd")},
        "cmdline": "quiet", "data_format": 1, "packages": ["nginx 1.22"],
    });
    std::fs::write(path.join("image.json"), image.to_string()).unwrap();
    path
}

async fn instance(state: StateDir, api: TcpListener, inside: TcpListener) -> Instance {
    let failpoints = Failpoints::default();
    let control = open(&state, failpoints.clone()).await.unwrap();
    let (at, internal) = (api.local_addr().unwrap(), inside.local_addr().unwrap());
    let told = CancellationToken::new();
    let (this, until) = (control.clone(), told.clone());
    let task = tokio::spawn(async move {
        serve(&this, api, inside, until).await.unwrap();
    });
    Instance {
        state,
        control,
        api: at,
        internal,
        failpoints,
        told,
        task,
    }
}

async fn loopback() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

impl World {
    /// One instance on SQLite.
    pub async fn new() -> Self {
        Self::on(None).await
    }

    /// One instance on this store, or on SQLite.
    pub async fn on(store_url: Option<String>) -> Self {
        undine_link::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let (api, inside) = (loopback().await, loopback().await);
        let path = folder.path().join("control-1");
        let store_url =
            store_url.unwrap_or_else(|| format!("sqlite://{}", folder.path().join("db").display()));
        let wish = Init {
            state_dir: path.clone(),
            store_url,
            name: "control-1".parse().unwrap(),
            domain: "up.localhost".to_owned(),
            internal_address: inside.local_addr().unwrap(),
            management: vec!["127.0.0.0/8".to_owned()],
            servers_ipv4: "10.214.0.0/16".to_owned(),
            servers_ipv6: "fd5e:d1e0:214::/64".to_owned(),
            edges: vec!["10.214.0.2".parse().unwrap()],
            machine: "pc-q35-10.0".to_owned(),
            cpu_model: "qemu64".to_owned(),
            ports: PublicPorts {
                http: 8080,
                https: 8443,
            },
            imports: Imports {
                profiles: Some(checkout().join("profiles")),
                apps: Some(checkout().join("apps")),
                images: vec![image(folder.path())],
            },
        };
        let provider = init(&wish).await.unwrap();
        let first = instance(StateDir::new(path), api, inside).await;
        Self {
            folder,
            instances: vec![first],
            provider,
            http: reqwest::Client::new(),
        }
    }

    /// One more instance joins, with a real token.
    pub async fn another_instance(&mut self) {
        let number = self.instances.len() + 1;
        let name: undine_model::Slug = format!("control-{number}").parse().unwrap();
        let (api, inside) = (loopback().await, loopback().await);
        let path = self.folder.path().join(name.as_str());
        let text = token(&self.instances[0].state, Joiner::Control, None, None)
            .await
            .unwrap();
        let wish = Join {
            token: text.parse().unwrap(),
            state_dir: path.clone(),
            name,
            internal_address: inside.local_addr().unwrap(),
        };
        join(&wish).await.unwrap();
        self.instances
            .push(instance(StateDir::new(path), api, inside).await);
    }

    /// An instance starts again over the same state, its public API on another port.
    pub async fn restart(&mut self, index: usize) {
        let (state, internal) = (
            self.instances[index].state.clone(),
            self.instances[index].internal,
        );
        self.instances[index].kill();
        let inside = loop {
            match TcpListener::bind(internal).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        self.instances[index] = instance(state, loopback().await, inside).await;
    }

    /// A node joins.
    pub async fn node(&self, name: &str, memory: Bytes) -> FakeNode {
        let state = &self.instances[0].state;
        let text = token(state, Joiner::Node, None, None).await.unwrap();
        FakeNode::join(&text, name, memory).await.unwrap()
    }

    /// Sends a request to an instance as the bearer of a token.
    pub async fn send(
        &self,
        instance: usize,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Reply {
        let url = format!("http://{}{path}", self.instances[instance].api);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        read(request.send().await.unwrap()).await
    }

    /// Sends raw bytes.
    pub async fn send_raw(&self, path: &str, kind: &str, body: Vec<u8>) -> Reply {
        let url = format!("http://{}{path}", self.instances[0].api);
        let request = self
            .http
            .post(url)
            .bearer_auth(&self.provider)
            .header("content-type", kind);
        read(request.body(body).send().await.unwrap()).await
    }

    /// As the provider, to the first instance.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(0, &self.provider, "GET", path, None, &[]).await
    }

    /// As the provider, to the first instance.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(
            0,
            &self.provider,
            "POST",
            path,
            Some(body),
            &[("if-match", "*")],
        )
        .await
    }

    /// As the provider, to the first instance, at any version.
    pub async fn change(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.send(0, &self.provider, method, path, body, &[("if-match", "*")])
            .await
    }

    /// Waits until an operation has ended; any instance that answers is asked.
    pub async fn ended(&self, operation: &str) -> Value {
        let since = Instant::now();
        let path = format!("/v1/operations/{operation}");
        loop {
            for instance in 0..self.instances.len() {
                if self.instances[instance].task.is_finished() {
                    continue;
                }
                let reply = self
                    .send(instance, &self.provider, "GET", &path, None, &[])
                    .await;
                let state = reply.body["state"].as_str().unwrap_or_default().to_owned();
                if state == "succeeded" || state == "failed" {
                    return reply.body;
                }
                assert!(
                    since.elapsed() < Duration::from_secs(60),
                    "stuck: {reply:?}"
                );
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until an operation has ended well.
    pub async fn done(&self, reply: &Reply) -> Value {
        let operation = self.ended(&reply.text("/operation/id")).await;
        assert_eq!(operation["state"], "succeeded", "{operation}");
        operation
    }

    /// A server, up; its id.
    pub async fn server(&self, name: &str, profile: &str) -> String {
        let reply = self
            .post("/v1/servers", json!({"name": name, "profile": profile}))
            .await;
        let reply = reply.expect(202);
        self.done(&reply).await;
        reply.text("/server/id")
    }

    /// An account on the standard plan, with a token of its own: its id and the secret.
    pub async fn account(&self, name: &str) -> (String, String) {
        let account = self
            .post("/v1/accounts", json!({"name": name, "plan": "standard"}))
            .await;
        let id = account.expect(201).text("/id");
        let wish = json!({"name": "own", "role": "account_owner", "account": id});
        let token = self
            .post("/v1/tokens", wish)
            .await
            .expect(201)
            .text("/secret");
        (id, token)
    }

    /// A site, active; its id.
    pub async fn site(&self, domain: &str, account: &str, server: &str, runtime: &str) -> String {
        let wish =
            json!({"domain": domain, "account": account, "server": server, "runtime": runtime});
        let reply = self.post("/v1/sites", wish).await.expect(202);
        self.done(&reply).await;
        reply.text("/site/id")
    }
}

async fn read(response: reqwest::Response) -> Reply {
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap_or_default().to_owned())
    };
    let (status, etag) = (response.status().as_u16(), header("etag"));
    let replayed = header("idempotent-replay").is_some();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Reply {
        status,
        body,
        etag,
        replayed,
    }
}
