//! A text among a site's files, edited in the page. What somebody else changed meanwhile is not
//! overwritten, and what was typed stays in the page when it is refused.

use askama::Template;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use undine_api::Problem;
use undine_api::public::{MAX_TEXT, Site};
use undine_model::path::visible;

use super::at_site::AtSite;
use super::files::folder_page;
use super::frame::{Frame, page as written};
use super::parcels::{Parcel, Typed};
use crate::api::extract::Asked;
use crate::app::files;
use crate::app::sessions::Viewer;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// Which file.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Which {
    #[serde(default)]
    path: String,
    /// It is to be made.
    new: Option<String>,
}

#[derive(Template)]
#[template(path = "files_edit.html")]
struct Page {
    f: Frame,
    id: String,
    name: String,
    back: String,
    problem: Option<Problem>,
    typed: Typed,
}

async fn show(
    control: &Control,
    viewer: &Viewer,
    site: &Site,
    typed: Typed,
    problem: Option<Problem>,
) -> Result<Response> {
    let path = files::path("path", &typed.path)?;
    let name = visible(path.as_str());
    written(&Page {
        f: Frame::new(control, viewer, &name, "/sites", 0).await?,
        id: site.id.to_string(),
        back: folder_page(site, &path.parent()),
        name,
        problem,
        typed,
    })
}

/// The page.
pub async fn page(at: AtSite, Asked(asked): Asked<Which>) -> Result<Response> {
    let AtSite {
        control,
        viewer,
        site,
    } = at;
    let path = files::path("path", &asked.path)?;
    let mut typed = Typed {
        path: path.as_str().to_owned(),
        ..Typed::default()
    };
    if asked.new.is_none() {
        let file = files::open(&control, &viewer.caller, site.id, path).await?;
        typed.mark = file.mark.clone();
        let text = file.text(MAX_TEXT).await?;
        typed.crlf = text.contains("\r\n");
        typed.text = text.replace("\r\n", "\n");
    }
    show(&control, &viewer, &site, typed, None).await
}

/// Saves it.
pub async fn save(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    request: Request,
) -> Result<Response> {
    let mut parcel = Parcel::open(&control, &viewer, &which, request).await?;
    let typed = Typed::read(&mut parcel).await?;
    let site = parcel.site;
    let path = files::path("path", &typed.path)?;
    let body = futures_util::stream::iter([Ok::<_, Refusal>(Bytes::from(typed.bytes()))]);
    let place = files::Place {
        path: path.clone(),
        expect: typed.expect(),
        parents: false,
    };
    match files::put(&control, &viewer.caller, site.id, place, body).await {
        Ok(_) => Ok(Redirect::to(&folder_page(&site, &path.parent())).into_response()),
        Err(refusal) => {
            let status = refusal.status();
            let mut problem = *refusal.0;
            if matches!(status.as_u16(), 409 | 412) {
                problem.remedy = Some(
                    "Open the file in another window to compare, or tick that yours counts."
                        .to_owned(),
                );
            }
            let page = show(&control, &viewer, &site, typed, Some(problem)).await?;
            Ok((status, page).into_response())
        }
    }
}
