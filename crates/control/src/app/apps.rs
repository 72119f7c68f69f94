//! Installing an application of the catalogue into a site.

use serde_json::json;
use undine_api::public::{InstallApp, SiteOperation};
use undine_model::{ReleaseId, SiteId};
use undine_store::{DatabaseFilter, Db, ManifestChange, ReleaseState};

use super::caller::{Caller, Expected};
use super::{catalogue, databases, operations, sites};
use crate::clock::{new_id, now_ms, sha256};
use crate::control::Control;
use crate::manifests::settings_of;
use crate::operations::{NewOperation, start, wake};
use crate::refusal::{Refusal, Result};

/// Starts the operation that installs it.
pub async fn install(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    expected: Expected,
    wish: InstallApp,
) -> Result<SiteOperation> {
    let site = sites::reach(control, caller, site).await?;
    expected.check("site", site.version)?;
    super::site_change::not_going(&site)?;
    let app = catalogue::kept_apps(&control.store)
        .await?
        .into_iter()
        .find(|app| app.name == wish.app);
    let Some(app) = app else {
        return Err(
            Refusal::invalid("app", format!("The catalogue has no `{}`.", wish.app))
                .remedy("List the applications."),
        );
    };
    if app.runtime != site.runtime {
        return Err(Refusal::conflict(
            "wrong-runtime",
            "The site runs something else",
            format!(
                "{} needs the runtime {}, the site runs {}.",
                app.title, app.runtime, site.runtime
            ),
        )
        .remedy("Change the site's runtime first."));
    }
    check_answers(&app, &wish)?;
    let release: ReleaseId = new_id();
    let answers = serde_json::to_string(&wish.answers).unwrap_or_default();
    let sealed = control
        .secrets
        .seal(&format!("answers/{release}"), answers.as_bytes());
    let tx = control.store.begin().await?;
    let account = tx.accounts().lock(site.account).await?;
    let filter = DatabaseFilter {
        site: Some(site.id),
        ..DatabaseFilter::default()
    };
    let mut changes = Vec::new();
    let mut site = tx.sites().lock(site.id).await?;
    expected.check("site", site.version)?;
    let mut settings = settings_of(&site);
    if app.page_cache && !settings.page_cache {
        settings.page_cache = true;
        site.settings = json!(settings);
        site = tx.sites().update(&site, now_ms()).await?;
        changes.push(ManifestChange::Site(site.id));
    }
    if app.database && tx.databases().find_by(&filter).await?.is_none() {
        databases::within_plan(&tx, &account).await?;
        let (database, _) = databases::fresh(control, &site, &app.name.as_str().replace('-', "_"));
        tx.databases().insert(&database).await?;
        changes.push(ManifestChange::Database(database.id));
    }
    let manifest_version = match changes.as_slice() {
        [] => None,
        changes => Some(tx.manifests().changed(site.server, changes).await?),
    };
    let now = now_ms();
    let record = undine_store::Release {
        id: release,
        version: 1,
        created_at: now,
        updated_at: now,
        site: site.id,
        sha256: sha256(serde_json::to_string(&app).unwrap_or_default()),
        size: undine_model::Bytes(0),
        state: ReleaseState::Uploading,
        previous: None,
        error: None,
    };
    tx.releases().insert(&record).await?;
    let operation = start(
        &tx,
        NewOperation {
            kind: "app.install",
            subjects: vec![site.id.uuid(), release.uuid()],
            account: Some(site.account),
            params: json!({
                "site": site.id,
                "server": site.server,
                "release": release,
                "app": app,
                "answers": sealed,
                "manifest_version": manifest_version,
            }),
            reason: format!("asked for by {}", caller.who()),
        },
    )
    .await?;
    let data = json!({"domain": site.domain, "app": wish.app});
    caller
        .did(
            &tx,
            "app.install",
            format!("site/{}", site.id),
            Some(site.account),
            data,
        )
        .await?;
    let shown = SiteOperation {
        site: sites::show(&tx, site).await?,
        operation: operations::show(&tx, operation).await?,
    };
    tx.commit().await?;
    wake(control);
    Ok(shown)
}

fn check_answers(app: &undine_manifest::app::App, wish: &InstallApp) -> Result<()> {
    for (name, question) in &app.questions {
        if wish
            .answers
            .get(name)
            .is_none_or(|answer| answer.trim().is_empty())
        {
            return Err(Refusal::invalid(
                &format!("answers.{name}"),
                format!("{} asks: {question}", app.title),
            ));
        }
    }
    for (name, answer) in &wish.answers {
        if !app.questions.contains_key(name) {
            return Err(Refusal::invalid(
                &format!("answers.{name}"),
                format!("{} does not ask for this.", app.title),
            ));
        }
        if answer.len() > 1_000 || answer.chars().any(char::is_control) {
            return Err(Refusal::invalid(
                &format!("answers.{name}"),
                "An answer is one line of up to 1,000 characters.",
            ));
        }
    }
    Ok(())
}
