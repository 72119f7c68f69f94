//! One file a kind of thing; each function is one command.

mod catalogue;
mod cluster;
mod observe;
mod server;
mod site;
mod tenancy;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::Value;
use undine_api::public::Operation;
use uuid::Uuid;

use crate::args::{Command, Sure, Waiting};
use crate::client::Client;
use crate::show::{self, Column};
use crate::wait::wait;

/// Whom to ask and how to answer.
pub struct Context {
    /// Control.
    pub client: Client,
    /// Answer in JSON.
    pub json: bool,
}

/// Does what was asked for.
pub async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Node(it) => cluster::node(context, it).await,
        Command::Instance(_) => cluster::instances(context).await,
        Command::Edge(_) => cluster::edges(context).await,
        Command::JoinToken(it) => cluster::join_token(context, it).await,
        Command::Capacity => cluster::capacity(context).await,
        Command::Server(it) => server::run(context, it).await,
        Command::Account(it) => tenancy::account(context, it).await,
        Command::Plan(it) => tenancy::plan(context, it).await,
        Command::Token(it) => tenancy::token(context, it).await,
        Command::Whoami => context.look("/v1/whoami").await,
        Command::Site(it) => site::run(context, it).await,
        Command::Database(it) => site::database(context, it).await,
        Command::App(it) => catalogue::app(context, it).await,
        Command::Profile(it) => catalogue::profile(context, it).await,
        Command::Image(_) => catalogue::images(context).await,
        Command::Operation(it) => observe::operation(context, it).await,
        Command::Audit(_) => observe::audit(context).await,
        Command::Events { after } => observe::events(context, after).await,
        Command::Metrics(it) => observe::metrics(context, &it).await,
        Command::SupportBundle { out } => observe::support_bundle(context, &out).await,
        Command::Completion { .. } => Ok(()),
    }
}

impl Context {
    /// Prints a list.
    async fn list(&self, path: &str, columns: &[Column]) -> Result<()> {
        let items: Vec<Value> = self.client.all(path).await?;
        if self.json {
            return json(&items);
        }
        show::table(&items, columns);
        Ok(())
    }

    /// Prints one thing.
    async fn look(&self, path: &str) -> Result<()> {
        let item: Value = self.client.get(path).await?;
        self.tell(&item)
    }

    /// Prints an answer.
    fn tell(&self, item: &Value) -> Result<()> {
        if self.json {
            return json(item);
        }
        show::record(item);
        Ok(())
    }

    /// Prints what was made or started; waits for its operation when that was asked for.
    async fn follow(&self, answer: Value, waiting: &Waiting) -> Result<()> {
        let operation = answer
            .get("operation")
            .filter(|it| it.is_object())
            .unwrap_or(&answer);
        let id = operation
            .get("id")
            .and_then(Value::as_str)
            .filter(|_| operation.get("steps").is_some());
        let Some(id) = id.filter(|_| waiting.wait) else {
            return self.tell(&answer);
        };
        let operation: Operation = wait(&self.client, id).await?;
        let mut answer = answer;
        let done = serde_json::to_value(operation)?;
        match answer.get_mut("operation") {
            Some(slot) => *slot = done,
            None => answer = done,
        }
        if self.json {
            return json(&answer);
        }
        println!("done");
        if let Some(password) = answer.get("password").and_then(Value::as_str) {
            println!("password (shown once): {password}");
        }
        Ok(())
    }

    /// The id of a thing that a person names by its id or by its name.
    async fn id(&self, collection: &str, field: &str, text: &str) -> Result<String> {
        if let Ok(id) = Uuid::try_parse(text) {
            return Ok(id.to_string());
        }
        let wanted = text.to_lowercase();
        // Long lists can be asked for one name; short ones are looked through.
        let filter = match collection {
            "sites" | "servers" => format!("?{field}={wanted}"),
            _ => String::new(),
        };
        let items: Vec<Value> = self
            .client
            .all(&format!("/v1/{collection}{filter}"))
            .await?;
        let found = items
            .iter()
            .find(|item| item.get(field).and_then(Value::as_str) == Some(&wanted));
        let id = found
            .and_then(|item| item.get("id"))
            .and_then(Value::as_str);
        let singular = collection.trim_end_matches('s');
        id.map(str::to_owned).with_context(|| {
            format!("there is no {singular} `{text}`; `undine {singular} list` shows what there is (404)")
        })
    }
}

/// Prints JSON for programs.
fn json(value: &(impl Serialize + ?Sized)) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// Refuses what cannot be undone until it is confirmed.
fn confirm(sure: &Sure, what: &str) -> Result<()> {
    if !sure.yes {
        bail!("{what} cannot be undone; add --yes to do it");
    }
    Ok(())
}

/// A JSON file that the person named.
fn file(path: &std::path::Path) -> Result<Value> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}
