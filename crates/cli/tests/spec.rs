//! Every path that the command line calls is a path of the published API.

use std::collections::BTreeSet;
use std::path::Path;

/// A path with its parameters' names left out: `/v1/sites/{}/releases`.
fn shape(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    path.split('/')
        .map(|part| if part.starts_with('{') { "{}" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

fn published() -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi/v1.json");
    let text = std::fs::read_to_string(file).expect("the API is published");
    let spec: serde_json::Value = serde_json::from_str(&text).expect("as JSON");
    let paths = spec["paths"].as_object().expect("with paths");
    paths.keys().map(|path| shape(path)).collect()
}

/// The texts in the commands' sources that begin a path, and what is hung on a site's path.
fn called() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands");
    let mut paths = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("commands") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a command");
        for rest in text.split("\"/").skip(1) {
            let literal = rest.split('"').next().unwrap_or_default();
            match literal.strip_prefix("v1/") {
                Some(rest) => paths.insert(shape(&format!("/v1/{rest}"))),
                None if path.ends_with("site.rs") => {
                    paths.insert(shape(&format!("/v1/sites/{{}}/{literal}")))
                }
                None => false,
            };
        }
    }
    // What the caller names: `/v1/{collection}{filter}` and `/v1/servers/{id}/{verb}`.
    paths.retain(|path| path != "/v1/{}" && !path.ends_with("/{}/{}"));
    for (things, verbs) in [
        ("servers", ["start", "stop", "restart"].as_slice()),
        ("accounts", &["suspend", "unsuspend"]),
    ] {
        paths.extend(verbs.iter().map(|verb| format!("/v1/{things}/{{}}/{verb}")));
    }
    paths
}

#[test]
fn every_path_that_is_called_is_published() {
    let (published, called) = (published(), called());
    assert!(called.len() > 30, "the commands are found: {called:?}");
    let unknown: Vec<_> = called.difference(&published).collect();
    assert!(unknown.is_empty(), "not published: {unknown:?}");
}
