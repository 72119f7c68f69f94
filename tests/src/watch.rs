//! Visitors who come all the while something is done to the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinHandle;

use crate::summary::Summary;
use crate::visit::Visitor;

/// Between two visits of one visitor.
const PACE: Duration = Duration::from_millis(200);

/// A visitor who comes to a site again and again.
pub struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Watched>,
}

/// What a visitor met.
#[derive(Debug, Default)]
pub struct Watched {
    /// So often he came.
    pub came: usize,
    /// What he got instead of the page, each time that he got none.
    pub unserved: Vec<String>,
}

impl Watch {
    /// He comes, by the first edge.
    pub fn begin(summary: &Summary, label: &str) -> Result<Self> {
        let site = summary.site(label)?.clone();
        let visitor = Visitor::at(&summary.edges[0].address)?;
        let stop = Arc::new(AtomicBool::new(false));
        let done = stop.clone();
        let task = tokio::spawn(async move {
            let mut met = Watched::default();
            while !done.load(Ordering::SeqCst) {
                met.came += 1;
                match visitor.get(&site.host, "/").await {
                    Ok(page) if page.status == 200 && page.body.contains(&site.expect) => {}
                    Ok(page) => met.unserved.push(format!("status {}", page.status)),
                    Err(error) => met.unserved.push(format!("{error:#}")),
                }
                tokio::time::sleep(PACE).await;
            }
            met
        });
        Ok(Self { stop, task })
    }

    /// He goes.
    pub async fn end(self) -> Result<Watched> {
        self.stop.store(true, Ordering::SeqCst);
        Ok(self.task.await?)
    }
}
