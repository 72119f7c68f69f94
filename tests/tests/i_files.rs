//! A site's files by the API, as visitors then see them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use undine_e2e::{Summary, Undine, Visitor, eventually};

fn file(name: &str, text: &[u8]) -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("undine-e2e-{}-{name}", std::process::id()));
    std::fs::write(&path, text)?;
    Ok(path)
}

async fn shows(summary: &Summary, host: &str, path: &str, text: &str) -> Result<()> {
    let visitor = Visitor::at(&summary.edges[0].address)?;
    eventually(Duration::from_secs(30), || async {
        let page = visitor.get(host, path).await?;
        ensure!(
            page.status == 200 && page.body.contains(text),
            "{} {}",
            page.status,
            page.body
        );
        Ok(())
    })
    .await
}

/// The process whose children answer for the site of [`LINKS`].
async fn parent(summary: &Summary, host: &str) -> Result<String> {
    let visitor = Visitor::at(&summary.edges[0].address)?;
    let page = visitor.get(host, "/links.php").await?;
    let told = page
        .body
        .split_once(" of ")
        .map(|(_, parent)| parent.trim());
    told.map(str::to_owned)
        .with_context(|| format!("{} {}", page.status, page.body))
}

fn create(undine: &Undine, host: &str, server: &str, runtime: &str) -> Result<()> {
    undine.run(&[
        "site",
        "create",
        host,
        "--account",
        "demo",
        "--server",
        server,
        "--runtime",
        runtime,
        "--wait",
    ])?;
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_uploaded_is_on_the_site_and_a_deploy_and_a_rollback_say_which_one()
-> Result<()> {
    let summary = Summary::read()?;
    let undine = Undine::provider(&summary);
    let host = "files.localhost";
    create(&undine, host, "static-1", "static")?;
    let one = file("one.html", b"by hand")?;
    let put = |from: &PathBuf, to: &str| {
        undine.run(&["site", "files", "put", host, &from.to_string_lossy(), to])
    };
    put(&one, "current/index.html")?;
    shows(&summary, host, "/", "by hand").await?;

    // Larger than one piece, and back as it went.
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let big = file("big.bin", &content)?;
    put(&big, "current/big.bin")?;
    let back = big.with_extension("back");
    undine.run(&[
        "site",
        "files",
        "get",
        host,
        "current/big.bin",
        &back.to_string_lossy(),
    ])?;
    ensure!(
        std::fs::read(&back)? == content,
        "the file came back another one"
    );
    let names = undine.list(&["site", "files", "ls", host, "current"])?;
    ensure!(names.len() == 2, "{names:?}");

    // A deploy shows its own; a rollback brings back what was edited.
    let folder = std::env::temp_dir().join(format!("undine-e2e-{}-deployed", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("index.html"), "deployed")?;
    undine.run(&["site", "deploy", host, &folder.to_string_lossy(), "--wait"])?;
    shows(&summary, host, "/", "deployed").await?;
    undine.run(&["site", "rollback", host, "--wait"])?;
    shows(&summary, host, "/", "by hand").await?;
    undine.run(&["site", "files", "rm", host, "current/big.bin", "--yes"])?;
    let page = Visitor::at(&summary.edges[0].address)?
        .get(host, "/big.bin")
        .await?;
    ensure!(page.status == 404, "{}", page.status);
    undine.run(&["site", "delete", host, "--yes", "--wait"])?;
    for path in [one, big, back] {
        std::fs::remove_file(path)?;
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// What a hostile program of a site tries to lead the agent to by links.
const LINKS: &str = r#"<?php
@symlink('/etc/passwd', __DIR__ . '/passwd');
@symlink('/srv/undine', __DIR__ . '/own');
@symlink('/srv/sites', __DIR__ . '/others');
echo is_link(__DIR__ . '/passwd') ? 'linked' : 'no links', ' as ', posix_geteuid();
echo ' of ', posix_getppid(), '.';
"#;

#[tokio::test]
async fn a_script_that_is_uploaded_runs_as_the_site_and_its_links_lead_nowhere() -> Result<()> {
    let summary = Summary::read()?;
    let undine = Undine::provider(&summary);
    let host = "hostile.localhost";
    create(&undine, host, "web-1", "php")?;
    let script = file("links.php", LINKS.as_bytes())?;
    undine.run(&[
        "site",
        "files",
        "put",
        host,
        &script.to_string_lossy(),
        "current/links.php",
    ])?;
    shows(&summary, host, "/links.php", " as ").await?;
    for path in [
        "current/passwd",
        "current/own/manifest.json",
        "current/others",
    ] {
        let error = undine.run(&["site", "files", "get", host, path, "-"]);
        let error = error.expect_err("links are not followed");
        ensure!(
            error.0.contains("422") || error.0.contains("404"),
            "{path}: {error}"
        );
        let list = undine.run(&["site", "files", "ls", host, path]);
        ensure!(list.is_err(), "{path}: {list:?}");
    }
    // Whose child answers tells which program of the site runs.
    let before = parent(&summary, host).await?;
    ensure!(parent(&summary, host).await? == before, "it went by itself");
    undine.run(&["site", "restart", host])?;
    ensure!(
        parent(&summary, host).await? != before,
        "the same program goes on after a restart"
    );
    undine.run(&["site", "delete", host, "--yes", "--wait"])?;
    std::fs::remove_file(script)?;
    Ok(())
}
