//! Sites, their releases and databases.

use std::path::Path;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use tokio_util::io::ReaderStream;
use undine_api::guest::LogKind;
use undine_api::public::{CreateDatabase, CreateSite, Rollback, UpdateSite};
use undine_client::{
    Body, DeleteSiteQuery, FollowSiteLogQuery, ListReleasesQuery, SiteLogsQuery,
    UploadReleaseQuery, new_key,
};
use undine_model::path::visible;

use super::{ANY, Context, confirm, every, file, files};
use crate::args::{Database, LogName, Site, Waiting};
use crate::pack::pack;
use crate::show::say;

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
        Site::List => context.list(&every!(context, every_sites, ListSitesQuery), &COLUMNS),
        Site::Show { site } => {
            let id = context.site(&site).await?;
            context.tell(&context.client.get_site(id).await?)
        }
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
            let answer = context.client.create_site(&new_key(), &wish).await?;
            context.follow(answer, &waiting).await
        }
        Site::Deploy {
            site,
            path,
            waiting,
        } => deploy(context, &site, &path, &waiting).await,
        Site::Releases { site } => {
            let id = context.site(&site).await?;
            let all = context
                .client
                .every_releases(id, ListReleasesQuery::default())
                .await?;
            context.list(&all, &RELEASES)
        }
        Site::Rollback {
            site,
            release,
            waiting,
        } => {
            let id = context.site(&site).await?;
            let wish = Rollback { release };
            let answer = context.client.rollback(id, ANY, &new_key(), &wish).await?;
            context.follow(answer, &waiting).await
        }
        Site::Settings {
            site,
            file: settings,
            waiting,
        } => {
            let wish = UpdateSite {
                aliases: None,
                runtime: None,
                settings: Some(file(&settings)?),
            };
            let id = context.site(&site).await?;
            let answer = context.client.update_site(id, ANY, &wish).await?;
            context.follow(answer, &waiting).await
        }
        Site::Dns { site } => {
            let id = context.site(&site).await?;
            context.tell(&context.client.site_dns(id).await?)
        }
        Site::Files(it) => files::run(context, it).await,
        Site::Logs {
            site,
            log,
            lines,
            follow: true,
            find,
        } => follow(context, &site, log, lines, find).await,
        Site::Logs {
            site, log, lines, ..
        } => logs(context, &site, log, lines).await,
        Site::Restart { site } => {
            let id = context.site(&site).await?;
            context.tell(&context.client.restart_site(id, ANY, &new_key()).await?)
        }
        Site::Suspend { site, waiting } => {
            let id = context.site(&site).await?;
            let answer = context.client.suspend_site(id, ANY, &new_key()).await?;
            context.follow(answer, &waiting).await
        }
        Site::Unsuspend { site, waiting } => {
            let id = context.site(&site).await?;
            let answer = context.client.unsuspend_site(id, ANY, &new_key()).await?;
            context.follow(answer, &waiting).await
        }
        Site::Restore { site, waiting } => {
            let id = context.site(&site).await?;
            let answer = context.client.restore_site(id, ANY, &new_key()).await?;
            context.follow(answer, &waiting).await
        }
        Site::Delete {
            site,
            for_good,
            sure,
            waiting,
        } => {
            confirm(&sure, "deleting a site with its content and databases")?;
            let id = context.site(&site).await?;
            let how = DeleteSiteQuery {
                for_good: for_good.then_some(true),
            };
            let answer = context.client.delete_site(id, &how, ANY).await?;
            context.follow(answer, &waiting).await
        }
    }
}

pub async fn database(context: &Context, command: Database) -> Result<()> {
    match command {
        Database::List => context.list(
            &every!(context, every_databases, ListDatabasesQuery),
            &DATABASES,
        ),
        Database::Create {
            site,
            name,
            waiting,
        } => {
            let site = context.site(&site).await?;
            let wish = CreateDatabase { site, name };
            let answer = context.client.create_database(&new_key(), &wish).await?;
            context.follow(answer, &waiting).await
        }
        Database::Delete {
            database,
            sure,
            waiting,
        } => {
            confirm(&sure, "deleting a database with its content")?;
            let answer = context.client.delete_database(database, ANY).await?;
            context.follow(answer, &waiting).await
        }
    }
}

async fn deploy(context: &Context, site: &str, from: &Path, waiting: &Waiting) -> Result<()> {
    let packed = pack(from)?;
    let id = context.site(site).await?;
    let query = UploadReleaseQuery {
        format: packed.format,
        sha256: packed.sha256,
        activate: Some(true),
    };
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(packed.file), 1 << 18);
    let body = Body::wrap_stream(stream);
    let answer = context
        .client
        .upload_release(id, &query, &new_key(), body, packed.size)
        .await?;
    context.follow(answer, waiting).await
}

async fn logs(context: &Context, site: &str, log: LogName, lines: u32) -> Result<()> {
    let query = SiteLogsQuery {
        log: Some(kind(log)),
        lines: Some(lines),
    };
    let id = context.site(site).await?;
    let answer = context.client.site_logs(id, &query).await?;
    if context.json {
        return context.tell(&answer);
    }
    for line in &answer.lines {
        // What visitors send stands in it: no letter of theirs moves the cursor.
        say!("{}", visible(line));
    }
    Ok(())
}

fn kind(log: LogName) -> LogKind {
    match log {
        LogName::Access => LogKind::Access,
        LogName::Error => LogKind::Error,
    }
}

/// Prints lines as they are written, until interrupted.
async fn follow(
    context: &Context,
    site: &str,
    log: LogName,
    lines: u32,
    find: Option<String>,
) -> Result<()> {
    let query = FollowSiteLogQuery {
        log: Some(kind(log)),
        find,
        lines: Some(lines),
    };
    let id = context.site(site).await?;
    let response = context.client.follow_site_log(id, &query).await?;
    let mut stream = response.bytes_stream();
    let mut rest = Vec::new();
    while let Some(piece) = stream.next().await {
        rest.extend_from_slice(&piece.context("the log's stream broke off")?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line);
            let Some(data) = text.strip_prefix("data:") else {
                continue;
            };
            let news: serde_json::Value = serde_json::from_str(data.trim())?;
            for line in news["lines"].as_array().into_iter().flatten() {
                say!("{}", visible(line.as_str().unwrap_or_default()));
            }
        }
    }
    Ok(())
}
