//! Calls the command line `undine` as a user does.

use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use crate::summary::{Node, Summary, target};

/// The command line, as somebody in particular.
pub struct Undine {
    api: String,
    token: String,
}

/// What the command line said when it refused.
#[derive(Debug)]
pub struct UndineError(pub String);

impl std::fmt::Display for UndineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for UndineError {}

impl Undine {
    /// As the provider.
    pub fn provider(summary: &Summary) -> Self {
        let token = std::fs::read_to_string(&summary.token_file).expect("up wrote the token");
        Self::with_token(summary, token.trim())
    }

    /// As the bearer of this token.
    pub fn with_token(summary: &Summary, token: &str) -> Self {
        Self {
            api: summary.control[0].url.clone(),
            token: token.to_owned(),
        }
    }

    /// Runs it with `--json` and reads the answer.
    pub fn run(&self, words: &[&str]) -> Result<Value, UndineError> {
        let done = Command::new(target().join("debug/undine"))
            .args(words)
            .arg("--json")
            .env("UNDINE_API", &self.api)
            .env("UNDINE_TOKEN", &self.token)
            .output()
            .expect("the command line is built");
        if !done.status.success() {
            return Err(UndineError(
                String::from_utf8_lossy(&done.stderr).into_owned(),
            ));
        }
        let text = String::from_utf8_lossy(&done.stdout);
        serde_json::from_str(text.trim()).map_err(|_| UndineError(format!("no JSON: {text}")))
    }

    /// The items of a list.
    pub fn list(&self, words: &[&str]) -> Result<Vec<Value>, UndineError> {
        let answer = self.run(words)?;
        Ok(answer
            .get("items")
            .unwrap_or(&answer)
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    /// The hardware node, on this machine, that a server runs on.
    pub fn place_of<'s>(&self, summary: &'s Summary, server: &str) -> anyhow::Result<&'s Node> {
        let servers = self.list(&["server", "list"])?;
        let server = servers.iter().find(|it| it["name"] == server);
        let server = server.context("the server is there")?;
        let nodes = self.list(&["node", "list"])?;
        let owner = nodes.iter().find(|it| it["id"] == server["node"]);
        let owner = owner.context("the server has a node")?;
        let mut places = summary.nodes.iter();
        let place = places.find(|it| owner["name"] == it.name.as_str());
        place.context("its node is on this machine")
    }
}
