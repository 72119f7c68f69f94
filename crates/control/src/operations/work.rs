//! What a step has in its hands: the instance, the operation, and what earlier steps found out.

use serde::Serialize;
use serde::de::DeserializeOwned;
use undine_model::ServerId;
use undine_store::{Db, Node, Operation, Server, Step};

use super::trouble::{Outcome, Trouble};
use crate::clock::now_ms;
use crate::control::Control;
use crate::nodes::NodeClient;

/// An operation in an instance's hands.
pub struct Work {
    /// The instance.
    pub control: Control,
    /// The operation, as last saved.
    pub operation: Operation,
    /// Its steps, as last saved.
    pub steps: Vec<Step>,
    /// The step that is being done.
    pub at: usize,
}

impl Work {
    /// What it was asked, by name.
    pub fn param<T: DeserializeOwned>(&self, name: &str) -> Outcome<T> {
        read(&self.operation.params, name)
    }

    /// What an earlier step found out, by name.
    pub fn found<T: DeserializeOwned>(&self, name: &str) -> Outcome<T> {
        read(&self.operation.results, name)
    }

    /// Keeps what this step found out; saved when the step ends.
    pub fn keep(&mut self, name: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or_default();
        if !self.operation.results.is_object() {
            self.operation.results = serde_json::json!({});
        }
        self.operation.results[name] = value;
    }

    /// Says how far it is; written at once, so that whoever watches sees it.
    pub async fn progress(&mut self, text: impl Into<String>) -> Outcome<()> {
        let text = text.into();
        let step = &mut self.steps[self.at];
        if step.detail["progress"] == text.as_str() {
            return Ok(());
        }
        step.detail = serde_json::json!({ "progress": text });
        let step = step.clone();
        self.operation = self
            .control
            .store
            .operations()
            .save(&self.operation, self.control.id, &[step], now_ms())
            .await?;
        Ok(())
    }

    /// The server that it works on.
    pub async fn server(&self) -> Outcome<Server> {
        let id: ServerId = self.param("server")?;
        self.control.store.servers().find(id).await?.ok_or_else(|| {
            Trouble::stop("the server was removed meanwhile", "Nothing is left to do.")
        })
    }

    /// The node of a server.
    pub async fn node_of(&self, server: &Server) -> Outcome<(Node, NodeClient)> {
        let id = server.node.ok_or_else(|| {
            Trouble::stop("the server has no node", "Delete it and make it again.")
        })?;
        let node = self.control.store.nodes().find(id).await?.ok_or_else(|| {
            Trouble::stop(
                "the server's node was removed",
                "Delete the server and make it again.",
            )
        })?;
        let client = self.control.nodes.of(&node)?;
        Ok((node, client))
    }
}

fn read<T: DeserializeOwned>(from: &serde_json::Value, name: &str) -> Outcome<T> {
    serde_json::from_value(from[name].clone()).map_err(|error| {
        Trouble::stop(
            format!("the operation's `{name}` cannot be read: {error}"),
            "It was made by another version of control; start the work anew.",
        )
    })
}
