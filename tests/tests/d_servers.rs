//! What happens to sites when their server is stopped and started again.

use std::time::Duration;

use anyhow::{Result, ensure};
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
