//! What a site's owner may set: checked by control at the door and by the guest once more.
//!
//! Every rule names the field and what to write instead. Whatever passes here can be rendered
//! into any of the services' files without ending the place that it was meant for.

use std::collections::BTreeMap;

use crate::quote;
use crate::spec::{DatabaseSpec, Manifest, ManifestDelta, SiteSettings, SiteSpec};

/// One rule that a site or database breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Broken {
    /// The field, such as `settings.php.memory_limit`.
    pub field: String,
    /// What is wrong and what to write.
    pub reason: String,
}

/// The manifest as a whole cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// Written by a newer version.
    #[error(
        "the manifest has format {found}, and this agent reads up to {known}: start the server from a newer image first"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Two sites claim the same thing.
    #[error("sites {first} and {second} both have {what}")]
    Twice {
        /// Uid or name.
        what: String,
        /// One site.
        first: String,
        /// The other.
        second: String,
    },
}

/// The lowest Unix user number that a site can have.
pub const FIRST_UID: u32 = 20_000;
/// The highest; above lie numbers that systemd uses itself.
pub const LAST_UID: u32 = 60_000;

/// Checks the format number alone.
pub fn format(found: u32) -> Result<(), BadManifest> {
    if found > crate::FORMAT {
        return Err(BadManifest::Newer {
            found,
            known: crate::FORMAT,
        });
    }
    Ok(())
}

/// Checks what concerns several sites at once.
pub fn manifest(manifest: &Manifest) -> Result<(), BadManifest> {
    format(manifest.format)?;
    let mut uids = BTreeMap::new();
    let mut names = BTreeMap::new();
    for site in &manifest.sites {
        let twice = |what: String, first: &SiteSpec| BadManifest::Twice {
            what,
            first: first.id.to_string(),
            second: site.id.to_string(),
        };
        if let Some(first) = uids.insert(site.uid, site) {
            return Err(twice(format!("user number {}", site.uid), first));
        }
        for name in site.names() {
            if let Some(first) = names.insert(name, site) {
                return Err(twice(format!("the name {name}"), first));
            }
        }
    }
    Ok(())
}

/// Checks a delta's format.
pub fn delta(delta: &ManifestDelta) -> Result<(), BadManifest> {
    format(delta.format)
}

/// Every rule that a site breaks; none when it can be applied.
pub fn site(site: &SiteSpec) -> Vec<Broken> {
    let mut broken = settings(&site.settings);
    if !(FIRST_UID..=LAST_UID).contains(&site.uid) {
        let reason = format!("must be {FIRST_UID} to {LAST_UID}");
        broken.push(rule("uid", &reason));
    }
    broken
}

/// Every rule that a site's settings break; none when they can be used.
pub fn settings(settings: &SiteSettings) -> Vec<Broken> {
    let mut broken = Vec::new();
    if let Some(reason) = bad_folder(&settings.document_root) {
        broken.push(rule("settings.document_root", reason));
    }
    for (map, name) in [
        (&settings.php, "php"),
        (&settings.env, "env"),
        (&settings.redirects, "redirects"),
    ] {
        if map.len() > 100 {
            broken.push(rule(&format!("settings.{name}"), "at most 100 entries"));
        }
    }
    each(&mut broken, "php", &settings.php, bad_php);
    each(&mut broken, "env", &settings.env, bad_env);
    each(&mut broken, "redirects", &settings.redirects, bad_redirect);
    if settings.max_upload.is_some_and(|max| max.0 > 2 << 30) {
        broken.push(rule("settings.max_upload", "at most 2 GiB"));
    }
    broken
}

/// Every rule that a database breaks.
pub fn database(database: &DatabaseSpec) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (field, text, longest) in [("name", &database.name, 64), ("user", &database.user, 80)] {
        let good = (1..=longest).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            && ![
                "mysql",
                "sys",
                "information_schema",
                "performance_schema",
                "root",
                "mariadb_sys",
            ]
            .contains(&text.as_str());
        if !good {
            let reason = format!("1 to {longest} of a-z, 0-9 and _, and no name of the system");
            broken.push(rule(&format!("database.{field}"), &reason));
        }
    }
    if database.password.len() < 8 || crate::sql::password(&database.password).is_err() {
        broken.push(rule(
            "database.password",
            "at least 8 characters, none of them a quote, a backslash or a control character",
        ));
    }
    broken
}

fn rule(field: &str, reason: &str) -> Broken {
    Broken {
        field: field.to_owned(),
        reason: reason.to_owned(),
    }
}

fn each(
    broken: &mut Vec<Broken>,
    name: &str,
    map: &BTreeMap<String, String>,
    bad: fn(&str, &str) -> Option<&'static str>,
) {
    for (key, value) in map {
        if let Some(reason) = bad(key, value) {
            let key: String = key.chars().filter(|c| !c.is_control()).take(80).collect();
            broken.push(rule(&format!("settings.{name}.{key}"), reason));
        }
    }
}

/// Why the text is no folder below a release.
fn bad_folder(folder: &str) -> Option<&'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let well_formed = folder.is_empty()
        || folder
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain));
    (!well_formed || folder.len() > 200).then_some(
        "a folder below the release, such as public or web/public: letters, digits, `.`, `_`, `-`, no part that starts with a dot",
    )
}

/// Directives that decide where a site's processes may reach; the server sets them.
const PHP_RESERVED: [&str; 14] = [
    "open_basedir",
    "session.save_path",
    "session.save_handler",
    "upload_tmp_dir",
    "sys_temp_dir",
    "error_log",
    "extension",
    "extension_dir",
    "zend_extension",
    "doc_root",
    "user_dir",
    "sendmail_path",
    "mail.log",
    "syslog.ident",
];

fn bad_php(key: &str, value: &str) -> Option<&'static str> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_');
    if !(1..=64).contains(&key.len())
        || !key.starts_with(|c: char| c.is_ascii_lowercase())
        || !key.bytes().all(plain)
    {
        return Some("not the name of a PHP directive, such as memory_limit");
    }
    if PHP_RESERVED.contains(&key) || key.starts_with("opcache.") || key.starts_with("ffi.") {
        return Some("the server sets this directive itself; leave it out");
    }
    bad_value(value)
}

fn bad_env(key: &str, value: &str) -> Option<&'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if !(1..=64).contains(&key.len())
        || !key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        || !key.bytes().all(plain)
    {
        return Some("not the name of an environment variable, such as APP_ENV");
    }
    let reserved = [
        "PATH",
        "HOME",
        "USER",
        "TMPDIR",
        "FPM_SOCKETS",
        "NOTIFY_SOCKET",
    ];
    if reserved.contains(&key) || key.starts_with("LD_") || key.starts_with("LISTEN_") {
        return Some("the server sets this variable itself; leave it out");
    }
    bad_value(value)
}

fn bad_value(value: &str) -> Option<&'static str> {
    if value.len() > 4096 {
        return Some("at most 4,096 bytes");
    }
    quote::ini(value).err().map(|_| {
        "no line breaks, and a single quote not together with a double quote, a backslash or a dollar sign"
    })
}

fn bad_redirect(from: &str, to: &str) -> Option<&'static str> {
    let url = |b: u8| b.is_ascii_alphanumeric() || b"-._~%/+!*,:@=&?#".contains(&b);
    let path = |b: u8| b.is_ascii_alphanumeric() || b"-._~/+,@".contains(&b);
    if !from.starts_with('/') || from.len() > 200 || !from.bytes().all(path) || from.contains("..")
    {
        return Some("the old path, such as /shop: it starts with / and has no spaces or quotes");
    }
    if from.starts_with("/.well-known/") {
        return Some("paths below /.well-known belong to the server");
    }
    let target = to.starts_with("https://") || to.starts_with("http://") || to.starts_with('/');
    if !target || to.starts_with("//") || to.len() > 1_000 || !to.bytes().all(url) {
        return Some(
            "the new address must start with https://, http:// or / and be written percent-encoded",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut SiteSettings)) -> Vec<Broken> {
        let mut given = SiteSettings::default();
        change(&mut given);
        settings(&given)
    }

    fn pair(key: &str, value: &str) -> BTreeMap<String, String> {
        [(key.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn a_document_root_stays_below_the_release() {
        assert!(with(|s| s.document_root = "web/public".into()).is_empty());
        for bad in [
            "/etc", "..", "a/../b", ".", "a//b", "a b", "a;b", ".git", "a/", "a\n",
        ] {
            let broken = with(|s| s.document_root = bad.into());
            assert_eq!(broken.len(), 1, "{bad:?}");
            assert_eq!(broken[0].field, "settings.document_root");
        }
    }

    #[test]
    fn a_site_cannot_widen_what_its_php_may_reach() {
        assert!(with(|s| s.php = pair("memory_limit", "128M")).is_empty());
        for (key, value) in [
            ("open_basedir", "/"),
            ("session.save_path", "/tmp"),
            ("extension", "evil.so"),
            ("opcache.preload", "/x"),
            ("memory_limit", "1\nextension=evil.so"),
            ("memory_limit]\n[global", "1"),
            ("MEMORY", "1"),
        ] {
            assert_eq!(with(|s| s.php = pair(key, value)).len(), 1, "{key}={value}");
        }
    }

    #[test]
    fn environment_and_redirects_are_held_to_their_shapes() {
        assert!(with(|s| s.env = pair("APP_KEY", "base64:$x;{}\"")).is_empty());
        for (key, value) in [
            ("LD_PRELOAD", "x"),
            ("A B", "x"),
            ("", "x"),
            ("A", "x\n[y]"),
        ] {
            assert_eq!(with(|s| s.env = pair(key, value)).len(), 1, "{key}");
        }
        assert!(with(|s| s.redirects = pair("/old", "https://example.org/new?a=b")).is_empty());
        for (from, to) in [
            ("old", "/new"),
            ("/old", "javascript:alert(1)"),
            ("/old", "//evil.example"),
            ("/old", "/new\"; } server { #"),
            ("/o {", "/new"),
            ("/old", "/$host"),
            ("/.well-known/acme-challenge", "/x"),
        ] {
            assert_eq!(
                with(|s| s.redirects = pair(from, to)).len(),
                1,
                "{from} {to}"
            );
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_the_remedy() {
        let error = format(crate::FORMAT + 1).unwrap_err();
        assert!(error.to_string().contains("newer image"));
        assert!(format(crate::FORMAT).is_ok());
    }
}
