//! What operators set for the whole cluster: the mail server, and where DNS must lead.

use std::net::IpAddr;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use undine_api::Problem;
use undine_api::public::{
    DnsSettings, MailEncryption, MailSettings, TryMail, UpdateDnsSettings, UpdateMailSettings,
};

use super::fields::Fields;
use super::frame::{Frame, page as written};
use crate::app::caller::Expected;
use crate::app::sessions::Viewer;
use crate::app::{dns, mail};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

#[derive(Template)]
#[template(path = "settings.html")]
struct Settings {
    f: Frame,
    problem: Option<Problem>,
    said: String,
    mail: MailSettings,
    user: String,
    port: String,
    encryptions: Vec<(&'static str, &'static str, bool)>,
    to: String,
    dns: DnsSettings,
    addresses: String,
    servers: String,
    wanted: String,
}

const ENCRYPTIONS: [(MailEncryption, &str, &str); 3] = [
    (
        MailEncryption::Starttls,
        "starttls",
        "TLS after a first word (STARTTLS)",
    ),
    (MailEncryption::Tls, "tls", "TLS from the first byte"),
    (
        MailEncryption::None,
        "none",
        "none: for a server on this machine",
    ),
];

async fn shown(control: &Control, viewer: &Viewer) -> Result<Settings> {
    let mail = mail::get(control).await?;
    let dns = dns::settings(control).await?;
    Ok(Settings {
        f: Frame::new(control, viewer, "Settings", "/settings", 0).await?,
        problem: None,
        said: String::new(),
        user: mail.user.clone().unwrap_or_default(),
        port: match mail.port {
            0 => String::new(),
            port => port.to_string(),
        },
        encryptions: choices(mail.encryption),
        to: viewer.person.email.clone(),
        addresses: lines(&dns.addresses),
        servers: lines(&dns.name_servers),
        wanted: lines(&dns.wanted).replace('\n', ", "),
        dns,
        mail,
    })
}

fn choices(now: MailEncryption) -> Vec<(&'static str, &'static str, bool)> {
    let choice = |(it, word, label): &(MailEncryption, &'static str, &'static str)| {
        (*word, *label, *it == now)
    };
    ENCRYPTIONS.iter().map(choice).collect()
}

fn lines<T: ToString>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join("\n")
}

/// The page.
pub async fn page(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    written(&shown(&control, &viewer).await?)
}

fn wish(fields: &Fields) -> Result<(Expected, UpdateMailSettings)> {
    let text = |name| Some(fields.text(name).to_owned());
    let word = fields.text("encryption");
    let encryption = ENCRYPTIONS.iter().find(|(_, known, _)| *known == word);
    let encryption =
        encryption.ok_or_else(|| Refusal::invalid("encryption", "Choose how it is encrypted."))?;
    let wish = UpdateMailSettings {
        host: text("host"),
        port: match fields.some("port") {
            Some(_) => Some(fields.parse("port")?),
            None => None,
        },
        encryption: Some(encryption.0),
        user: text("user"),
        password: fields.some("password"),
        from: text("from"),
    };
    Ok((Expected::Version(fields.parse("version")?), wish))
}

async fn changed(control: &Control, viewer: &Viewer, fields: &Fields) -> Result<()> {
    let (expected, wish) = wish(fields)?;
    mail::change(control, &viewer.caller, expected, wish).await?;
    Ok(())
}

/// Changes the mail server. What was typed stays when it is refused, but for the password.
pub async fn change_mail(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Response> {
    let Err(refusal) = changed(&control, &viewer, &fields).await else {
        return Ok(Redirect::to("/settings").into_response());
    };
    let mut page = shown(&control, &viewer).await?;
    let text = |name| fields.text(name).to_owned();
    (page.mail.host, page.mail.from) = (text("host"), text("from"));
    (page.user, page.port) = (text("user"), text("port"));
    let chosen = fields.text("encryption");
    for (word, _, here) in &mut page.encryptions {
        *here = *word == chosen;
    }
    let status = refusal.status();
    page.problem = Some(*refusal.0);
    Ok((status, written(&page)?).into_response())
}

/// Sends a mail to see whether it arrives; what the mail server says is shown.
pub async fn try_mail(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Response> {
    let to = fields.text("to").to_owned();
    let tried = mail::try_it(&control, &viewer.caller, TryMail { to: to.clone() }).await;
    let mut page = shown(&control, &viewer).await?;
    match tried {
        Ok(tried) => {
            page.said = format!("The mail server took a mail to {}.", tried.to);
            Ok(written(&page)?)
        }
        Err(refusal) => {
            let status = refusal.status();
            page.to = to;
            page.problem = Some(*refusal.0);
            Ok((status, written(&page)?).into_response())
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty())
}

async fn changed_dns(control: &Control, viewer: &Viewer, fields: &Fields) -> Result<()> {
    let address = |word: &str| {
        word.parse::<IpAddr>().map_err(|_| {
            let shown: String = word.chars().take(60).collect();
            Refusal::invalid("addresses", format!("`{shown}` is no address."))
        })
    };
    let addresses = words(fields.text("addresses")).map(address);
    let servers = words(fields.text("servers")).map(str::to_owned);
    let wish = UpdateDnsSettings {
        addresses: Some(addresses.collect::<Result<_>>()?),
        name_servers: Some(servers.collect()),
    };
    let expected = Expected::Version(fields.parse("version")?);
    dns::change(control, &viewer.caller, expected, wish).await?;
    Ok(())
}

/// Changes where DNS must lead and who is asked.
pub async fn change_dns(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Response> {
    let Err(refusal) = changed_dns(&control, &viewer, &fields).await else {
        return Ok(Redirect::to("/settings").into_response());
    };
    let mut page = shown(&control, &viewer).await?;
    let text = |name| fields.text(name).to_owned();
    (page.addresses, page.servers) = (text("addresses"), text("servers"));
    let status = refusal.status();
    page.problem = Some(*refusal.0);
    Ok((status, written(&page)?).into_response())
}
