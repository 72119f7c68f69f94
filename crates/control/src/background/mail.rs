//! Mail that waits is sent: each by the instance that takes it first, again when that died or
//! the mail server was away.

use std::time::Duration;

use futures_util::future::join_all;
use undine_store::{Db, Mail, MailAbout, StoreError};

use crate::app::reset;
use crate::clock::now_ms;
use crate::control::Control;
use crate::mail::{Again, Failed, Smtp, WHOLE};
use crate::refusal::{Result, chain};

/// Whoever took a mail has so long to send it; then others try.
const TAKEN_MS: i64 = 2 * WHOLE.as_millis() as i64;
/// So many at once.
const AT_ONCE: u64 = 8;
const FIRST_PAUSE_MS: i64 = 5_000;
const LAST_PAUSE_MS: i64 = 10 * 60_000;
/// A mail that is older helps nobody.
const OLD_MS: i64 = 3_600_000;
const LOOK: Duration = Duration::from_secs(2);

/// Looks for mail that is due, and at once when some was made here.
pub(super) async fn run(control: Control) {
    loop {
        if let Err(error) = turn(&control).await {
            tracing::warn!(error = %chain(&error), "mail waits for the next turn");
        }
        let _ = tokio::time::timeout(LOOK, control.mail_due.notified()).await;
    }
}

async fn turn(control: &Control) -> Result<()> {
    loop {
        let now = now_ms();
        let due = control.store.mails().due(now, AT_ONCE).await?;
        if due.is_empty() {
            return Ok(());
        }
        let sent = join_all(due.iter().map(|mail| take(control, mail, now))).await;
        sent.into_iter().collect::<Result<Vec<()>>>()?;
    }
}

async fn take(control: &Control, mail: &Mail, now: i64) -> Result<()> {
    let mails = control.store.mails();
    let Some(mail) = mails.take(mail, now + TAKEN_MS, now).await? else {
        return Ok(());
    };
    let failed = match Smtp::of(&control.store).await? {
        Some(smtp) => sent(control, &smtp, &mail).await.err(),
        // Mail was switched off meanwhile.
        None => None,
    };
    let now = now_ms();
    let Some(Failed(why, again)) = failed else {
        return forget(control, &mail).await;
    };
    let old = now - mail.created_at > OLD_MS;
    tracing::warn!(about = %mail.about, tries = mail.tries, %why, again = ?again, old, "a mail was not sent");
    if old || again == Again::Never {
        return forget(control, &mail).await;
    }
    // Somebody may have asked again meanwhile: that moves the version, and is the same mail.
    let written = mails
        .modify(mail.id, now, |it| {
            it.not_before = now + pause_ms(it.tries);
            it.error = Some(why.0.detail.clone());
            Ok(())
        })
        .await;
    match written {
        Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn sent(control: &Control, smtp: &Smtp, mail: &Mail) -> Result<(), Failed> {
    match mail.about {
        MailAbout::Reset => reset::send_link(control, smtp, &mail.address).await,
        MailAbout::Changed => reset::send_changed(control, smtp, &mail.address).await,
    }
}

async fn forget(control: &Control, mail: &Mail) -> Result<()> {
    match control.store.mails().delete(mail.id, None).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Each failure doubles the pause.
fn pause_ms(tries: i64) -> i64 {
    FIRST_PAUSE_MS
        .saturating_mul(1 << tries.clamp(1, 10) >> 1)
        .min(LAST_PAUSE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_ten_minutes_and_no_further() {
        assert_eq!(pause_ms(1), FIRST_PAUSE_MS);
        assert_eq!(pause_ms(3), 4 * FIRST_PAUSE_MS);
        assert_eq!(pause_ms(1_000), LAST_PAUSE_MS);
    }
}
