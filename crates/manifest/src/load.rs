//! Reads profiles and applications from the text files in which people write them.
//!
//! Pure: the caller hands over every file of the folder as name to text. A value
//! `{ file = "nginx.conf" }` stands for that file's text, looked for beside the `.toml` file first
//! and then from the folder's top, so that profiles can share templates.

use std::collections::BTreeMap;

use undine_model::{Bytes, MilliCpu};

use crate::app::App;
use crate::profile::Profile;

/// Name (with `/` between folders) to text.
pub type Files = BTreeMap<String, String>;

/// Why a profile or application cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself is not there.
    #[error("there is no {0}")]
    Missing(String),
    /// It names a file that is not there.
    #[error("{by} names the file {file}, which is not there")]
    MissingFile {
        /// The file that names it.
        by: String,
        /// The file that is named.
        file: String,
    },
    /// An amount is not written as one.
    #[error("{by}: {key} cannot be read")]
    Amount {
        /// The file.
        by: String,
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not TOML.
    #[error("{0} is not well-formed")]
    Syntax(String, #[source] Box<toml::de::Error>),
    /// TOML, but not what is wanted.
    #[error("{0} does not say what it must")]
    Shape(String, #[source] serde_json::Error),
}

/// The profile `name` from `name/profile.toml`.
pub fn profile(name: &str, files: &Files) -> Result<Profile, LoadError> {
    let path = format!("{name}/profile.toml");
    let mut value = read(&path, files)?;
    for key in ["memory", "disk"] {
        amount::<Bytes>(&mut value, &path, key, |bytes| bytes.0)?;
    }
    amount::<MilliCpu>(&mut value, &path, "cpu", |cpu| u64::from(cpu.0))?;
    serde_json::from_value(value).map_err(|source| LoadError::Shape(path, source))
}

/// Every profile of a folder of profiles.
pub fn profiles(files: &Files) -> Result<Vec<Profile>, LoadError> {
    named(files, "profile.toml")
        .map(|name| profile(name, files))
        .collect()
}

/// The application `name` from `name/app.toml`.
pub fn app(name: &str, files: &Files) -> Result<App, LoadError> {
    let path = format!("{name}/app.toml");
    serde_json::from_value(read(&path, files)?).map_err(|source| LoadError::Shape(path, source))
}

/// Every application of a catalogue.
pub fn apps(files: &Files) -> Result<Vec<App>, LoadError> {
    named(files, "app.toml")
        .map(|name| app(name, files))
        .collect()
}

fn named<'a>(files: &'a Files, file: &'a str) -> impl Iterator<Item = &'a str> {
    files
        .keys()
        .filter_map(move |key| key.strip_suffix(file)?.strip_suffix('/'))
        .filter(|folder| !folder.contains('/'))
}

fn read(path: &str, files: &Files) -> Result<serde_json::Value, LoadError> {
    let text = files
        .get(path)
        .ok_or_else(|| LoadError::Missing(path.to_owned()))?;
    let mut value: serde_json::Value = toml::from_str(text)
        .map_err(|source| LoadError::Syntax(path.to_owned(), Box::new(source)))?;
    inline(&mut value, path, files)?;
    Ok(value)
}

fn inline(value: &mut serde_json::Value, by: &str, files: &Files) -> Result<(), LoadError> {
    use serde_json::Value;
    match value {
        Value::Object(map) if map.len() == 1 && map.get("file").is_some_and(Value::is_string) => {
            let file = map["file"].as_str().unwrap_or_default();
            let folder = by.rsplit_once('/').map_or("", |(folder, _)| folder);
            let text = files
                .get(&format!("{folder}/{file}"))
                .or_else(|| files.get(file))
                .ok_or_else(|| LoadError::MissingFile {
                    by: by.to_owned(),
                    file: file.to_owned(),
                })?;
            *value = Value::String(text.clone());
            Ok(())
        }
        Value::Object(map) => map.values_mut().try_for_each(|v| inline(v, by, files)),
        Value::Array(list) => list.iter_mut().try_for_each(|v| inline(v, by, files)),
        _ => Ok(()),
    }
}

/// Turns an amount written for people (`512 MiB`) into the number that goes over the wire.
fn amount<T: std::str::FromStr>(
    value: &mut serde_json::Value,
    by: &str,
    key: &str,
    number: fn(T) -> u64,
) -> Result<(), LoadError>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    if let Some(field) = value.get_mut(key)
        && let Some(text) = field.as_str()
    {
        let parsed: T = text.parse().map_err(|source| LoadError::Amount {
            by: by.to_owned(),
            key: key.to_owned(),
            source: Box::new(source),
        })?;
        *field = number(parsed).into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    }

    const TINY: &str = r#"
        name = "tiny"
        title = "A test"
        image = "debian12-web"
        memory = "384 MiB"
        vcpus = 1
        cpu = "250m"
        disk = "1 GiB"
        [[services]]
        unit = "nginx.service"
        files = { "/etc/x" = { file = "x.conf" }, "/etc/y" = { file = "common/y.conf" }, "/etc/z" = "z" }
        [runtimes.static]
        title = "Static"
    "#;

    #[test]
    fn a_profile_is_read_with_its_files_in_place() {
        let files = files(&[
            ("tiny/profile.toml", TINY),
            ("tiny/x.conf", "own"),
            ("common/y.conf", "shared"),
        ]);
        let all = profiles(&files).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].memory, Bytes::mib(384));
        assert_eq!(all[0].cpu, MilliCpu(250));
        assert_eq!(all[0].services[0].files["/etc/x"], "own");
        assert_eq!(all[0].services[0].files["/etc/y"], "shared");
        assert_eq!(all[0].services[0].files["/etc/z"], "z");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = profile("tiny", &files(&[("tiny/profile.toml", TINY)])).unwrap_err();
        assert!(
            error.to_string().contains("names the file x.conf"),
            "{error}"
        );
        assert!(profile("none", &files(&[])).is_err());
        let wrong = files(&[("a/profile.toml", "name = 'a'\nmemory = 'lots'")]);
        assert!(
            profile("a", &wrong)
                .unwrap_err()
                .to_string()
                .contains("memory")
        );
    }
}
