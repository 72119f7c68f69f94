//! A profile is data: a folder of text files becomes a new kind of server on a running cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use undine_e2e::{Summary, Undine, Visitor, checkout, eventually};

const HOST: &str = "perl.localhost";
const APP: &str = "sub { my $path = shift; return \"Perl answers for $path\\n\" };\n";

/// Folders of this test, and what it made in the cluster; all of it goes with the value.
struct Made {
    folder: PathBuf,
    undine: Undine,
}

impl Made {
    fn new(summary: &Summary) -> Result<Self> {
        let name = format!("undine-e2e-{}-profile", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        let made = Self {
            folder,
            undine: Undine::provider(summary),
        };
        made.clean();
        // The profile beside the templates that profiles share, as a provider would have it.
        let (own, shared) = ("tests/profiles/perl-hello", "profiles/common");
        copy(&checkout().join(own), &made.folder.join("perl-hello"))?;
        copy(&checkout().join(shared), &made.folder.join("common"))?;
        std::fs::create_dir(made.folder.join("content"))?;
        std::fs::write(made.folder.join("content/app.pl"), APP)?;
        Ok(made)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    /// What is not there needs no removal.
    fn clean(&self) {
        let _ = self
            .undine
            .run(&["site", "delete", HOST, "--for-good", "--yes", "--wait"]);
        let _ = self
            .undine
            .run(&["server", "delete", "perl-1", "--yes", "--wait"]);
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.clean();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_folder_of_text_files_makes_a_new_kind_of_server() -> Result<()> {
    let summary = Summary::read()?;
    let made = Made::new(&summary)?;
    let undine = &made.undine;
    undine.run(&["profile", "put", &made.path("perl-hello")])?;
    let profiles = undine.list(&["profile", "list"])?;
    assert!(
        profiles.iter().any(|it| it["name"] == "perl-hello"),
        "{profiles:?}"
    );
    undine.run(&[
        "server",
        "create",
        "perl-1",
        "--profile",
        "perl-hello",
        "--wait",
    ])?;
    undine.run(&[
        "site",
        "create",
        HOST,
        "--account",
        "demo",
        "--server",
        "perl-1",
        "--runtime",
        "perl",
        "--wait",
    ])?;
    undine.run(&["site", "deploy", HOST, &made.path("content"), "--wait"])?;
    for edge in &summary.edges {
        let visitor = Visitor::at(&edge.address)?;
        eventually(Duration::from_secs(60), || async {
            let page = visitor.get(HOST, "/any/path").await?;
            ensure!(
                page.status == 200 && page.body == "Perl answers for /any/path\n",
                "{} {}",
                page.status,
                page.body
            );
            Ok(())
        })
        .await?;
    }
    undine.run(&["site", "delete", HOST, "--for-good", "--yes", "--wait"])?;
    undine.run(&["server", "delete", "perl-1", "--yes", "--wait"])?;
    let servers = undine.list(&["server", "list"])?;
    assert!(!servers.iter().any(|it| it["name"] == "perl-1"));
    Ok(())
}
