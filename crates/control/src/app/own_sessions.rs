//! What people do with their own sessions: see where they are logged in, end one, show another
//! account in this one.

use serde_json::json;
use undine_model::AccountId;
use undine_store::{Db, Login, LoginFilter, LoginId, Staff};

use super::reach::sold_by;
use super::sessions::Viewer;
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::Result;

/// Where this person is logged in.
pub async fn all(control: &Control, viewer: &Viewer) -> Result<Vec<Login>> {
    let filter = LoginFilter {
        person: Some(viewer.person.id),
        ..LoginFilter::default()
    };
    let mut all = control.store.sessions().all(&filter).await?;
    all.retain(|login| login.expires_at > now_ms());
    all.reverse();
    Ok(all)
}

/// Ends one of the person's own sessions.
pub async fn revoke(control: &Control, viewer: &Viewer, id: LoginId) -> Result<()> {
    let found = control.store.sessions().find(id).await?;
    if found.is_none_or(|login| login.person != viewer.person.id) {
        return Err(viewer
            .caller
            .stranger(control, "session", &id.to_string())
            .await);
    }
    let tx = control.store.begin().await?;
    tx.sessions().delete(id, None).await?;
    viewer
        .caller
        .did(
            &tx,
            "session.revoke",
            format!("session/{id}"),
            None,
            json!({}),
        )
        .await?;
    tx.commit().await?;
    Ok(())
}

/// Shows another account; for staff: begins or ends to act for one, which is written down.
pub async fn switch(control: &Control, viewer: &Viewer, to: Option<AccountId>) -> Result<()> {
    let staff = viewer.person.staff != Staff::None;
    if let Some(account) = to {
        viewer.caller.may_change()?;
        let known = match viewer.person.staff {
            Staff::Owner | Staff::Operator | Staff::Support => {
                control.store.accounts().find(account).await?.is_some()
            }
            Staff::Reseller => sold_by(&control.store, &viewer.person, to).await?.is_some(),
            Staff::None => viewer.accounts.iter().any(|(id, _)| *id == account),
        };
        if !known {
            return Err(viewer
                .caller
                .stranger(control, "account", &account.to_string())
                .await);
        }
    }
    let tx = control.store.begin().await?;
    let mut login = tx.sessions().lock(viewer.login.id).await?;
    let about = to.or(login.account);
    login.account = to;
    tx.sessions().update(&login, now_ms()).await?;
    if staff && let Some(account) = about {
        let action = if to.is_some() {
            "account.act_for"
        } else {
            "account.act_end"
        };
        let subject = format!("account/{account}");
        viewer
            .caller
            .did(
                &tx,
                action,
                subject,
                Some(account),
                json!({"person": viewer.person.name}),
            )
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// What an account is called that the viewer acts for or is a member of.
pub async fn account_name(control: &Control, id: AccountId) -> Result<Option<String>> {
    let account = control.store.accounts().find(id).await?;
    Ok(account.map(|account| account.name.to_string()))
}
