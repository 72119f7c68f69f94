//! The settings of mail, and a mail that shows whether they work.

use serde_json::json;
use undine_api::public::{MailEncryption, MailSettings, MailTried, TryMail, UpdateMailSettings};
use undine_store::Db;

use super::caller::{Caller, Expected};
use crate::clock::now_ms;
use crate::control::Control;
use crate::mail::{Failed, Letter, Smtp, mailbox, send};
use crate::refusal::{Refusal, Result};

async fn read(db: &impl Db) -> Result<(Smtp, i64)> {
    let setting = db.settings().find(Smtp::KEY).await?;
    let version = setting.map_or(0, |setting| setting.version);
    Ok((Smtp::of(db).await?.unwrap_or_default(), version))
}

fn show((smtp, version): (Smtp, i64)) -> MailSettings {
    MailSettings {
        on: !smtp.host.is_empty(),
        host: smtp.host,
        port: smtp.port,
        encryption: smtp.encryption,
        user: smtp.user,
        has_password: smtp.sealed.is_some(),
        from: smtp.from,
        version,
    }
}

/// How mail is sent.
pub async fn get(control: &Control) -> Result<MailSettings> {
    Ok(show(read(&control.store).await?))
}

/// Is mail sent at all?
pub async fn is_on(control: &Control) -> Result<bool> {
    Ok(Smtp::of(&control.store).await?.is_some())
}

/// No mail server is set.
pub fn off() -> Refusal {
    Refusal::conflict(
        "mail-off",
        "No mail is sent here",
        "This cluster has no mail server.",
    )
    .remedy("Whoever runs it can set one: `undine settings mail`, or the panel's settings.")
}

fn usual_port(encryption: MailEncryption) -> u16 {
    match encryption {
        MailEncryption::Tls => 465,
        MailEncryption::Starttls => 587,
        MailEncryption::None => 25,
    }
}

/// What is kept after a change.
fn next(control: &Control, now: &Smtp, wish: UpdateMailSettings) -> Result<Smtp> {
    let host = wish
        .host
        .map_or(now.host.clone(), |it| it.trim().to_owned());
    if host.is_empty() {
        return Ok(Smtp::default());
    }
    let encryption = wish.encryption.unwrap_or(now.encryption);
    let usual = match now.port {
        0 => usual_port(encryption),
        set => set,
    };
    let user = match wish.user {
        Some(user) => Some(user.trim().to_owned()).filter(|it| !it.is_empty()),
        None => now.user.clone(),
    };
    let mut next = Smtp {
        host,
        port: wish.port.unwrap_or(usual),
        encryption,
        sealed: user.is_some().then(|| now.sealed.clone()).flatten(),
        user,
        from: wish
            .from
            .map_or(now.from.clone(), |it| it.trim().to_owned()),
    };
    let same = |it: &Smtp| (it.host.clone(), it.port, it.encryption, it.user.clone());
    let moves = next.sealed.is_some() && same(&next) != same(now);
    match wish.password.filter(|it| !it.is_empty()) {
        Some(password) if password.len() <= 1_000 => next.seal(control, &password),
        Some(_) => return Err(Refusal::invalid("password", "It is too long.")),
        None if moves => {
            return Err(Refusal::invalid(
                "password",
                "The password was given for another server or user.",
            )
            .remedy("Give the password again."));
        }
        None => {}
    }
    next.check()?;
    Ok(next)
}

/// Changes how mail is sent, from now on.
pub async fn change(
    control: &Control,
    caller: &Caller,
    expected: Expected,
    wish: UpdateMailSettings,
) -> Result<MailSettings> {
    let tx = control.store.begin().await?;
    let (now, version) = read(&tx).await?;
    expected.check("setting", version)?;
    let next = next(control, &now, wish)?;
    let settings = tx.settings();
    if version > 0 {
        settings.update(Smtp::KEY, &next, version, now_ms()).await?;
    } else if !settings.put_new(Smtp::KEY, &next, now_ms()).await? {
        return Err(Refusal::unavailable(
            "Somebody else changes it at this moment.",
        ));
    }
    let (before, after) = (show((now, 0)), show((next.clone(), 0)));
    let data = json!({"before": before, "after": after});
    let subject = "settings/mail".to_owned();
    caller
        .did(&tx, "settings.mail", subject, None, data)
        .await?;
    tx.commit().await?;
    Ok(show((next, version + 1)))
}

/// Sends a mail at once, and says what the mail server said.
pub async fn try_it(control: &Control, caller: &Caller, wish: TryMail) -> Result<MailTried> {
    let to = mailbox("to", &wish.to)?;
    let smtp = Smtp::of(&control.store).await?.ok_or_else(off)?;
    let host = control.cluster.panel_host();
    let letter = Letter {
        to: to.clone(),
        subject: format!("Mail from {host} works"),
        text: format!("This mail was asked for to see whether {host} can send mail. It can.\n"),
    };
    let sent = send(control, &smtp, letter).await;
    let outcome = json!({"to": to.email.to_string(), "sent": sent.is_ok()});
    let tx = control.store.begin().await?;
    let subject = "settings/mail".to_owned();
    caller
        .did(&tx, "settings.try_mail", subject, None, outcome)
        .await?;
    tx.commit().await?;
    sent.map_err(|Failed(refusal, _)| refusal)?;
    Ok(MailTried {
        to: to.email.to_string(),
    })
}
