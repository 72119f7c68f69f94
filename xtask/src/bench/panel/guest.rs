//! Somebody who is logged in to the panel, as a bench needs them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bench::api::{Api, text};
use crate::bench::wire::{self, Answer, Request};

const PATIENCE: Duration = Duration::from_secs(30);
/// Nobody but the bench's own instance knows it.
const PASSWORD: &str = "lamp-harbour-sixteen-fern";

/// A browser with a session.
pub struct Guest {
    address: SocketAddr,
    cookie: String,
}

/// What lies between two texts, for the first time.
fn between<'a>(whole: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = whole.split_once(before)?.1;
    Some(rest.split_once(after)?.0)
}

impl Guest {
    /// Comes in by a one-time link, under this name.
    pub fn come_in(address: SocketAddr, link: &str, name: &str) -> Result<Self> {
        let secret = link.trim().rsplit('/').next().unwrap_or_default();
        let mut guest = Self {
            address,
            cookie: String::new(),
        };
        let form = format!("email={name}%40bench.localhost&name={name}&password={PASSWORD}");
        let answer = guest.send("POST", &format!("/welcome/{secret}"), &form)?;
        let cookie = answer
            .header("set-cookie")
            .and_then(|text| text.split(';').next());
        guest.cookie = cookie
            .with_context(|| format!("the link let nobody in: status {}", answer.status))?
            .to_owned();
        Ok(guest)
    }

    fn send(&self, method: &str, path: &str, form: &str) -> Result<Answer> {
        self.send_to(self.address, method, path, form)
    }

    fn send_to(&self, address: SocketAddr, method: &str, path: &str, form: &str) -> Result<Answer> {
        let headers = [
            ("Cookie", self.cookie.as_str()),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        let request = Request {
            method,
            host: "localhost",
            path,
            headers: &headers,
            body: form.as_bytes(),
        };
        wire::ask(address, &request, PATIENCE)
    }

    /// The header that says who it is.
    pub fn header(&self) -> String {
        format!("Cookie: {}", self.cookie)
    }

    /// Refuses to go on when the page is not shown, or is not a page for them.
    pub fn sees(&self, path: &str) -> Result<()> {
        self.sees_at(self.address, path)
    }

    /// The same at another instance.
    pub fn sees_at(&self, address: SocketAddr, path: &str) -> Result<()> {
        let answer = self.send_to(address, "GET", path, "")?;
        ensure!(answer.status == 200, "{path}: status {}", answer.status);
        Ok(())
    }

    /// Invites somebody to the first account; answers their link.
    pub fn invites(&self, api: &Api) -> Result<String> {
        let accounts = api.get("/v1/accounts?limit=1")?;
        let account = text(&accounts["items"][0], "id");
        let me = self.send("GET", "/me", "")?.text();
        let csrf = between(&me, "name=\"csrf\" value=\"", "\"").context("/me has no form")?;
        let path = format!("/accounts/{account}/invite");
        let page = self.send("POST", &path, &format!("csrf={csrf}"))?.text();
        let secret = between(&page, "/welcome/", "<").context("no link was shown")?;
        Ok(format!("/welcome/{secret}"))
    }
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn what_lies_between_is_found_or_missing() {
        assert_eq!(between("a=\"x\" b", "a=\"", "\""), Some("x"));
        assert_eq!(between("a=\"x", "a=\"", "\""), None);
    }
}
