//! What a form is answered with.

use std::future::Future;

use axum::response::{IntoResponse as _, Redirect, Response};
use undine_api::Problem;

use crate::refusal::Result;

/// Another page once it is done, else the form's own page with the problem on it.
pub async fn answered<T, F>(
    done: Result<T>,
    to: impl FnOnce(T) -> String,
    page: impl FnOnce(Problem) -> F,
) -> Result<Response>
where
    F: Future<Output = Result<Response>>,
{
    match done {
        Ok(done) => Ok(Redirect::to(&to(done)).into_response()),
        Err(refusal) => {
            let status = refusal.status();
            let page = page(*refusal.0).await?;
            Ok((status, page).into_response())
        }
    }
}

/// What cannot be reached has no page that a problem could be shown on.
pub fn reached<T>(done: Result<T>) -> Result<Result<T>> {
    match done {
        Err(refusal) if matches!(refusal.status().as_u16(), 403 | 404) => Err(refusal),
        done => Ok(done),
    }
}
