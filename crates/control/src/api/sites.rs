//! Sites.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use undine_api::guest::LogKind;
use undine_model::{AccountId, DomainName, ServerId, SiteId};

use super::extract::{Asked, Body, Deployer, IfMatch, Manager, PathId, Reader};
use super::reply::{Answer, Reply};
use crate::app::paging::PageWish;
use crate::app::sites::SiteWish;
use crate::app::{apps, dns, site_change, site_create, site_delete, site_restart, sites};
use crate::control::Control;

/// Which sites.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SitesQuery {
    /// At most so many things, up to 500; 50 unless said otherwise.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// With this domain only.
    #[param(value_type = Option<String>)]
    domain: Option<DomainName>,
    /// Of this account only.
    account: Option<AccountId>,
    /// On this server only.
    server: Option<ServerId>,
}

/// How it is deleted.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeleteSiteQuery {
    /// At once and for good: nothing is kept, nothing can be undone.
    for_good: Option<bool>,
}

/// Which log, and how much of it.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// Which one; requests unless said otherwise.
    log: Option<LogKind>,
    /// At most so many lines, up to 1,000; 100 unless said otherwise.
    lines: Option<u32>,
}

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(list_sites, create_site))
        .routes(routes!(get_site, update_site, delete_site))
        .routes(routes!(suspend_site))
        .routes(routes!(unsuspend_site))
        .routes(routes!(retry_site))
        .routes(routes!(restart_site))
        .routes(routes!(restore_site))
        .routes(routes!(install_app))
        .routes(routes!(site_logs))
        .routes(routes!(site_dns))
}

/// Lists the sites; an account's owner sees its own.
#[utoipa::path(
    get,
    path = "/v1/sites",
    tag = "sites",
    params(SitesQuery),
    responses((status = 200, description = "Here it is.", body = List<Site>))
)]
async fn list_sites(
    Reader(caller): Reader,
    State(control): State<Control>,
    Asked(asked): Asked<SitesQuery>,
) -> Answer<List<Site>> {
    let page = PageWish {
        limit: asked.limit,
        cursor: asked.cursor,
    };
    let which = SiteWish {
        domain: asked.domain,
        account: asked.account,
        server: asked.server,
    };
    sites::all(&control, &caller, &page, which)
        .await
        .map(Reply::ok)
}

/// Makes a site.
#[utoipa::path(
    post,
    path = "/v1/sites",
    tag = "sites",
    request_body = CreateSite,
    responses((status = 202, description = "It is being worked on.", body = SiteOperation))
)]
async fn create_site(
    Manager(caller): Manager,
    State(control): State<Control>,
    Body(wish): Body<CreateSite>,
) -> Answer<SiteOperation> {
    let both = site_create::create(&control, &caller, wish).await?;
    Ok(Reply::accepted(Some(both.site.version), both))
}

/// Shows a site.
#[utoipa::path(
    get,
    path = "/v1/sites/{id}",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site.")),
    responses((status = 200, description = "Here it is.", body = Site))
)]
async fn get_site(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
) -> Answer<Site> {
    let site = sites::get(&control, &caller, id).await?;
    Ok(Reply::at(site.version, site))
}

/// Changes a site's further names, runtime or settings.
#[utoipa::path(
    patch,
    path = "/v1/sites/{id}",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site.")),
    request_body = UpdateSite,
    responses((status = 202, description = "It is being worked on.", body = SiteOperation))
)]
async fn update_site(
    Manager(caller): Manager,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<UpdateSite>,
) -> Answer<SiteOperation> {
    let both = site_change::update(&control, &caller, id, expected, wish).await?;
    Ok(Reply::accepted(Some(both.site.version), both))
}

/// Deletes a site. It is off at once; its files and databases are kept for a day in which that can
/// be undone.
#[utoipa::path(
    delete,
    path = "/v1/sites/{id}",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site."), DeleteSiteQuery),
    responses((status = 202, description = "It is being worked on.", body = SiteOperation))
)]
async fn delete_site(
    Manager(caller): Manager,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    IfMatch(expected): IfMatch,
    Asked(asked): Asked<DeleteSiteQuery>,
) -> Answer<SiteOperation> {
    let for_good = asked.for_good.unwrap_or_default();
    let both = site_delete::delete(&control, &caller, id, expected, for_good).await?;
    Ok(Reply::accepted(Some(both.site.version), both))
}

/// Undoes the deletion of a site, within a day.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/restore",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site.")),
    responses((status = 202, description = "It is being worked on.", body = SiteOperation))
)]
async fn restore_site(
    Manager(caller): Manager,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    IfMatch(expected): IfMatch,
) -> Answer<SiteOperation> {
    let both = site_delete::restore(&control, &caller, id, expected).await?;
    Ok(Reply::accepted(Some(both.site.version), both))
}

/// Suspends a site: visitors see the page for suspended sites.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/suspend",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site.")),
    responses((status = 202, description = "It is being worked on.", body = SiteOperation))
)]
async fn suspend_site(
    Manager(caller): Manager,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    IfMatch(expected): IfMatch,
) -> Answer<SiteOperation> {
    let both = site_change::set_suspended(&control, &caller, id, expected, true).await?;
    Ok(Reply::accepted(Some(both.site.version), both))
}

/// Ends the suspension of a site.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/unsuspend",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site.")),
    responses((status = 202, description = "It is being worked on.", body = SiteOperation))
)]
async fn unsuspend_site(
    Manager(caller): Manager,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    IfMatch(expected): IfMatch,
) -> Answer<SiteOperation> {
    let both = site_change::set_suspended(&control, &caller, id, expected, false).await?;
    Ok(Reply::accepted(Some(both.site.version), both))
}

/// Tries a failed site again.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/retry",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site.")),
    responses((status = 202, description = "It is being worked on.", body = SiteOperation))
)]
async fn retry_site(
    Manager(caller): Manager,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    IfMatch(expected): IfMatch,
) -> Answer<SiteOperation> {
    let both = site_change::retry(&control, &caller, id, expected).await?;
    Ok(Reply::accepted(Some(both.site.version), both))
}

/// Restarts what a site runs: its program ends when it has answered those whose requests it has
/// begun, and the next visitor starts it anew.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/restart",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site.")),
    responses((status = 200, description = "Its program has ended.", body = Site))
)]
async fn restart_site(
    Deployer(caller): Deployer,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    IfMatch(expected): IfMatch,
) -> Answer<Site> {
    let site = site_restart::restart(&control, &caller, id, expected).await?;
    Ok(Reply::at(site.version, site))
}

/// Installs an application of the catalogue into a site, as its live release.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/app",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site.")),
    request_body = InstallApp,
    responses((status = 202, description = "It is being worked on.", body = SiteOperation))
)]
async fn install_app(
    Manager(caller): Manager,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<InstallApp>,
) -> Answer<SiteOperation> {
    let both = apps::install(&control, &caller, id, expected, wish).await?;
    Ok(Reply::accepted(Some(both.site.version), both))
}

/// Shows the last lines of a site's log.
#[utoipa::path(
    get,
    path = "/v1/sites/{id}/logs",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site."), LogQuery),
    responses((status = 200, description = "Here it is.", body = LogLines))
)]
async fn site_logs(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Asked(asked): Asked<LogQuery>,
) -> Answer<LogLines> {
    let (log, lines) = (
        asked.log.unwrap_or(LogKind::Access),
        asked.lines.unwrap_or(100),
    );
    sites::logs(&control, &caller, id, log, lines)
        .await
        .map(Reply::ok)
}

/// Shows what to put into DNS for a site, and what stands there now.
#[utoipa::path(
    get,
    path = "/v1/sites/{id}/dns",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site.")),
    responses((status = 200, description = "Here it is.", body = SiteDns))
)]
async fn site_dns(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
) -> Answer<SiteDns> {
    dns::check(&control, &caller, id).await.map(Reply::ok)
}
