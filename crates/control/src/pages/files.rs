//! A site's files: what is in a folder, page by page, and a file to keep.

use askama::Template;
use axum::response::Response;
use undine_api::public::{FileEntry, FileKind, MAX_TEXT, Scope, Site};
use undine_model::SitePath;
use undine_model::path::visible;

use super::at_site::AtSite;
use super::frame::{Frame, page as written};
use super::words::{ago, bytes};
use crate::api::download::sent;
use crate::api::extract::Asked;
use crate::app::files;
use crate::clock::sha256;
use crate::refusal::Result;

/// Which folder or file.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Which {
    #[serde(default)]
    path: String,
    after: Option<String>,
    rename: Option<String>,
}

struct Row {
    id: String,
    name: String,
    path: String,
    /// As part of an address.
    query: String,
    name_query: String,
    /// As a form carries it: browsers change ends of lines, and names may have them.
    hex: String,
    kind: &'static str,
    /// Where its name leads; nowhere for what cannot be opened.
    href: String,
    size: String,
    changed: String,
    note: String,
    file: bool,
    text: bool,
    archive: bool,
}

/// A link on the way down.
struct Crumb {
    name: String,
    href: String,
}

#[derive(Template)]
#[template(path = "files.html")]
struct Page {
    f: Frame,
    id: String,
    domain: String,
    path: String,
    /// The same as part of an address.
    here: String,
    top: bool,
    /// May the viewer change things and look into files?
    deploys: bool,
    crumbs: Vec<Crumb>,
    rows: Vec<Row>,
    next: String,
    truncated: bool,
    rename: Option<Renamed>,
}

/// What gets another name.
struct Renamed {
    from: String,
    name: String,
    shown: String,
}

/// A text as part of an address.
pub fn coded(text: &str) -> String {
    let mut coded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                coded.push(char::from(byte));
            }
            other => coded.push_str(&format!("%{other:02X}")),
        }
    }
    coded
}

/// The address of a folder's page.
pub fn folder_page(site: &Site, path: &SitePath) -> String {
    match path.as_str() {
        "" => format!("/sites/{}/files", site.id),
        path => format!("/sites/{}/files?path={}", site.id, coded(path)),
    }
}

fn ends(name: &str, all: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    all.iter().any(|end| name.ends_with(end))
}

/// Is it worth a try to edit it? What it really holds is seen when it is opened.
fn like_text(entry: &FileEntry) -> bool {
    const NOT: &[&str] = &[
        ".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif", ".ico", ".pdf", ".zip", ".gz", ".tgz",
        ".zst", ".tar", ".mp3", ".mp4", ".webm", ".woff", ".woff2", ".ttf", ".phar", ".sqlite",
    ];
    entry.size <= MAX_TEXT && !ends(&entry.name, NOT)
}

/// Where a link's page is: what has an end like a file's is shown in its folder.
fn folder_of(to: &SitePath) -> SitePath {
    match to.name().is_some_and(|name| name.contains('.')) {
        true => to.parent(),
        false => to.clone(),
    }
}

fn row(site: &Site, entry: &FileEntry) -> Row {
    let path = entry.path.clone();
    let query = path
        .as_ref()
        .map(|path| coded(path.as_str()))
        .unwrap_or_default();
    let archive = ends(
        &entry.name,
        &[".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst"],
    );
    let (kind, href, note) = match (entry.kind, &path) {
        (_, None) => ("other", String::new(), "its name is no text".to_owned()),
        (FileKind::Folder, Some(path)) => ("folder", folder_page(site, path), String::new()),
        (FileKind::File, Some(_)) => ("file", String::new(), String::new()),
        (FileKind::Link, _) => match &entry.leads_to {
            Some(to) => (
                "link",
                folder_page(site, &folder_of(to)),
                format!("link to {}", visible(to.as_str())),
            ),
            None => ("link", String::new(), "link, not followed here".to_owned()),
        },
        (FileKind::Other, _) => ("other", String::new(), "no file".to_owned()),
    };
    let note = match (entry.kind, path.as_ref().map(SitePath::as_str)) {
        (FileKind::Folder, Some("current")) => "the live release: what visitors see".to_owned(),
        (FileKind::Folder, Some("shared")) => "kept when another release goes live".to_owned(),
        _ => note,
    };
    let file = entry.kind == FileKind::File && path.is_some();
    let known = entry.modified_at > 0;
    Row {
        id: sha256(&entry.name).chars().take(16).collect(),
        name: visible(&entry.name),
        hex: hex::encode(path.as_ref().map_or("", SitePath::as_str)),
        path: path.map(String::from).unwrap_or_default(),
        query,
        name_query: coded(&entry.name),
        kind,
        href,
        size: if file {
            bytes(entry.size as f64)
        } else {
            String::new()
        },
        changed: if known {
            ago(entry.modified_at)
        } else {
            String::new()
        },
        note,
        file,
        text: file && like_text(entry),
        archive: file && archive,
    }
}

fn crumbs(site: &Site, path: &SitePath) -> Vec<Crumb> {
    let mut all = vec![Crumb {
        name: "Files".to_owned(),
        href: folder_page(site, &SitePath::top()),
    }];
    let mut at = SitePath::top();
    for name in path.names() {
        at = at.join(name).unwrap_or_default();
        all.push(Crumb {
            name: visible(name),
            href: folder_page(site, &at),
        });
    }
    all
}

/// A folder.
pub async fn page(at: AtSite, Asked(asked): Asked<Which>) -> Result<Response> {
    let (caller, site) = (&at.viewer.caller, &at.site);
    let path = files::path("path", &asked.path)?;
    let (here, most) = (path.clone(), Some(200));
    let found = files::list(&at.control, caller, site.id, here, asked.after, most).await?;
    let (mut folders, others): (Vec<_>, Vec<_>) = found
        .items
        .into_iter()
        .partition(|entry| entry.kind == FileKind::Folder);
    folders.extend(others);
    let next = found.next.map_or(String::new(), |next| {
        format!(
            "/sites/{}/files?path={}&after={}",
            site.id,
            coded(path.as_str()),
            coded(&next)
        )
    });
    let rename = match asked.rename {
        Some(name) => {
            let from = path.join(&name);
            from.ok().map(|from| Renamed {
                from: hex::encode(from.as_str()),
                shown: visible(&name),
                name,
            })
        }
        None => None,
    };
    written(&Page {
        f: at.frame("Files of").await?,
        id: site.id.to_string(),
        domain: site.domain.to_string(),
        top: path.tree().is_none(),
        deploys: caller.has(Scope::Deploy),
        crumbs: crumbs(site, &path),
        rows: folders.iter().map(|entry| row(site, entry)).collect(),
        next,
        truncated: found.truncated,
        rename,
        here: coded(path.as_str()),
        path: path.into(),
    })
}

/// Sends a file.
pub async fn get(at: AtSite, Asked(asked): Asked<Which>) -> Result<Response> {
    let path = files::path("path", &asked.path)?;
    let file = files::open(&at.control, &at.viewer.caller, at.site.id, path).await?;
    Ok(sent(file))
}
