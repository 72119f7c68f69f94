//! What is done to one site from its page, but for its settings and files.

use axum::extract::{Path, State};
use axum::response::{Redirect, Response};
use undine_api::public::{CreateDatabase, Rollback};
use undine_model::lifecycle::SiteState;

use super::at_site::SiteForm;
use super::fields::{Fields, id};
use super::site::{Once, one};
use crate::app::caller::Expected;
use crate::app::sessions::Viewer;
use crate::app::{databases, releases, site_change, site_delete, site_restart, sites};
use crate::control::Control;
use crate::refusal::Result;

fn back(which: &str) -> Result<Redirect> {
    Ok(Redirect::to(&format!("/sites/{}", id::<()>(which)?)))
}

async fn set(control: &Control, viewer: &Viewer, which: &str, suspended: bool) -> Result<Redirect> {
    site_change::set_suspended(
        control,
        &viewer.caller,
        id(which)?,
        Expected::Any,
        suspended,
    )
    .await?;
    back(which)
}

/// Shows visitors the page for suspended sites.
pub async fn suspend(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    set(&control, &viewer, &which, true).await
}

/// Ends that.
pub async fn unsuspend(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    set(&control, &viewer, &which, false).await
}

/// Tries a failed site again.
pub async fn retry(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    site_change::retry(&control, &viewer.caller, id(&which)?, Expected::Any).await?;
    back(&which)
}

/// Restarts what it runs.
pub async fn restart(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Response> {
    site_restart::restart(&control, &viewer.caller, id(&which)?, Expected::Any).await?;
    let once = Once {
        restarted: true,
        ..Once::default()
    };
    one(&control, &viewer, &which, once).await
}

/// Undoes its deletion.
pub async fn restore(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    site_delete::restore(&control, &viewer.caller, id(&which)?, Expected::Any).await?;
    back(&which)
}

/// Deletes it, when its domain was written.
pub async fn delete(SiteForm(at, fields): SiteForm) -> Result<Redirect> {
    let (caller, site) = (&at.viewer.caller, &at.site);
    fields.confirms(site.domain.as_str())?;
    let for_good = fields.text("for_good") == "on";
    let done = site_delete::delete(&at.control, caller, site.id, Expected::Any, for_good).await?;
    if done.site.state == SiteState::Deleted {
        // There it can be undone.
        return back(&site.id.to_string());
    }
    Ok(Redirect::to(&format!("/operations/{}", done.operation.id)))
}

/// Adds a database; its password is shown once.
pub async fn database(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Response> {
    let wish = CreateDatabase {
        site: id(&which)?,
        name: fields.text("name").trim().to_owned(),
    };
    let made = databases::create(&control, &viewer.caller, wish).await?;
    let once = Once {
        password: made.password.unwrap_or_default(),
        ..Once::default()
    };
    one(&control, &viewer, &which, once).await
}

/// Goes back to a release.
pub async fn rollback(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    // Whose site it is comes before what the form says.
    let site = sites::reach(&control, &viewer.caller, id(&which)?)
        .await?
        .id;
    let wish = Rollback {
        release: Some(fields.parse("release")?),
    };
    releases::rollback(&control, &viewer.caller, site, Expected::Any, wish).await?;
    back(&which)
}
