//! Renders a profile's templates for one server and its sites.
//!
//! Templates are Jinja. They see `server`, for a site also `site`, and `root`: empty for live
//! files, the folder of the candidate tree while files are checked. Values that people wrote go
//! through the filter of the language they land in: `nginx`, `ini` or `php`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};
use serde::Serialize;

use crate::app::App;
use crate::profile::{Profile, Runtime, Service};
use crate::quote;
use crate::spec::{DatabaseSpec, SiteSpec};
use crate::validate::{self, Broken};

/// What templates may know of the server itself.
#[derive(Debug, Clone, Default, Serialize, serde::Deserialize)]
pub struct Facts {
    /// Its host name.
    pub hostname: String,
    /// The edges' addresses; only they may say who a visitor is.
    pub edges: Vec<IpAddr>,
    /// Its name servers.
    pub resolvers: Vec<IpAddr>,
}

/// Path to text.
pub type Rendered = BTreeMap<String, String>;

/// Why something was not rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A template of the profile does not work.
    #[error("a template of the profile does not work")]
    Template(#[from] minijinja::Error),
    /// The site is not one that can be rendered.
    #[error("{}", list(.0))]
    Site(Vec<Broken>),
    /// The site wants a runtime that the profile lacks.
    #[error("this server's profile has no runtime `{0}`")]
    NoRuntime(String),
    /// A template named a path outside the server's own folders.
    #[error("a template names the path `{0}`, which is not an absolute path without `..`")]
    Path(String),
}

fn list(broken: &[Broken]) -> String {
    let all: Vec<String> = broken.iter().map(ToString::to_string).collect();
    all.join("; ")
}

/// What one site needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteFiles {
    /// Its files.
    pub files: Rendered,
    /// The unit that listens for it; empty for none.
    pub unit: String,
    /// The unit that works for it; empty for none.
    pub worker: String,
    /// The command that checks the files; empty for none.
    pub check: Vec<String>,
    /// Its own block for the web server, when the generic one does not do.
    pub vhost: Option<String>,
}

/// A profile's templates, read once and rendered many times.
pub struct Renderer<'p> {
    env: Environment<'p>,
    profile: &'p Profile,
    server: Value,
}

impl<'p> Renderer<'p> {
    /// Reads every template of the profile.
    pub fn new(profile: &'p Profile, facts: &Facts) -> Result<Self, RenderError> {
        let mut env = environment();
        for (path, text) in &profile.files {
            add(&mut env, path)?;
            add(&mut env, text)?;
        }
        for service in &profile.services {
            for (path, text) in &service.files {
                add(&mut env, path)?;
                add(&mut env, text)?;
            }
            add_all(&mut env, &service.check)?;
        }
        for runtime in profile.runtimes.values() {
            for (path, text) in &runtime.files {
                add(&mut env, path)?;
                add(&mut env, text)?;
            }
            add_all(&mut env, &runtime.check)?;
            for text in [&runtime.unit, &runtime.worker, &runtime.vhost] {
                add(&mut env, text)?;
            }
        }
        let server = Value::from_serialize(facts);
        Ok(Self {
            env,
            profile,
            server,
        })
    }

    /// The profile.
    pub fn profile(&self) -> &'p Profile {
        self.profile
    }

    /// Files of the whole server that belong to no single service.
    pub fn shared(&self) -> Result<Rendered, RenderError> {
        self.files(&self.profile.files, &self.general(""))
    }

    /// A service's files.
    pub fn service(&self, service: &'p Service, root: &str) -> Result<Rendered, RenderError> {
        self.files(&service.files, &self.general(root))
    }

    /// The command that checks a service's files under `root`.
    pub fn service_check(
        &self,
        service: &'p Service,
        root: &str,
    ) -> Result<Vec<String>, RenderError> {
        self.words(&service.check, &self.general(root))
    }

    /// Everything one site needs, with its own files named below `root`.
    pub fn site(&self, site: &SiteSpec, root: &str) -> Result<SiteFiles, RenderError> {
        let broken = validate::site(site);
        if !broken.is_empty() {
            return Err(RenderError::Site(broken));
        }
        let runtime = self.runtime(site)?;
        let seen = context! {
            server => self.server,
            site => Value::from_serialize(SiteView::of(site)),
            root => root,
        };
        let vhost = (needs_vhost(site) && !runtime.vhost.is_empty())
            .then(|| self.text(&runtime.vhost, &seen))
            .transpose()?;
        Ok(SiteFiles {
            files: self.files(&runtime.files, &seen)?,
            unit: self.text(&runtime.unit, &seen)?,
            worker: self.text(&runtime.worker, &seen)?,
            check: self.words(&runtime.check, &seen)?,
            vhost,
        })
    }

    fn runtime(&self, site: &SiteSpec) -> Result<&'p Runtime, RenderError> {
        self.profile
            .runtimes
            .get(&site.runtime)
            .ok_or_else(|| RenderError::NoRuntime(site.runtime.to_string()))
    }

    fn general(&self, root: &str) -> Value {
        context! { server => self.server, root => root }
    }

    fn text(&self, template: &'p str, seen: &Value) -> Result<String, RenderError> {
        Ok(self.env.get_template(template)?.render(seen)?)
    }

    fn words(&self, templates: &'p [String], seen: &Value) -> Result<Vec<String>, RenderError> {
        templates.iter().map(|word| self.text(word, seen)).collect()
    }

    fn files(
        &self,
        templates: &'p BTreeMap<String, String>,
        seen: &Value,
    ) -> Result<Rendered, RenderError> {
        templates
            .iter()
            .map(|(path, text)| {
                let path = self.text(path, seen)?;
                if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
                    return Err(RenderError::Path(path));
                }
                Ok((path, self.text(text, seen)?))
            })
            .collect()
    }
}

/// What an application's templates see.
pub struct AppView<'a> {
    /// The site it goes into.
    pub site: &'a SiteSpec,
    /// The site's database, if the application needs one.
    pub database: Option<&'a DatabaseSpec>,
    /// What the installer was told.
    pub answers: &'a BTreeMap<String, String>,
    /// Fresh random texts.
    pub secrets: &'a [String],
    /// Where the release lies.
    pub release: &'a str,
    /// Where the installer's scripts lie.
    pub work: &'a str,
}

/// An application, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppFiles {
    /// Path in the release to text.
    pub files: Rendered,
    /// Script name to text.
    pub scripts: Rendered,
    /// The installer's program and arguments.
    pub install: Vec<String>,
}

/// Renders an application for one site.
pub fn app(app: &App, view: &AppView<'_>) -> Result<AppFiles, RenderError> {
    let env = environment();
    let seen = context! {
        site => Value::from_serialize(SiteView::of(view.site)),
        database => Value::from_serialize(view.database),
        answers => Value::from_serialize(view.answers),
        secrets => Value::from_serialize(view.secrets),
        release => view.release,
        work => view.work,
    };
    let below = |templates: &BTreeMap<String, String>| -> Result<Rendered, RenderError> {
        templates
            .iter()
            .map(|(path, text)| {
                if path.starts_with('/') || path.split('/').any(|part| part == "..") {
                    return Err(RenderError::Path(path.clone()));
                }
                Ok((path.clone(), env.render_str(text, &seen)?))
            })
            .collect()
    };
    let install: Result<Vec<String>, minijinja::Error> = app
        .install
        .iter()
        .map(|word| env.render_str(word, &seen))
        .collect();
    Ok(AppFiles {
        files: below(&app.files)?,
        scripts: below(&app.scripts)?,
        install: install?,
    })
}

/// One word of a command with `{{ folder }}` in it.
pub fn with_folder(word: &str, folder: &str) -> Result<String, RenderError> {
    Ok(environment().render_str(word, context! { folder })?)
}

/// Some settings cannot be served by the block that all sites share.
fn needs_vhost(site: &SiteSpec) -> bool {
    !site.settings.redirects.is_empty() || site.settings.max_upload.is_some()
}

fn environment<'p>() -> Environment<'p> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_keep_trailing_newline(true);
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.add_filter("nginx", |text: &str| {
        quote::nginx(text).map_err(|e| refuse(&e))
    });
    env.add_filter("ini", |text: &str| quote::ini(text).map_err(|e| refuse(&e)));
    env.add_filter("php", |text: &str| quote::php(text));
    env
}

fn refuse(error: &quote::Unquotable) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string())
}

/// A template is filed under its own text: there is nothing else that is surely unique.
fn add<'p>(env: &mut Environment<'p>, text: &'p str) -> Result<(), RenderError> {
    Ok(env.add_template(text, text)?)
}

fn add_all<'p>(env: &mut Environment<'p>, texts: &'p [String]) -> Result<(), RenderError> {
    texts.iter().try_for_each(|text| add(env, text))
}

/// What templates see of a site.
#[derive(Serialize)]
struct SiteView<'a> {
    id: String,
    uid: u32,
    domain: &'a str,
    names: Vec<&'a str>,
    home: String,
    suspended: bool,
    settings: &'a crate::spec::SiteSettings,
    caps: &'a crate::spec::Caps,
    /// Worker processes that fit its memory and process caps.
    workers: u64,
    /// The largest request body in bytes.
    max_body: u64,
}

impl<'a> SiteView<'a> {
    fn of(site: &'a SiteSpec) -> Self {
        // A PHP worker of a common application takes about 48 MiB; two processes are kept for
        // the master and what a script starts.
        let by_memory = site.caps.memory.whole_mib() / 48;
        let by_processes = u64::from(site.caps.processes.saturating_sub(2));
        Self {
            id: site.id.to_string(),
            uid: site.uid,
            domain: site.domain.as_str(),
            names: site.names().map(undine_model::DomainName::as_str).collect(),
            home: format!("/srv/sites/{}", site.uid),
            suspended: site.suspended,
            settings: &site.settings,
            caps: &site.caps,
            workers: by_memory.min(by_processes).clamp(1, 20),
            max_body: site.settings.max_upload.map_or(64 << 20, |max| max.0),
        }
    }
}
