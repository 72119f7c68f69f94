//! The agreed description of the API is what this program serves.

use std::path::Path;

#[test]
fn openapi_is_as_it_was_agreed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi/v1.json");
    let document = undine_control::api::document();
    let fresh = document.to_pretty_json().unwrap() + "\n";
    assert!(fresh.contains("\"openapi\": \"3.1.0\""));
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &fresh).unwrap();
    }
    let agreed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        agreed == fresh,
        "openapi/v1.json is stale: run the test with UPDATE_OPENAPI=1 and look at the difference"
    );
}

#[test]
fn every_operation_has_its_own_name_a_summary_and_a_tag() {
    let document = serde_json::to_value(undine_control::api::document()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let name = operation["operationId"].as_str().unwrap().to_owned();
            assert!(
                operation["summary"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{name}"
            );
            assert!(operation["tags"][0].is_string(), "{name}");
            assert!(names.insert(name.clone()), "{name} twice");
        }
    }
    assert!(names.len() > 50);
}
