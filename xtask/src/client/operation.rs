//! The description's operations as the writer needs them. What the writer could not say in Rust
//! is refused here by name, instead of being left out.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// One operation.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name, which becomes the method's.
    pub name: String,
    /// One line for people.
    pub summary: String,
    /// `GET` and so on.
    pub method: String,
    /// `/v1/sites/{id}`.
    pub path: String,
    /// What the path names: parameter and type.
    pub named: Vec<(String, String)>,
    /// What may follow the question mark.
    pub query: Vec<Asked>,
    /// Headers that the caller gives, as they are written in HTTP.
    pub headers: Vec<String>,
    /// What is sent.
    pub body: Body,
    /// What comes back.
    pub answer: Answer,
}

/// A parameter of a query.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// Its type in Rust.
    pub kind: String,
    /// What it is for.
    pub text: String,
    /// Must it be given?
    pub required: bool,
}

/// What an operation sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// JSON of this type.
    Json(String),
    /// JSON that the description does not look into.
    AnyJson,
    /// Bytes, streamed.
    Bytes,
}

/// What an operation is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Empty,
    /// JSON of this type.
    Json(String),
    /// A page of a list of this type.
    List(String),
    /// Bytes that come as they come.
    Stream,
}

/// Every operation, in the description's order.
pub fn all(document: &Value) -> Result<Vec<Operation>> {
    let paths = document["paths"]
        .as_object()
        .context("the description has no paths")?;
    let mut all = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let read = one(path, method, operation)
                .with_context(|| format!("{} {path}", method.to_uppercase()))?;
            all.push(read);
        }
    }
    Ok(all)
}

fn one(path: &str, method: &str, given: &Value) -> Result<Operation> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut operation = Operation {
        name: text(&given["operationId"]).context("it has no operationId")?,
        summary: text(&given["summary"]).context("it has no summary")?,
        method: method.to_uppercase(),
        path: path.to_owned(),
        named: Vec::new(),
        query: Vec::new(),
        headers: Vec::new(),
        body: body(&given["requestBody"])?,
        answer: answer(&given["responses"])?,
    };
    for parameter in given["parameters"].as_array().into_iter().flatten() {
        let name = text(&parameter["name"]).context("a parameter has no name")?;
        let kind = scalar(path, &name, &parameter["schema"])
            .with_context(|| format!("parameter {name}"))?;
        match parameter["in"].as_str() {
            Some("path") => operation.named.push((name, kind)),
            Some("header") => operation.headers.push(name),
            Some("query") => operation.query.push(Asked {
                name,
                kind,
                text: text(&parameter["description"]).unwrap_or_default(),
                required: parameter["required"] == true,
            }),
            other => bail!("parameter {name} stands in {other:?}, which is not known here"),
        }
    }
    Ok(operation)
}

/// A parameter's type. An id's kind is not in the description; the path or the name says it.
fn scalar(path: &str, name: &str, schema: &Value) -> Result<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return match last(reference) {
            "Id" if name == "id" => {
                let collection = path.split('/').nth(2).unwrap_or_default();
                Ok(format!("{}Id", pascal(collection.trim_end_matches('s'))))
            }
            "Id" => Ok(format!("{}Id", pascal(name))),
            other => Ok(other.to_owned()),
        };
    }
    let kind = schema["type"].as_str().unwrap_or_default();
    let format = schema["format"].as_str().unwrap_or_default();
    let unsigned = schema["minimum"] == 0;
    Ok(match (kind, format) {
        ("string", "uuid") => "Uuid",
        ("string", "") => "String",
        ("boolean", _) => "bool",
        ("integer", "int32") if unsigned => "u32",
        ("integer", "int64") if unsigned => "u64",
        ("integer", "int64") => "i64",
        _ => bail!("its schema {schema} is not known here"),
    }
    .to_owned())
}

fn body(given: &Value) -> Result<Body> {
    let Some(content) = given["content"].as_object() else {
        return Ok(Body::None);
    };
    let (kind, media) = content.iter().next().context("its body has no content")?;
    match (kind.as_str(), media["schema"]["$ref"].as_str()) {
        ("application/octet-stream", _) => Ok(Body::Bytes),
        ("application/json", Some(reference)) => Ok(Body::Json(last(reference).to_owned())),
        ("application/json", None) if media["schema"]["type"] == "object" => Ok(Body::AnyJson),
        _ => bail!("its body {kind} is not known here"),
    }
}

fn answer(given: &Value) -> Result<Answer> {
    let answers = given.as_object().context("it has no answers")?;
    let well: Vec<_> = answers
        .iter()
        .filter(|(status, _)| status.starts_with('2'))
        .collect();
    ensure!(
        well.len() == 1,
        "it has {} good answers instead of one",
        well.len()
    );
    let Some(content) = well[0].1["content"].as_object() else {
        return Ok(Answer::Empty);
    };
    let (kind, media) = content.iter().next().context("its answer has no content")?;
    if kind == "text/event-stream" || kind == "application/octet-stream" {
        return Ok(Answer::Stream);
    }
    let name = media["schema"]["$ref"]
        .as_str()
        .map(last)
        .context("its answer has no name")?;
    Ok(match name.strip_prefix("List_") {
        Some(item) => Answer::List(item.to_owned()),
        None => Answer::Json(name.to_owned()),
    })
}

fn last(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}

/// `list_join_tokens` as a type is named.
pub fn pascal(name: &str) -> String {
    name.split(['_', '-'])
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn described(operation: &Value) -> Value {
        json!({ "paths": { "/v1/sites/{id}/app": { "post": operation } } })
    }

    fn install() -> Value {
        json!({
            "operationId": "install_app", "summary": "Installs.",
            "parameters": [
                { "name": "id", "in": "path", "schema": { "$ref": "#/c/Id" } },
                { "name": "lines", "in": "query",
                  "schema": { "type": "integer", "format": "int32", "minimum": 0 } },
                { "name": "Idempotency-Key", "in": "header", "schema": { "type": "string" } },
            ],
            "requestBody": { "content": { "application/json": { "schema": { "$ref": "#/c/InstallApp" } } } },
            "responses": {
                "202": { "content": { "application/json": { "schema": { "$ref": "#/c/SiteOperation" } } } },
                "default": {},
            },
        })
    }

    #[test]
    fn an_operation_is_read_with_its_parts() {
        let all = all(&described(&install())).unwrap();
        assert_eq!(all[0].named, [("id".to_owned(), "SiteId".to_owned())]);
        assert_eq!(all[0].query[0].kind, "u32");
        assert!(!all[0].query[0].required);
        assert_eq!(all[0].headers, ["Idempotency-Key"]);
        assert_eq!(all[0].body, Body::Json("InstallApp".to_owned()));
        assert_eq!(all[0].answer, Answer::Json("SiteOperation".to_owned()));
    }

    #[test]
    fn what_cannot_be_said_is_refused_with_its_place() {
        let mut strange = install();
        strange["parameters"][1]["in"] = json!("cookie");
        let error = format!("{:#}", all(&described(&strange)).unwrap_err());
        assert!(error.contains("POST /v1/sites/{id}/app"), "{error}");
        let mut strange = install();
        strange["requestBody"] = json!({ "content": { "text/csv": {} } });
        assert!(all(&described(&strange)).is_err());
        let mut strange = install();
        strange["parameters"][1]["schema"] = json!({ "type": "number" });
        assert!(all(&described(&strange)).is_err());
        let mut strange = install();
        strange["responses"]["200"] = json!({});
        assert!(all(&described(&strange)).is_err());
    }
}
