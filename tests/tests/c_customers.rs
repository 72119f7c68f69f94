//! What customers do, and what their mistakes must not do.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use undine_e2e::{Summary, Undine, Visitor, eventually};

fn folder(name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("undine-e2e-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    for (file, text) in files {
        std::fs::File::create(folder.join(file))?.write_all(text.as_bytes())?;
    }
    Ok(folder)
}

async fn shows(summary: &Summary, host: &str, text: &str) -> Result<()> {
    let visitor = Visitor::at(&summary.edges[0].address)?;
    eventually(Duration::from_secs(30), || async {
        let page = visitor.get(host, "/").await?;
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

#[tokio::test]
async fn a_site_is_made_deployed_rolled_back_and_deleted() -> Result<()> {
    let summary = Summary::read()?;
    let undine = Undine::provider(&summary);
    let host = "journey.localhost";
    undine.run(&[
        "site",
        "create",
        host,
        "--account",
        "demo",
        "--server",
        "static-1",
        "--runtime",
        "static",
        "--wait",
    ])?;
    for text in ["first words", "second words"] {
        let content = folder("journey", &[("index.html", text)])?;
        undine.run(&["site", "deploy", host, &content.to_string_lossy(), "--wait"])?;
        shows(&summary, host, text).await?;
        std::fs::remove_dir_all(content)?;
    }
    undine.run(&["site", "rollback", host, "--wait"])?;
    shows(&summary, host, "first words").await?;
    undine.run(&["site", "delete", host, "--yes", "--wait"])?;
    let page = Visitor::at(&summary.edges[0].address)?
        .get(host, "/")
        .await?;
    assert_eq!(page.status, 404);
    undine.run(&["site", "restore", host, "--wait"])?;
    shows(&summary, host, "first words").await?;
    undine.run(&["site", "delete", host, "--for-good", "--yes", "--wait"])?;
    Ok(())
}

#[tokio::test]
async fn a_domain_that_exists_is_refused_by_name_and_changes_nothing() -> Result<()> {
    let summary = Summary::read()?;
    let undine = Undine::provider(&summary);
    let host = &summary.site("landing")?.host;
    let before = undine.list(&["site", "list"])?.len();
    let words = [
        "site",
        "create",
        host,
        "--account",
        "demo",
        "--server",
        "static-1",
        "--runtime",
        "static",
        "--wait",
    ];
    let error = undine.run(&words).expect_err("the name is taken");
    assert!(error.0.contains(host.as_str()), "{error}");
    assert_eq!(undine.list(&["site", "list"])?.len(), before);
    Ok(())
}

#[tokio::test]
async fn one_customer_s_mistake_stays_with_that_customer() -> Result<()> {
    let summary = Summary::read()?;
    let undine = Undine::provider(&summary);
    let shop = summary.site("shop")?;
    let settings = folder(
        "mistake",
        &[(
            "settings.json",
            r#"{"php":{"memory_limit":"1M\nuser = root"}}"#,
        )],
    )?;
    let file = settings.join("settings.json");
    let outcome = undine.run(&[
        "site",
        "settings",
        &shop.host,
        "--file",
        &file.to_string_lossy(),
        "--wait",
    ]);
    std::fs::remove_dir_all(settings)?;
    let error = outcome.expect_err("such a setting is refused");
    assert!(error.0.contains("settings.php"), "{error}");
    for site in &summary.sites {
        shows(&summary, &site.host, &site.expect).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_stranger_s_site_is_not_there_and_the_try_is_on_record() -> Result<()> {
    let summary = Summary::read()?;
    let provider = Undine::provider(&summary);
    if !provider
        .list(&["account", "list"])?
        .iter()
        .any(|it| it["name"] == "stranger")
    {
        provider.run(&["account", "create", "stranger", "--plan", "standard"])?;
    }
    let token = provider.run(&[
        "token",
        "create",
        "e2e",
        "--role",
        "account-owner",
        "--account",
        "stranger",
    ])?;
    let stranger = Undine::with_token(&summary, token["secret"].as_str().expect("a secret"));
    assert!(stranger.list(&["site", "list"])?.is_empty());
    let site = provider.list(&["site", "list"])?.remove(0);
    let id = site["id"].as_str().expect("an id");
    let error = stranger
        .run(&["site", "show", id])
        .expect_err("it is another account's");
    assert!(
        error.0.contains("not-found") || error.0.contains("no such") || error.0.contains("404"),
        "{error}"
    );
    let audit = provider.list(&["audit", "list"])?;
    let is_on_record = audit.iter().any(|row| {
        row["outcome"] != "ok"
            && row["subject"]
                .as_str()
                .is_some_and(|subject| subject.contains(id))
    });
    assert!(is_on_record, "{audit:?}");
    Ok(())
}
