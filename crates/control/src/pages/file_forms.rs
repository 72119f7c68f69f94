//! Forms that change a site's files. All of them work without scripts.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use undine_api::public::{CreateFolder, MoveFile, PackFiles, Site, UnpackFile};
use undine_model::SitePath;
use undine_model::path::visible;

use super::fields::{Fields, id};
use super::files::{coded, folder_page};
use super::frame::{Frame, page as written};
use crate::app::sessions::Viewer;
use crate::app::{files, sites};
use crate::control::Control;
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

/// A site and the folder that a form is about.
async fn place(
    control: &Control,
    viewer: &Viewer,
    which: &str,
    fields: &Fields,
) -> Result<(Site, SitePath)> {
    let site = sites::get(control, &viewer.caller, id(which)?).await?;
    let path = files::path("path", fields.text("path"))?;
    Ok((site, path))
}

fn inside(folder: &SitePath, name: &str) -> Result<SitePath> {
    folder
        .join(name.trim())
        .map_err(|error| Refusal::invalid("name", capital(&error.to_string())))
}

/// Makes a folder, or begins a new text file.
pub async fn folder(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let (site, folder) = place(&control, &viewer, &which, &fields).await?;
    let path = inside(&folder, fields.text("name"))?;
    if fields.text("what") == "file" {
        let query = coded(path.as_str());
        let to = format!("/sites/{}/files/edit?path={query}&new=1", site.id);
        return Ok(Redirect::to(&to));
    }
    let wish = CreateFolder { path };
    files::folder(&control, &viewer.caller, site.id, wish).await?;
    Ok(Redirect::to(&folder_page(&site, &folder)))
}

/// Gives something another name, or another place when the name is a path.
pub async fn rename(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let site = sites::get(&control, &viewer.caller, id(&which)?).await?;
    let from = of_hex("of", fields.text("of"))?;
    let name = fields.text("name").trim();
    let to = match name.contains('/') {
        true => files::path("name", name)?,
        false => inside(&from.parent(), name)?,
    };
    let folder = to.parent();
    files::rename(&control, &viewer.caller, site.id, MoveFile { from, to }).await?;
    Ok(Redirect::to(&folder_page(&site, &folder)))
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
pub async fn remove(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Response> {
    let (site, folder) = place(&control, &viewer, &which, &fields).await?;
    let all = picked(&fields)?;
    if fields.text("sure") != "yes" {
        let f = Frame::new(&control, &viewer, "Remove files", "/sites", 0).await?;
        let shown = |path: SitePath| (visible(path.as_str()), hex::encode(path.as_str()));
        return written(&Sure {
            f,
            id: site.id.to_string(),
            here: coded(folder.as_str()),
            path: folder.into(),
            picked: all.into_iter().map(shown).collect(),
        });
    }
    for path in all {
        match files::remove(&control, &viewer.caller, site.id, path, None).await {
            // The form was sent twice.
            Err(refusal) if refusal.0.status == 404 => {}
            other => other?,
        }
    }
    Ok(Redirect::to(&folder_page(&site, &folder)).into_response())
}

/// Makes an archive of what was ticked.
pub async fn pack(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let (site, folder) = place(&control, &viewer, &which, &fields).await?;
    let paths = picked(&fields)?;
    let mut name = fields.some("archive").unwrap_or_else(|| "files".to_owned());
    if !name.ends_with(".zip") {
        name.push_str(".zip");
    }
    let to = inside(&folder, &name)?;
    files::pack(&control, &viewer.caller, site.id, PackFiles { paths, to }).await?;
    Ok(Redirect::to(&folder_page(&site, &folder)))
}

/// Unpacks an archive where it lies.
pub async fn unpack(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let (site, path) = place(&control, &viewer, &which, &fields).await?;
    let into = path.parent();
    let to = folder_page(&site, &into);
    files::unpack(&control, &viewer.caller, site.id, UnpackFile { path, into }).await?;
    Ok(Redirect::to(&to))
}
