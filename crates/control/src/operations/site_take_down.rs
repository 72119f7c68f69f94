//! `site.take_down`: a deleted site stops on its server, its files and databases stay. It was
//! marked and its routes closed when the operation was made.
//!
//! | step | does | undo |
//! |---|---|---|
//! | apply | the server runs none of the site's programs, now or when it starts | none: `restore` is the undo |

use futures_util::future::BoxFuture;

use super::site_create::apply_version;
use super::trouble::Outcome;
use super::work::Work;
use super::{Kind, step};

/// A deleted site stops.
pub const TAKE_DOWN: Kind = Kind {
    name: "site.take_down",
    steps: &[step!("apply", apply, keep "restoring the site is the undo")],
    failed,
    patience_ms: super::PATIENCE_MS,
};

async fn apply(work: &mut Work) -> Outcome<()> {
    let server = work.param("server")?;
    let version = work.param("manifest_version")?;
    apply_version(work, server, version, false).await
}

/// No visitor reaches it in any case; the server gets it with the next change.
fn failed(_: &mut Work, _: String) -> BoxFuture<'_, Outcome<()>> {
    Box::pin(async { Ok(()) })
}
