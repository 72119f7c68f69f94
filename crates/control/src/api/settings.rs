//! What the provider decides for the whole cluster.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, IfMatch, Provider, ProviderReader};
use super::reply::{Answer, Reply};
use crate::app::{dns, mail, settings};
use crate::control::Control;

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(get_failover_policy, update_failover_policy))
        .routes(routes!(get_mail_settings, update_mail_settings))
        .routes(routes!(try_mail))
        .routes(routes!(get_dns_settings, update_dns_settings))
}

/// Shows how patient the cluster is with silent nodes, and how it copies disks.
#[utoipa::path(
    get,
    path = "/v1/settings/failover",
    tag = "cluster",
    responses((status = 200, description = "Here it is.", body = FailoverPolicy))
)]
async fn get_failover_policy(
    _: ProviderReader,
    State(control): State<Control>,
) -> Answer<FailoverPolicy> {
    let policy = settings::failover(&control).await?;
    Ok(Reply::at(policy.version, policy))
}

/// Changes that, from now on.
#[utoipa::path(
    patch,
    path = "/v1/settings/failover",
    tag = "cluster",
    request_body = UpdateFailoverPolicy,
    responses((status = 200, description = "Here it is.", body = FailoverPolicy))
)]
async fn update_failover_policy(
    Provider(caller): Provider,
    State(control): State<Control>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<UpdateFailoverPolicy>,
) -> Answer<FailoverPolicy> {
    let policy = settings::change_failover(&control, &caller, expected, wish).await?;
    Ok(Reply::at(policy.version, policy))
}

/// Shows how the panel sends mail.
#[utoipa::path(
    get,
    path = "/v1/settings/mail",
    tag = "cluster",
    responses((status = 200, description = "Here it is.", body = MailSettings))
)]
async fn get_mail_settings(
    _: ProviderReader,
    State(control): State<Control>,
) -> Answer<MailSettings> {
    let settings = mail::get(&control).await?;
    Ok(Reply::at(settings.version, settings))
}

/// Changes how the panel sends mail, from now on.
#[utoipa::path(
    patch,
    path = "/v1/settings/mail",
    tag = "cluster",
    request_body = UpdateMailSettings,
    responses((status = 200, description = "Here it is.", body = MailSettings))
)]
async fn update_mail_settings(
    Provider(caller): Provider,
    State(control): State<Control>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<UpdateMailSettings>,
) -> Answer<MailSettings> {
    let settings = mail::change(&control, &caller, expected, wish).await?;
    Ok(Reply::at(settings.version, settings))
}

/// Sends a mail at once, to see whether the settings work.
#[utoipa::path(
    post,
    path = "/v1/settings/mail/try",
    tag = "cluster",
    request_body = TryMail,
    responses((status = 200, description = "The mail server took it.", body = MailTried))
)]
async fn try_mail(
    Provider(caller): Provider,
    State(control): State<Control>,
    Body(wish): Body<TryMail>,
) -> Answer<MailTried> {
    mail::try_it(&control, &caller, wish).await.map(Reply::ok)
}

/// Shows where visitors must be led, and which name servers are asked whether they are.
#[utoipa::path(
    get,
    path = "/v1/settings/dns",
    tag = "cluster",
    responses((status = 200, description = "Here it is.", body = DnsSettings))
)]
async fn get_dns_settings(
    _: ProviderReader,
    State(control): State<Control>,
) -> Answer<DnsSettings> {
    let settings = dns::settings(&control).await?;
    Ok(Reply::at(settings.version, settings))
}

/// Changes that, from now on.
#[utoipa::path(
    patch,
    path = "/v1/settings/dns",
    tag = "cluster",
    request_body = UpdateDnsSettings,
    responses((status = 200, description = "Here it is.", body = DnsSettings))
)]
async fn update_dns_settings(
    Provider(caller): Provider,
    State(control): State<Control>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<UpdateDnsSettings>,
) -> Answer<DnsSettings> {
    let settings = dns::change(&control, &caller, expected, wish).await?;
    Ok(Reply::at(settings.version, settings))
}
