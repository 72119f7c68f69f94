//! A whole node dies: its servers answer again on others, with everything that a visitor was told
//! is there, and what comes back is brought up to date.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use undine_e2e::{DeadNode, Summary, Undine, Visitor, Watch, eventually};

/// Under emulation, on a busy machine; a benchmark tells how long it really takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// The edge holds a visitor for less than this.
const HELD: Duration = Duration::from_secs(60);

fn server(undine: &Undine, name: &str) -> Result<Value> {
    let all = undine.list(&["server", "list"])?;
    let found = all.into_iter().find(|it| it["name"] == name);
    found.with_context(|| format!("no server {name}"))
}

/// Every node is ready, every server runs with all of its copies in sync.
async fn whole(undine: &Undine) -> Result<()> {
    eventually(PATIENCE, || async {
        for node in undine.list(&["node", "list"])? {
            ensure!(node["state"] == "ready", "{node}");
        }
        for server in undine.list(&["server", "list"])? {
            let copies = server["replicas"].as_array().into_iter().flatten();
            let good = copies.filter(|it| it["state"] == "in_sync").count();
            let wanted = server["replicas_wanted"].as_u64().unwrap_or(u64::MAX);
            ensure!(
                server["state"] == "running" && good as u64 == wanted,
                "{server}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_dead_node_s_servers_answer_on_others_with_everything_in_place() -> Result<()> {
    let summary = Summary::read()?;
    let undine = Undine::provider(&summary);
    whole(&undine).await?;
    let shop = summary.site("shop")?;
    let visitor = Visitor::at(&summary.edges[0].address)?;
    let first = visitor.get(&shop.host, "/").await?;
    ensure!(first.status == 200, "status {}", first.status);
    let before = server(&undine, "web-2")?;
    let place = undine.place_of(&summary, "web-2")?;

    let watch = Watch::begin(&summary, "landing")?;
    let asked = Instant::now();
    let dead = DeadNode::kill(place)?;
    // One who asks at that moment waits, and his session is there.
    let page = visitor.get_with(&shop.host, "/", &first.cookies).await?;
    ensure!(
        page.status == 200 && page.body.contains("visits\">2<"),
        "{} {}",
        page.status,
        page.body
    );
    ensure!(asked.elapsed() < HELD, "{:?}", asked.elapsed());
    let after = server(&undine, "web-2")?;
    assert_ne!(after["node"], before["node"], "it runs elsewhere");
    assert!(
        after["epoch"].as_u64() > before["epoch"].as_u64(),
        "{before} {after}"
    );

    // The node comes back: what it held is brought up to date, and nothing moves back.
    drop(dead);
    whole(&undine).await?;
    let settled = server(&undine, "web-2")?;
    assert_eq!(settled["node"], after["node"]);
    assert_eq!(settled["epoch"], after["epoch"]);
    let page = visitor.get_with(&shop.host, "/", &first.cookies).await?;
    ensure!(page.body.contains("visits\">3<"), "{}", page.body);
    let met = watch.end().await?;
    assert!(met.unserved.is_empty(), "{met:?}");
    Ok(())
}
