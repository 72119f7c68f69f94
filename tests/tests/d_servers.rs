//! What happens to sites when their server is stopped and started again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use undine_e2e::{Summary, Undine, Visitor, eventually};

#[tokio::test]
async fn a_stopped_server_s_sites_say_so_and_a_started_one_s_have_everything() -> Result<()> {
    let summary = Summary::read()?;
    let undine = Undine::provider(&summary);
    let shop = summary.site("shop")?;
    let visitor = Visitor::at(&summary.edges[0].address)?;
    let first = visitor.get(&shop.host, "/").await?;
    undine.run(&["server", "stop", "web-2", "--wait"])?;
    eventually(Duration::from_secs(10), || async {
        let page = visitor.get(&shop.host, "/").await?;
        ensure!(page.status == 503, "status {}", page.status);
        ensure!(
            page.headers.contains_key("retry-after"),
            "it says when to come back"
        );
        Ok(())
    })
    .await?;
    undine.run(&["server", "start", "web-2", "--wait"])?;
    eventually(Duration::from_secs(60), || async {
        let page = visitor.get_with(&shop.host, "/", &first.cookies).await?;
        ensure!(
            page.status == 200 && page.body.contains("visits\">2<"),
            "{} {}",
            page.status,
            page.body
        );
        Ok(())
    })
    .await
}

/// The memory of the servers that these spares are for, as QEMU is told.
const MEMORY: &str = "512";

fn words(pid: &str) -> Vec<String> {
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.trim()));
    line.unwrap_or_default()
        .split('\0')
        .map(str::to_owned)
        .collect()
}

fn pid_in(folder: &Path) -> Result<String> {
    Ok(std::fs::read_to_string(folder.join("process.pid"))?)
}

/// The folders of a node's spares that are ready for servers of that memory.
fn spares(run: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(run.join("spare"))
        .into_iter()
        .flatten()
        .flatten();
    let fits = |folder: &PathBuf| {
        let words = pid_in(folder).map(|pid| words(&pid)).unwrap_or_default();
        let memory = words.windows(2).any(|pair| pair == ["-m", MEMORY]);
        memory && folder.join("ready").exists()
    };
    folders.map(|entry| entry.path()).filter(fits).collect()
}

#[tokio::test]
async fn a_server_comes_up_from_a_spare_and_outlives_its_agent() -> Result<()> {
    let summary = Summary::read()?;
    let undine = Undine::provider(&summary);
    let shop = summary.site("shop")?;
    let visitor = Visitor::at(&summary.edges[0].address)?;
    let node = undine.place_of(&summary, "web-2")?;
    let run = Path::new("/run/undine-up").join(&node.name);
    undine.run(&["server", "stop", "web-2", "--wait"])?;
    eventually(Duration::from_secs(600), || async {
        ensure!(
            !spares(&run).is_empty(),
            "no spare is ready on {}",
            node.name
        );
        Ok(())
    })
    .await?;
    undine.run(&["server", "start", "web-2", "--wait"])?;
    let server = undine.run(&["server", "show", "web-2"])?;
    let id = server["id"].as_str().context("it has an id")?;
    let state = Path::new("/var/lib/undine-up")
        .join(&node.name)
        .join("servers");
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(state.join(id).join("state.json"))?)?;
    ensure!(state["start"]["spare"].is_string(), "{state}");

    let pid = pid_in(&run.join("vm").join(id.replace('-', "")))?;
    let agent = format!("{}-agent", node.name);
    let before = summary.pid(&agent).context("the agent runs")?;
    // The next one is at least in the making.
    let left = eventually(Duration::from_secs(300), || async {
        let folders = std::fs::read_dir(run.join("spare"))?.flatten();
        let pids: Vec<String> = folders.filter_map(|it| pid_in(&it.path()).ok()).collect();
        ensure!(!pids.is_empty(), "no spare runs on {}", node.name);
        Ok(pids)
    })
    .await?;
    Command::new("kill")
        .args(["-9", &before.to_string()])
        .status()?;
    eventually(Duration::from_secs(60), || async {
        ensure!(
            summary.pid(&agent).is_some_and(|pid| pid != before),
            "no new agent yet"
        );
        // It works: it answers for the site's log.
        undine.run(&["site", "logs", &shop.host])?;
        Ok(())
    })
    .await?;
    assert_eq!(pid_in(&run.join("vm").join(id.replace('-', "")))?, pid);
    let page = visitor.get(&shop.host, "/").await?;
    assert_eq!(page.status, 200, "the same virtual machine serves");
    for spare in left {
        let named = words(&spare).iter().any(|word| word.starts_with("spare-"));
        assert!(!named, "the spare {spare} outlived its agent");
    }
    Ok(())
}
