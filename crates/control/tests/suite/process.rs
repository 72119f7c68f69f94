//! The program itself, in a process of its own: ended by a failpoint as hard as by `kill -9`, and
//! started again as by its supervisor.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use undine_model::Bytes;
use undine_testkit::node::FakeNode;

const PROGRAM: &str = env!("CARGO_BIN_EXE_undine-control");

/// A running program; dropped, it ends.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster whose only instance is a process of its own.
pub struct Cluster {
    /// Where everything lies.
    pub folder: tempfile::TempDir,
    api: String,
    inside: String,
    token: String,
    http: reqwest::Client,
}

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

impl Cluster {
    pub fn new() -> Self {
        undine_link::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let inside = free_port();
        let image = crate::world::image(folder.path());
        let output = Command::new(PROGRAM)
            .args([
                "init",
                "--domain",
                "up.localhost",
                "--internal-address",
                &inside,
            ])
            .arg("--state-dir")
            .arg(folder.path().join("state"))
            .args([
                "--store-url",
                &format!("sqlite://{}", folder.path().join("db").display()),
            ])
            .arg("--profiles")
            .arg(crate::world::checkout().join("profiles"))
            .arg("--image")
            .arg(image)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let http = reqwest::Client::new();
        Self {
            folder,
            api: free_port(),
            inside,
            token,
            http,
        }
    }

    async fn run(&self, failpoints: &str) -> Process {
        self.run_with("UNDINE_FAILPOINTS", failpoints).await
    }

    /// Runs it with this in its environment.
    pub async fn run_with(&self, name: &str, value: &str) -> Process {
        let child = Command::new(PROGRAM)
            .args([
                "run",
                "--api-listen",
                &self.api,
                "--internal-listen",
                &self.inside,
            ])
            .arg("--state-dir")
            .arg(self.folder.path().join("state"))
            .env(name, value)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(child);
        for _ in 0..200 {
            if self
                .http
                .get(format!("http://{}/healthz", self.api))
                .send()
                .await
                .is_ok()
            {
                return process;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("control did not come up");
    }

    fn words(&self, words: &[&str]) -> String {
        let output = Command::new(PROGRAM)
            .args(words)
            .arg("--state-dir")
            .arg(self.folder.path().join("state"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Sends a change and answers what came back.
    pub async fn change(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let url = format!("http://{}{path}", self.api);
        let request = self.http.request(method.parse().unwrap(), url);
        let request = request
            .bearer_auth(&self.token)
            .header("if-match", "*")
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.api);
        let sent = self.http.get(url).bearer_auth(&self.token).send().await;
        serde_json::from_str(&sent.unwrap().text().await.unwrap()).unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Result<u16, reqwest::Error> {
        let request = self
            .http
            .post(format!("http://{}{path}", self.api))
            .bearer_auth(&self.token);
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        Ok(request.send().await?.status().as_u16())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_killed_over_an_operation_ends_it_when_it_is_back() {
    let cluster = Cluster::new();
    let mut first = cluster.run("server.create/boot/done=abort").await;
    let token = cluster.words(&["token", "node", "--name", "node-1"]);
    let node = FakeNode::join(&token, "node-1", Bytes::gib(4))
        .await
        .unwrap();
    // The process may die before it answers.
    let _ = cluster
        .post("/v1/servers", json!({"name": "web-1", "profile": "static"}))
        .await;
    let status = tokio::task::spawn_blocking(move || first.0.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(!status.success());
    let _second = cluster.run("").await;
    for _ in 0..200 {
        let operations = cluster.get("/v1/operations").await;
        if operations["items"][0]["state"] == "succeeded" {
            let servers = cluster.get("/v1/servers").await;
            assert_eq!(servers["items"][0]["state"], "running");
            assert_eq!(node.state().servers.len(), 1);
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the operation did not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_brings_back_what_was_there() {
    let cluster = Cluster::new();
    let running = cluster.run("").await;
    let backup = cluster.folder.path().join("backup.db");
    cluster.words(&["backup", backup.to_str().unwrap()]);
    let made = cluster
        .post("/v1/accounts", json!({"name": "late", "plan": "standard"}))
        .await;
    assert_eq!(made.unwrap(), 201);
    drop(running);
    cluster.words(&["restore", backup.to_str().unwrap()]);
    let _again = cluster.run("").await;
    assert_eq!(cluster.get("/v1/accounts").await["items"], json!([]));
    assert_eq!(cluster.get("/v1/whoami").await["domain"], "up.localhost");
}
