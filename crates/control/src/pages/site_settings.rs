//! A site's settings as one form: names, redirects, PHP, environment. What was typed stays when it
//! is refused; what somebody else changed meanwhile is not overwritten.

use std::collections::BTreeMap;

use askama::Template;
use axum::response::Response;
use undine_api::Problem;
use undine_api::public::{Site, UpdateSite};
use undine_manifest::SiteSettings;
use undine_model::{Bytes, DomainName};

use super::answer::answered;
use super::at_site::{AtSite, SiteForm};
use super::fields::Fields;
use super::frame::{Frame, page as written};
use crate::app::caller::Expected;
use crate::app::site_change;
use crate::refusal::{Refusal, Result, capital};

#[derive(Template)]
#[template(path = "site_settings.html")]
struct Page {
    f: Frame,
    id: String,
    domain: String,
    problem: Option<Problem>,
    form: Form,
}

/// What stands in the form.
struct Form {
    version: String,
    aliases: String,
    redirects: String,
    document_root: String,
    max_upload_mib: String,
    php: String,
    env: String,
    page_cache: bool,
}

/// One of these a line, with `sign` between name and value.
fn lines(map: &BTreeMap<String, String>, sign: &str) -> String {
    let line = |(name, value): (&String, &String)| format!("{name}{sign}{value}");
    map.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl Form {
    fn of(site: &Site) -> Self {
        let settings = &site.settings;
        let aliases = site.aliases.iter().map(ToString::to_string);
        Self {
            version: site.version.to_string(),
            aliases: aliases.collect::<Vec<_>>().join("\n"),
            redirects: lines(&settings.redirects, " "),
            document_root: settings.document_root.clone(),
            max_upload_mib: settings
                .max_upload
                .map_or(String::new(), |most| (most.0 >> 20).to_string()),
            php: lines(&settings.php, " = "),
            env: lines(&settings.env, "="),
            page_cache: settings.page_cache,
        }
    }

    fn typed(fields: &Fields) -> Self {
        let text = |name| fields.text(name).replace("\r\n", "\n");
        Self {
            version: text("version"),
            aliases: text("aliases"),
            redirects: text("redirects"),
            document_root: text("document_root"),
            max_upload_mib: text("max_upload_mib"),
            php: text("php"),
            env: text("env"),
            page_cache: fields.text("page_cache") == "on",
        }
    }

    fn wish(&self) -> Result<UpdateSite> {
        let settings = SiteSettings {
            document_root: self.document_root.trim().to_owned(),
            php: pairs("php", &self.php, "=", "memory_limit = 256M")?,
            env: pairs("env", &self.env, "=", "APP_MODE=live")?,
            redirects: pairs(
                "redirects",
                &self.redirects,
                " ",
                "/old https://example.com/new",
            )?,
            max_upload: self.max_upload()?,
            page_cache: self.page_cache,
        };
        Ok(UpdateSite {
            aliases: Some(self.names()?),
            runtime: None,
            settings: Some(settings),
        })
    }

    fn names(&self) -> Result<Vec<DomainName>> {
        let words = self.aliases.split_whitespace();
        words
            .map(|word| {
                word.parse().map_err(|error: undine_model::InvalidName| {
                    let why = format!("`{word}`: {error}.");
                    Refusal::invalid("aliases", capital(&why))
                })
            })
            .collect()
    }

    fn max_upload(&self) -> Result<Option<Bytes>> {
        let text = self.max_upload_mib.trim();
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<u64>() {
            Ok(mib @ 1..=2_048) => Ok(Some(Bytes::mib(mib))),
            _ => Err(Refusal::invalid(
                "max_upload_mib",
                "The largest upload is a number of MiB, from 1 to 2048, or empty.",
            )),
        }
    }
}

/// Reads one name and value a line.
fn pairs(field: &str, text: &str, sign: &str, like: &str) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let refused = |why: &str| {
            Refusal::invalid(field, format!("Line {}: {why}.", number + 1))
                .remedy(format!("Write one a line, like `{like}`."))
        };
        let (name, value) = line
            .split_once(sign)
            .ok_or_else(|| refused("it has no name and value"))?;
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        if map.insert(name, value).is_some() {
            return Err(refused("its name stands above already"));
        }
    }
    Ok(map)
}

async fn shown(at: &AtSite, form: Form, problem: Option<Problem>) -> Result<Response> {
    written(&Page {
        f: at.frame("Settings of").await?,
        id: at.site.id.to_string(),
        domain: at.site.domain.to_string(),
        problem,
        form,
    })
}

/// The form.
pub async fn page(at: AtSite) -> Result<Response> {
    let form = Form::of(&at.site);
    shown(&at, form, None).await
}

/// Changes them; the site's page shows how that goes.
pub async fn change(SiteForm(at, fields): SiteForm) -> Result<Response> {
    let form = Form::typed(&fields);
    let done = async {
        let expected = Expected::Version(fields.parse("version")?);
        let wish = form.wish()?;
        site_change::update(&at.control, &at.viewer.caller, at.site.id, expected, wish).await
    };
    let done = done.await;
    let page = |problem| shown(&at, form, Some(problem));
    answered(done, |_| format!("/sites/{}", at.site.id), page).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_pairs_and_bad_ones_are_named_by_their_number() {
        let read = pairs("env", "A=1\n\n B = x=y \n", "=", "A=1").unwrap();
        assert_eq!(read["B"], "x=y");
        assert_eq!(lines(&read, "="), "A=1\nB=x=y");
        let refusal = pairs("env", "A=1\nnonsense", "=", "A=1").unwrap_err();
        assert_eq!(refusal.0.field.as_deref(), Some("env"));
        assert!(refusal.0.detail.contains("Line 2"), "{:?}", refusal.0);
        let twice = pairs("env", "A=1\nA=2", "=", "A=1").unwrap_err();
        assert!(twice.0.detail.contains("above already"));
    }
}
