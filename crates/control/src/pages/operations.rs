//! Operations: what is being done, step by step.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;

use super::fields::id;
use super::frame::{Frame, page as written};
use super::words::{OperationRow, operation};
use crate::api::extract::Asked;
use crate::app::operations;
use crate::app::paging::PageWish;
use crate::app::sessions::Viewer;
use crate::control::Control;
use crate::refusal::Result;

/// Which page of a list.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Which {
    /// Where it begins.
    pub cursor: Option<String>,
}

#[derive(Template)]
#[template(path = "operations.html")]
struct Operations {
    f: Frame,
    operations: Vec<OperationRow>,
    next: String,
}

#[derive(Template)]
#[template(path = "operation.html")]
struct One {
    f: Frame,
    o: OperationRow,
}

/// The list.
pub async fn list(
    State(control): State<Control>,
    viewer: Viewer,
    Asked(which): Asked<Which>,
) -> Result<Response> {
    let wish = PageWish {
        limit: None,
        cursor: which.cursor,
    };
    let all = operations::all(&control, &viewer.caller, &wish, None, None).await?;
    written(&Operations {
        f: Frame::new(&control, &viewer, "Operations", "/operations", 10).await?,
        operations: all.items.into_iter().map(operation).collect(),
        next: all.next.unwrap_or_default(),
    })
}

/// One of them.
pub async fn page(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
) -> Result<Response> {
    let o = operation(operations::get(&control, &viewer.caller, id(&which)?).await?);
    let f = Frame::new(
        &control,
        &viewer,
        &o.what,
        "/operations",
        if o.ended { 30 } else { 1 },
    )
    .await?;
    written(&One { f, o })
}
