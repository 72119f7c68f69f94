//! The demo: one account, three domains on three servers, one panel.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::layout;
use super::options::Options;
use super::undine::{list, text, undine};

/// A demo site and how to know that it answers.
#[derive(Debug, Clone, Serialize)]
pub struct Site {
    /// Its address for a browser on this machine.
    pub url: String,
    /// Its name.
    pub host: String,
    /// An edge that serves it.
    pub edge_address: String,
    /// A text that its page has.
    pub expect: String,
}

const ACCOUNT: &str = "demo";
const SERVERS: [(&str, &str); 3] = [
    ("web-1", "web-php"),
    ("web-2", "web-php"),
    ("static-1", "static"),
];
const WORDPRESS_TITLE: &str = "The Undine gazette";

/// Waits for the nodes, then makes what is not there yet.
pub fn ensure(options: &Options, edge_address: &str) -> Result<Vec<Site>> {
    if !list(&["account", "list"])?
        .iter()
        .any(|it| text(it, "name") == ACCOUNT)
    {
        undine(&["account", "create", ACCOUNT, "--plan", "standard"])?;
    }
    let servers = list(&["server", "list"])?;
    let mut started = Vec::new();
    for (name, profile) in SERVERS {
        if !servers.iter().any(|it| text(it, "name") == name) {
            println!("           server {name} ({profile})");
            let words = ["server", "create", name, "--profile", profile];
            started.push(undine(&words)?);
        }
    }
    for operation in &started {
        undine(&["operation", "wait", operation_id(operation)?])?;
    }
    let shop = site(options, "shop", "web-2", "php", "Undine session counter")?;
    let landing = site(options, "landing", "static-1", "static", "Served by Undine")?;
    let blog = site(options, "blog", "web-1", "php", WORDPRESS_TITLE)?;
    deploy(&shop, "demo/shop")?;
    deploy(&landing, "demo/landing")?;
    wordpress(&blog)?;
    Ok([blog, shop, landing]
        .into_iter()
        .map(|demo| Site {
            url: format!("http://{}:{}/", demo.host, options.http_port),
            host: demo.host,
            edge_address: edge_address.to_owned(),
            expect: demo.expect.to_owned(),
        })
        .collect())
}

struct Demo {
    host: String,
    expect: &'static str,
    is_empty: bool,
}

fn operation_id(answer: &serde_json::Value) -> Result<&str> {
    let id = text(answer.get("operation").unwrap_or(answer), "id");
    ensure!(!id.is_empty(), "control named no operation: {answer}");
    Ok(id)
}

fn site(
    options: &Options,
    label: &str,
    server: &str,
    runtime: &str,
    expect: &'static str,
) -> Result<Demo> {
    let host = format!("{label}.{}", options.domain);
    let sites = list(&["site", "list"])?;
    let found = sites.iter().find(|it| text(it, "domain") == host);
    if found.is_none() {
        println!("           site {host} on {server}");
        let words = [
            "site",
            "create",
            &host,
            "--account",
            ACCOUNT,
            "--server",
            server,
            "--runtime",
            runtime,
            "--wait",
        ];
        undine(&words).with_context(|| format!("{host} could not be made"))?;
    }
    let is_empty = found.is_none_or(|site| text(site, "current_release").is_empty());
    Ok(Demo {
        host,
        expect,
        is_empty,
    })
}

fn deploy(site: &Demo, folder: &str) -> Result<()> {
    if site.is_empty {
        println!("           content of {}", site.host);
        let path = layout::checkout().join(folder);
        undine(&[
            "site",
            "deploy",
            &site.host,
            &path.to_string_lossy(),
            "--wait",
        ])?;
    }
    Ok(())
}

fn wordpress(site: &Demo) -> Result<()> {
    if !site.is_empty {
        return Ok(());
    }
    println!("           WordPress and its database for {}", site.host);
    let password = super::secret()?;
    keep_credentials(&format!(
        "wordpress http://{}/wp-login.php admin {password}\n",
        site.host
    ))?;
    let answers = serde_json::json!({
        "title": WORDPRESS_TITLE,
        "user": "admin",
        "password": password,
        "email": "admin@example.com",
    });
    // By a file of root's own: an argument could be read by anybody on the machine.
    let file = layout::state("wordpress-answers.json");
    write_private(&file, &answers.to_string())?;
    let path = file.to_string_lossy();
    let words = [
        "app",
        "install",
        "wordpress",
        "--site",
        &site.host,
        "--answers",
        &path,
        "--wait",
    ];
    let installed = undine(&words).map(drop);
    fs::remove_file(&file)?;
    installed
}

/// Writes a file that only root reads.
pub fn write_private(path: &std::path::Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("{} could not be written", path.display()))
}

/// Adds a line to the file with the credentials; only root reads it.
pub fn keep_credentials(line: &str) -> Result<()> {
    let path = super::credentials_file();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(|| format!("{} could not be written", path.display()))
}
