//! The table on disk, so that an edge serves when control is away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use undine_api::edge::RouteUpdate;

use crate::table::{Routes, Table};

const FILE: &str = "routes.json";
/// Many changes in a row are written once.
const PAUSE: Duration = Duration::from_secs(1);

/// The file with the table; it holds the sites' private keys, so only its owner may read it.
#[derive(Debug, Clone)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// The file in this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(FILE),
        }
    }

    /// The table that was kept. A damaged file counts as none: control sends a new table.
    pub fn load(&self) -> Option<Table> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(path = %self.path.display(), %error, "the kept routes cannot be read");
                }
                return None;
            }
        };
        match serde_json::from_slice::<RouteUpdate>(&bytes) {
            Ok(update) => Table::default().apply(update).ok(),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the kept routes are damaged");
                None
            }
        }
    }

    /// Keeps a table: whole or not at all, and past a power cut.
    pub fn save(&self, table: &Table) -> io::Result<()> {
        let bytes = serde_json::to_vec(&table.to_update())?;
        // While one edge replaces another, both may write.
        let partial = self
            .path
            .with_extension(format!("partial-{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&partial, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Keeps every table that comes, for ever.
    pub async fn keep(self, routes: Arc<Routes>, mut changes: watch::Receiver<u64>) {
        while changes.changed().await.is_ok() {
            let (disk, table) = (self.clone(), routes.current());
            let saved = tokio::task::spawn_blocking(move || disk.save(&table)).await;
            match saved {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(path = %self.path.display(), %error, "the routes cannot be kept");
                    // Try again without waiting for the next change.
                    changes.mark_changed();
                }
                Err(_) => return,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use undine_api::edge::Panel;

    use super::*;

    fn table(version: u64) -> Table {
        let update = RouteUpdate {
            version,
            whole: true,
            routes: vec![],
            removed: vec![],
            panel: Panel::default(),
        };
        Table::default().apply(update).unwrap()
    }

    #[test]
    fn a_kept_table_comes_back_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path());
        assert!(disk.load().is_none());
        disk.save(&table(4)).unwrap();
        disk.save(&table(5)).unwrap();
        assert_eq!(disk.load().unwrap().version(), 5);
        let mode = fs::metadata(&disk.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_counts_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path());
        fs::write(&disk.path, "{\"version\":").unwrap();
        assert!(disk.load().is_none());
    }

    #[tokio::test]
    async fn changes_reach_the_disk_by_themselves() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path());
        let routes = Arc::new(Routes::new(Table::default()));
        let changes = routes.subscribe();
        let keeping = tokio::spawn(disk.clone().keep(Arc::clone(&routes), changes));
        routes.replace(table(9));
        for _ in 0..100 {
            if disk.load().is_some_and(|table| table.version() == 9) {
                keeping.abort();
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the table never reached the disk");
    }
}
