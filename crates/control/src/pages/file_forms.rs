//! Forms that change a site's files. All of them work without scripts.

use askama::Template;
use axum::response::{IntoResponse as _, Redirect, Response};
use undine_api::public::{CreateFolder, MoveFile, PackFiles, UnpackFile};
use undine_model::SitePath;
use undine_model::path::visible;

use super::at_site::SiteForm;
use super::fields::Fields;
use super::files::{coded, folder_page};
use super::frame::{Frame, page as written};
use crate::app::files;
use crate::refusal::{Refusal, Result, capital};

#[derive(Template)]
#[template(path = "files_remove.html")]
struct Sure {
    f: Frame,
    id: String,
    path: String,
    here: String,
    picked: Vec<(String, String)>,
}

/// The folder or file that a form is about.
fn place(fields: &Fields) -> Result<SitePath> {
    files::path("path", fields.text("path"))
}

fn inside(folder: &SitePath, name: &str) -> Result<SitePath> {
    folder
        .join(name.trim())
        .map_err(|error| Refusal::invalid("name", capital(&error.to_string())))
}

/// Makes a folder, or begins a new text file.
pub async fn folder(SiteForm(at, fields): SiteForm) -> Result<Redirect> {
    let folder = place(&fields)?;
    let path = inside(&folder, fields.text("name"))?;
    if fields.text("what") == "file" {
        let query = coded(path.as_str());
        let to = format!("/sites/{}/files/edit?path={query}&new=1", at.site.id);
        return Ok(Redirect::to(&to));
    }
    let wish = CreateFolder { path };
    files::folder(&at.control, &at.viewer.caller, at.site.id, wish).await?;
    Ok(Redirect::to(&folder_page(&at.site, &folder)))
}

/// Gives something another name, or another place when the name is a path.
pub async fn rename(SiteForm(at, fields): SiteForm) -> Result<Redirect> {
    let from = of_hex("of", fields.text("of"))?;
    let name = fields.text("name").trim();
    let to = match name.contains('/') {
        true => files::path("name", name)?,
        false => inside(&from.parent(), name)?,
    };
    let folder = to.parent();
    files::rename(
        &at.control,
        &at.viewer.caller,
        at.site.id,
        MoveFile { from, to },
    )
    .await?;
    Ok(Redirect::to(&folder_page(&at.site, &folder)))
}

fn of_hex(field: &str, text: &str) -> Result<SitePath> {
    let bytes = hex::decode(text).unwrap_or_default();
    files::path(field, &String::from_utf8_lossy(&bytes))
}

fn picked(fields: &Fields) -> Result<Vec<SitePath>> {
    let all = fields.picked().map(|text| of_hex("pick", text));
    let all = all.collect::<Result<Vec<_>>>()?;
    match all.is_empty() {
        true => Err(Refusal::invalid("pick", "Nothing was chosen.")
            .remedy("Go back and tick what it is about.")),
        false => Ok(all),
    }
}

/// Removes what was ticked, once it was asked whether that is meant.
pub async fn remove(SiteForm(at, fields): SiteForm) -> Result<Response> {
    let folder = place(&fields)?;
    let all = picked(&fields)?;
    if fields.text("sure") != "yes" {
        let f = at.frame("Remove files of").await?;
        let shown = |path: SitePath| (visible(path.as_str()), hex::encode(path.as_str()));
        return written(&Sure {
            f,
            id: at.site.id.to_string(),
            here: coded(folder.as_str()),
            path: folder.into(),
            picked: all.into_iter().map(shown).collect(),
        });
    }
    for path in all {
        match files::remove(&at.control, &at.viewer.caller, at.site.id, path, None).await {
            // The form was sent twice.
            Err(refusal) if refusal.0.status == 404 => {}
            other => other?,
        }
    }
    Ok(Redirect::to(&folder_page(&at.site, &folder)).into_response())
}

/// Makes an archive of what was ticked.
pub async fn pack(SiteForm(at, fields): SiteForm) -> Result<Redirect> {
    let folder = place(&fields)?;
    let paths = picked(&fields)?;
    let mut name = fields.some("archive").unwrap_or_else(|| "files".to_owned());
    if !name.ends_with(".zip") {
        name.push_str(".zip");
    }
    let to = inside(&folder, &name)?;
    files::pack(
        &at.control,
        &at.viewer.caller,
        at.site.id,
        PackFiles { paths, to },
    )
    .await?;
    Ok(Redirect::to(&folder_page(&at.site, &folder)))
}

/// Unpacks an archive where it lies.
pub async fn unpack(SiteForm(at, fields): SiteForm) -> Result<Redirect> {
    let path = place(&fields)?;
    let into = path.parent();
    let to = folder_page(&at.site, &into);
    files::unpack(
        &at.control,
        &at.viewer.caller,
        at.site.id,
        UnpackFile { path, into },
    )
    .await?;
    Ok(Redirect::to(&to))
}
