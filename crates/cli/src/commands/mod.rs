//! One file a kind of thing; each function is one command.

mod catalogue;
mod cluster;
mod files;
mod mail;
mod observe;
mod resellers;
mod server;
mod site;
mod tenancy;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use undine_client::Client;
use undine_model::{AccountId, NodeId, OperationId, ResellerId, ServerId, SiteId};

use crate::args::{Command, Sure, Waiting};
use crate::show::{self, Column, say};
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
        Command::Settings(it) => cluster::settings(context, it).await,
        Command::JoinToken(it) => cluster::join_token(context, it).await,
        Command::Capacity => cluster::capacity(context).await,
        Command::WhatIf(wish) => cluster::what_if(context, wish).await,
        Command::Server(it) => server::run(context, it).await,
        Command::Account(it) => tenancy::account(context, it).await,
        Command::Plan(it) => tenancy::plan(context, it).await,
        Command::Reseller(it) => resellers::run(context, it).await,
        Command::Token(it) => tenancy::token(context, it).await,
        Command::Whoami => context.tell(&context.client.who_am_i().await?),
        Command::Site(it) => site::run(context, it).await,
        Command::Database(it) => site::database(context, it).await,
        Command::App(it) => catalogue::app(context, it).await,
        Command::Profile(it) => catalogue::profile(context, it).await,
        Command::Image(_) => catalogue::images(context).await,
        Command::Operation(it) => observe::operation(context, it).await,
        Command::Audit(it) => observe::audit(context, it).await,
        Command::Events { after } => observe::events(context, after).await,
        Command::Metrics(it) => observe::metrics(context, &it).await,
        Command::SupportBundle { out } => observe::support_bundle(context, &out).await,
        Command::Completion { .. } => Ok(()),
    }
}

/// Changes take whatever version there is: the person has just looked.
const ANY: &str = "*";

/// Every item of a list: `every!(context, every_sites, ListSitesQuery)`.
macro_rules! every {
    ($context:expr, $call:ident, $query:ident) => {
        $context
            .client
            .$call(undine_client::$query::default())
            .await?
    };
}
use every;

impl Context {
    /// Prints a list.
    fn list(&self, items: &[impl Serialize], columns: &[Column]) -> Result<()> {
        if self.json {
            return json(items);
        }
        let items: Vec<Value> = items
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?;
        show::table(&items, columns);
        Ok(())
    }

    /// Prints an answer.
    fn tell(&self, item: &impl Serialize) -> Result<()> {
        if self.json {
            return json(item);
        }
        show::record(&serde_json::to_value(item)?);
        Ok(())
    }

    /// Prints what was made or started; waits for its operation when that was asked for.
    async fn follow(&self, answer: impl Serialize, waiting: &Waiting) -> Result<()> {
        let mut answer = serde_json::to_value(answer)?;
        let operation = answer
            .get("operation")
            .filter(|it| it.is_object())
            .unwrap_or(&answer);
        let id = operation
            .get("id")
            .filter(|_| operation.get("steps").is_some());
        let Some(id) = id.filter(|_| waiting.wait) else {
            return self.tell(&answer);
        };
        let id: OperationId = serde_json::from_value(id.clone())?;
        let done = serde_json::to_value(wait(&self.client, id).await?)?;
        match answer.get_mut("operation") {
            Some(slot) => *slot = done,
            None => answer = done,
        }
        if self.json {
            return json(&answer);
        }
        say!("done");
        if let Some(password) = answer.get("password").and_then(Value::as_str) {
            say!("password (shown once): {password}");
        }
        Ok(())
    }

    /// The node that a person names by its id or by its name.
    async fn node(&self, text: &str) -> Result<NodeId> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let query = undine_client::ListNodesQuery {
            name: Some(text.to_lowercase()),
            ..Default::default()
        };
        let found = self.client.list_nodes(&query).await?;
        first(found.items.iter().map(|it| it.id), "node", text)
    }

    /// The server that a person names by its id or by its name.
    async fn server(&self, text: &str) -> Result<ServerId> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let query = undine_client::ListServersQuery {
            name: Some(text.to_lowercase()),
            ..Default::default()
        };
        let found = self.client.list_servers(&query).await?;
        first(found.items.iter().map(|it| it.id), "server", text)
    }

    /// The site that a person names by its id or by its domain.
    async fn site(&self, text: &str) -> Result<SiteId> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let query = undine_client::ListSitesQuery {
            domain: Some(text.to_lowercase()),
            ..Default::default()
        };
        let found = self.client.list_sites(&query).await?;
        first(found.items.iter().map(|it| it.id), "site", text)
    }

    /// The reseller that a person names by its id or by its name.
    async fn reseller(&self, text: &str) -> Result<ResellerId> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let query = undine_client::ListResellersQuery {
            name: Some(text.to_lowercase()),
            ..Default::default()
        };
        let found = self.client.list_resellers(&query).await?;
        first(found.items.iter().map(|it| it.id), "reseller", text)
    }

    /// The account that a person names by its id or by its name.
    async fn account(&self, text: &str) -> Result<AccountId> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let query = undine_client::ListAccountsQuery {
            name: Some(text.to_lowercase()),
            ..Default::default()
        };
        let found = self.client.list_accounts(&query).await?;
        first(found.items.iter().map(|it| it.id), "account", text)
    }
}

fn first<T>(mut found: impl Iterator<Item = T>, kind: &str, text: &str) -> Result<T> {
    found.next().with_context(|| {
        format!("there is no {kind} `{text}`; `undine {kind} list` shows what there is (404)")
    })
}

/// Prints JSON for programs.
fn json(value: &(impl Serialize + ?Sized)) -> Result<()> {
    say!("{}", serde_json::to_string(value)?);
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
fn file<T: DeserializeOwned>(path: &std::path::Path) -> Result<T> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not what is wanted here", path.display()))
}
