//! Pages of lists: the cursor is the id after which the next page begins.

use undine_api::public::List;
use undine_store::{Page, PageRequest};
use uuid::Uuid;

use crate::refusal::{Refusal, Result};

/// Which page is wanted.
#[derive(Debug, Clone, Default)]
pub struct PageWish {
    /// At most so many.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

const USUAL: u32 = 50;

impl PageWish {
    /// For the store.
    pub fn request(&self, newest_first: bool) -> Result<PageRequest> {
        let limit = self.limit.unwrap_or(USUAL);
        if !(1..=PageRequest::MOST).contains(&limit) {
            return Err(Refusal::invalid(
                "limit",
                format!("A page holds 1 to {} things.", PageRequest::MOST),
            ));
        }
        let after = match &self.cursor {
            None => None,
            Some(text) => Some(Uuid::try_parse(text).map_err(|_| {
                Refusal::invalid(
                    "cursor",
                    "This is no cursor; pass `next` of the page before.",
                )
            })?),
        };
        Ok(PageRequest {
            limit,
            after,
            newest_first,
        })
    }
}

/// A page as the API shows it.
pub fn list<R, T>(page: Page<R>, show: impl FnMut(R) -> T) -> List<T> {
    List {
        items: page.items.into_iter().map(show).collect(),
        next: page.next.map(|id| id.to_string()),
    }
}
