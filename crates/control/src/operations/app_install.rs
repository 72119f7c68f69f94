//! `app.install`: an application of the catalogue becomes a site's first release. Its database,
//! when it needs one, and the release were recorded when the operation was made.
//!
//! | step | does | undo |
//! |---|---|---|
//! | database | the server has the database | none: it stays with the site and is used when tried again |
//! | install | the guest copies, configures and runs the installer | none: the release never became live; the guest clears it when it is asked again |
//! | commit | the site's record and manifest name the release | none: one transaction |
//! | apply | the server has the manifest that says so | none: it is what runs already |

use std::collections::BTreeMap;

use undine_api::guest::{Ask, Install};
use undine_manifest::app::App;
use undine_model::lifecycle::ServerState;

use super::release::{apply, commit, failed};
use super::site_create::{apply_version, site_of};
use super::trouble::{Outcome, Trouble};
use super::work::Work;
use super::{Kind, step};
use undine_store::Db;

/// An application is installed.
pub const INSTALL: Kind = Kind {
    name: "app.install",
    steps: &[
        step!("database", database, keep "it stays with the site"),
        step!("install", install, keep "the release never became live"),
        step!("commit", commit, keep "one transaction"),
        step!("apply", apply, keep "it is what runs already"),
    ],
    failed,
    patience_ms: super::PATIENCE_MS,
};

async fn database(work: &mut Work) -> Outcome<()> {
    let site = site_of(work).await?;
    match work.param::<Option<u64>>("manifest_version")? {
        Some(version) => apply_version(work, site.server, version, true).await,
        None => Ok(()),
    }
}

async fn install(work: &mut Work) -> Outcome<()> {
    let site = site_of(work).await?;
    let app: App = work.param("app")?;
    let server = work.control.store.servers().get(site.server).await?;
    if server.state != ServerState::Running {
        return Err(Trouble::wait(
            "the server is not up",
            "Start the server; the rest follows.",
        ));
    }
    work.progress(format!("installing {}", app.title)).await?;
    let (_, client) = work.node_of(&server).await?;
    let ask = Ask::Install(Box::new(Install {
        site: site.id,
        release: work.param("release")?,
        app,
        answers: answers(work)?,
    }));
    client.guest(server.id, server.epoch, ask).await?;
    Ok(())
}

/// Sealed in the operation's row: the administrator's first password is among them.
fn answers(work: &Work) -> Outcome<BTreeMap<String, String>> {
    let sealed: String = work.param("answers")?;
    let purpose = format!(
        "answers/{}",
        work.param::<undine_model::ReleaseId>("release")?
    );
    let open = work
        .control
        .secrets
        .open(&purpose, &sealed)
        .map_err(|error| Trouble::stop(error.to_string(), "Install the application again."))?;
    serde_json::from_str(&open)
        .map_err(|error| Trouble::stop(error.to_string(), "Install the application again."))
}
