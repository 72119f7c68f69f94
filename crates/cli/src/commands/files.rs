//! A site's files.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio_util::io::ReaderStream;
use undine_api::public::FileEntry;
use undine_client::{Body, ListFilesQuery, PutFileQuery, ReadFileQuery, RemoveFileQuery};
use undine_model::SiteId;
use undine_model::path::visible;

use super::{ANY, Context, confirm};
use crate::args::Files;
use crate::show::say;

const COLUMNS: [(&str, &str); 4] = [
    ("NAME", "name"),
    ("KIND", "kind"),
    ("SIZE", "size"),
    ("CHANGED", "modified_at"),
];

pub async fn run(context: &Context, command: Files) -> Result<()> {
    match command {
        Files::Ls { site, path } => list(context, &site, &path).await,
        Files::Get { site, path, to } => get(context, &site, &path, to).await,
        Files::Put {
            site,
            from,
            path,
            new,
            parents,
        } => {
            let query = PutFileQuery {
                path,
                new: Some(new),
                parents: Some(parents),
            };
            put(context, &site, &from, query).await
        }
        Files::Rm { site, path, sure } => {
            confirm(&sure, "removing a file, or a folder with all in it,")?;
            let id = context.site(&site).await?;
            let query = RemoveFileQuery { path: path.clone() };
            context.client.remove_file(id, &query, ANY).await?;
            context.tell(&json!({ "removed": visible(&path) }))
        }
    }
}

async fn every(context: &Context, site: SiteId, path: &str) -> Result<Vec<FileEntry>> {
    let mut query = ListFilesQuery {
        path: Some(path.to_owned()),
        limit: None,
        cursor: None,
    };
    let mut items = Vec::new();
    loop {
        let page = context.client.list_files(site, &query).await?;
        items.extend(page.items);
        query.cursor = page.next;
        if query.cursor.is_none() {
            return Ok(items);
        }
    }
}

async fn list(context: &Context, site: &str, path: &str) -> Result<()> {
    let id = context.site(site).await?;
    let mut items = every(context, id, path).await?;
    if !context.json {
        // A name may hold what would move the cursor.
        for item in &mut items {
            item.name = visible(&item.name);
        }
    }
    context.list(&items, &COLUMNS)
}

async fn get(context: &Context, site: &str, path: &str, to: Option<PathBuf>) -> Result<()> {
    let id = context.site(site).await?;
    let query = ReadFileQuery {
        path: path.to_owned(),
    };
    let response = context.client.read_file(id, &query).await?;
    let screen = to.as_deref() == Some(Path::new("-"));
    let to = match to {
        Some(to) => to,
        None => own_name(path)?,
    };
    let mut out: Box<dyn std::io::Write> = match screen {
        true => Box::new(std::io::stdout()),
        // Nothing that is here is overwritten unless it is named.
        false => Box::new(
            std::fs::File::create(&to)
                .with_context(|| format!("{} cannot be written", to.display()))?,
        ),
    };
    let mut stream = response.bytes_stream();
    let mut size = 0;
    while let Some(piece) = stream.next().await {
        let piece = piece.context("the file broke off; fetch it again")?;
        size += piece.len();
        out.write_all(&piece)
            .with_context(|| format!("{} cannot be written", to.display()))?;
    }
    out.flush()?;
    match screen {
        true => Ok(()),
        false => context.tell(&json!({ "file": to, "size": size })),
    }
}

/// The file's own name, here, where nothing has it yet.
fn own_name(path: &str) -> Result<PathBuf> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.is_empty() || name == ".." || name == "." || visible(name) != name {
        bail!("say where to write it");
    }
    let to = PathBuf::from(name);
    if to.exists() {
        bail!("{name} is here already; say where to write it");
    }
    Ok(to)
}

async fn put(context: &Context, site: &str, from: &Path, query: PutFileQuery) -> Result<()> {
    let file = tokio::fs::File::open(from)
        .await
        .with_context(|| format!("{} cannot be read", from.display()))?;
    let meta = file.metadata().await?;
    if !meta.is_file() {
        bail!("{} is no file; a whole folder is deployed", from.display());
    }
    let id = context.site(site).await?;
    let body = Body::wrap_stream(ReaderStream::with_capacity(file, 1 << 18));
    let entry = context
        .client
        .put_file(id, &query, ANY, body, meta.len())
        .await?;
    if context.json {
        return context.tell(&entry);
    }
    say!("{} has {} bytes", query.path, entry.size);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_elsewhere_is_not_written_to_blindly() {
        for path in ["", "current/", "current/..", "current/a\u{1b}[2J"] {
            assert!(own_name(path).is_err(), "{path:?}");
        }
        assert_eq!(
            own_name("current/new-file-9").unwrap(),
            Path::new("new-file-9")
        );
        let here = format!("{}", Path::new("Cargo.toml").display());
        assert!(own_name(&here).is_err());
    }
}
