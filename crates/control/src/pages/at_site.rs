//! Somebody at a page of a site that they may know of: what its pages and forms begin with.

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use undine_api::public::Site;

use super::fields::{Fields, id};
use super::frame::Frame;
use crate::app::sessions::Viewer;
use crate::app::sites;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// Who is where.
pub struct AtSite {
    /// The instance.
    pub control: Control,
    /// Who.
    pub viewer: Viewer,
    /// The site in the address.
    pub site: Site,
}

impl FromRequestParts<Control> for AtSite {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, control: &Control) -> Result<Self> {
        let viewer = Viewer::from_request_parts(parts, control).await?;
        let which = Path::<String>::from_request_parts(parts, control).await;
        let which = which.map_or_else(|_| String::new(), |Path(which)| which);
        let site = sites::get(control, &viewer.caller, id(&which)?).await?;
        Ok(Self {
            control: control.clone(),
            viewer,
            site,
        })
    }
}

/// A form that was sent at a site. Its secret is looked at first: whoever forges one learns nothing
/// of what is there.
pub struct SiteForm(pub AtSite, pub Fields);

impl FromRequest<Control> for SiteForm {
    type Rejection = Refusal;
    async fn from_request(request: Request, control: &Control) -> Result<Self> {
        let (mut parts, body) = request.into_parts();
        let request = Request::from_parts(parts.clone(), body);
        let fields = Fields::from_request(request, control).await?;
        let at = AtSite::from_request_parts(&mut parts, control).await?;
        Ok(Self(at, fields))
    }
}

impl AtSite {
    /// The frame of a page about it, with what the page is before its domain.
    pub async fn frame(&self, what: &str) -> Result<Frame> {
        let title = format!("{what} {}", self.site.domain);
        Frame::new(&self.control, &self.viewer, &title, "/sites", 0).await
    }
}
