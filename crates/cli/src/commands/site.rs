//! Sites, their releases and databases.

use std::path::Path;

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;
use undine_api::guest::ArchiveFormat;
use undine_api::public::{CreateSite, IDEMPOTENCY_KEY};
use uuid::Uuid;

use super::{Context, confirm, file};
use crate::args::{Database, LogName, Site, Waiting};
use crate::client::read;
use crate::pack::pack;

const COLUMNS: [(&str, &str); 5] = [
    ("DOMAIN", "domain"),
    ("STATE", "state"),
    ("RUNTIME", "runtime"),
    ("SERVER", "server"),
    ("URL", "url"),
];
const RELEASES: [(&str, &str); 5] = [
    ("ID", "id"),
    ("STATE", "state"),
    ("LIVE", "live"),
    ("SIZE", "size"),
    ("MADE", "created_at"),
];
const DATABASES: [(&str, &str); 4] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("USER", "user"),
    ("SITE", "site"),
];

pub async fn run(context: &Context, command: Site) -> Result<()> {
    match command {
        Site::List => context.list("/v1/sites", &COLUMNS).await,
        Site::Show { site } => context.look(&path(context, &site, "").await?).await,
        Site::Create {
            domain,
            account,
            server,
            runtime,
            alias,
            waiting,
        } => {
            let settings = undine_manifest::SiteSettings::default();
            let wish = CreateSite {
                domain,
                aliases: alias,
                account,
                server,
                runtime,
                settings,
            };
            let answer = context.client.post("/v1/sites", &wish).await?;
            context.follow(answer, &waiting).await
        }
        Site::Deploy {
            site,
            path,
            waiting,
        } => deploy(context, &site, &path, &waiting).await,
        Site::Releases { site } => {
            context
                .list(&path(context, &site, "/releases").await?, &RELEASES)
                .await
        }
        Site::Rollback {
            site,
            release,
            waiting,
        } => {
            post(
                context,
                &site,
                "/rollback",
                &json!({ "release": release }),
                &waiting,
            )
            .await
        }
        Site::Settings {
            site,
            file: settings,
            waiting,
        } => {
            let body = json!({ "settings": file(&settings)? });
            let path = path(context, &site, "").await?;
            let answer = context
                .client
                .change(Method::PATCH, &path, Some(&body))
                .await?;
            context.follow(answer, &waiting).await
        }
        Site::Logs { site, log, lines } => logs(context, &site, log, lines).await,
        Site::Suspend { site, waiting } => {
            post(context, &site, "/suspend", &json!({}), &waiting).await
        }
        Site::Unsuspend { site, waiting } => {
            post(context, &site, "/unsuspend", &json!({}), &waiting).await
        }
        Site::Delete {
            site,
            sure,
            waiting,
        } => {
            confirm(&sure, "deleting a site with its content and databases")?;
            let path = path(context, &site, "").await?;
            let answer = context.client.change(Method::DELETE, &path, None).await?;
            context.follow(answer, &waiting).await
        }
    }
}

pub async fn database(context: &Context, command: Database) -> Result<()> {
    match command {
        Database::List => context.list("/v1/databases", &DATABASES).await,
        Database::Create {
            site,
            name,
            waiting,
        } => {
            let site = context.id("sites", "domain", &site).await?;
            let wish = json!({ "site": site, "name": name });
            let answer = context.client.post("/v1/databases", &wish).await?;
            context.follow(answer, &waiting).await
        }
        Database::Delete {
            database,
            sure,
            waiting,
        } => {
            confirm(&sure, "deleting a database with its content")?;
            let path = format!("/v1/databases/{database}");
            let answer = context.client.change(Method::DELETE, &path, None).await?;
            context.follow(answer, &waiting).await
        }
    }
}

async fn path(context: &Context, site: &str, more: &str) -> Result<String> {
    let id = context.id("sites", "domain", site).await?;
    Ok(format!("/v1/sites/{id}{more}"))
}

async fn post(
    context: &Context,
    site: &str,
    more: &str,
    body: &Value,
    waiting: &Waiting,
) -> Result<()> {
    let path = path(context, site, more).await?;
    let answer = context.client.post(&path, body).await?;
    context.follow(answer, waiting).await
}

async fn deploy(context: &Context, site: &str, from: &Path, waiting: &Waiting) -> Result<()> {
    let packed = pack(from)?;
    let path = path(context, site, "/releases").await?;
    let format = match packed.format {
        ArchiveFormat::Tar => "tar",
        ArchiveFormat::TarGz => "tar-gz",
        ArchiveFormat::TarZst => "tar-zst",
        ArchiveFormat::Zip => "zip",
    };
    let path = format!(
        "{path}?format={format}&sha256={}&activate=true",
        packed.sha256
    );
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(packed.file), 1 << 18);
    let request = context
        .client
        .request(Method::POST, &path)
        .header(IDEMPOTENCY_KEY, Uuid::now_v7().to_string())
        .header("content-type", "application/octet-stream")
        .header("content-length", packed.size)
        .body(reqwest::Body::wrap_stream(stream));
    let answer = read(context.client.send(request).await?).await?;
    context.follow(answer, waiting).await
}

async fn logs(context: &Context, site: &str, log: LogName, lines: u32) -> Result<()> {
    let log = match log {
        LogName::Access => "access",
        LogName::Error => "error",
    };
    let path = path(context, site, &format!("/logs?log={log}&lines={lines}")).await?;
    let answer: Value = context.client.get(&path).await?;
    if context.json {
        return context.tell(&answer);
    }
    for line in answer
        .get("lines")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        println!("{}", line.as_str().unwrap_or_default());
    }
    Ok(())
}
