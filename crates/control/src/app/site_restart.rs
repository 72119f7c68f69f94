//! Restarting what a site runs: its program ends and the next visitor starts it anew. Nothing is
//! recorded of it but that it was done, so it is no operation; done twice it does no harm.

use serde_json::json;
use undine_api::guest::Ask;
use undine_model::lifecycle::SiteState;
use undine_model::{ServerId, SiteId, Slug};
use undine_store::Db as _;

use super::caller::{Caller, Expected};
use super::sites::{reach, running_server, show};
use crate::control::Control;
use crate::manifests::profile_of;
use crate::refusal::{Refusal, Result};

/// Does the site run a program of its own? Files are handed out by the server's web server.
pub async fn runs_a_program(control: &Control, server: ServerId, runtime: &Slug) -> Result<bool> {
    let server = control.store.servers().get(server).await?;
    let profile = profile_of(control, &server).await.map_err(|trouble| {
        Refusal::conflict("no-profile", "The profile is gone", trouble.to_string())
    })?;
    let runtime = profile.runtimes.get(runtime);
    Ok(runtime.is_some_and(|runtime| !runtime.worker.is_empty()))
}

/// Ends the site's program, when it has answered those whose requests it has begun.
pub async fn restart(
    control: &Control,
    caller: &Caller,
    id: SiteId,
    expected: Expected,
) -> Result<undine_api::public::Site> {
    let site = reach(control, caller, id).await?;
    expected.check("site", site.version)?;
    if site.state != SiteState::Active {
        return Err(Refusal::conflict(
            "wrong-state",
            "The site does not run",
            format!(
                "The site is {}; only an active one can be restarted.",
                site.state
            ),
        )
        .remedy("Bring it into service first."));
    }
    if !runs_a_program(control, site.server, &site.runtime).await? {
        return Err(Refusal::conflict(
            "nothing-to-restart",
            "The site runs no program",
            format!(
                "A site with the runtime `{}` only hands out files.",
                site.runtime
            ),
        )
        .remedy("Change its files: visitors see them at once."));
    }
    let (server, client) = running_server(control, site.server).await?;
    let ask = Ask::Restart { site: id };
    client.guest(server.id, server.epoch, ask).await?;
    let tx = control.store.begin().await?;
    let data = json!({"domain": site.domain});
    let subject = format!("site/{id}");
    caller
        .did(&tx, "site.restart", subject, Some(site.account), data)
        .await?;
    tx.commit().await?;
    show(&control.store, site).await
}
