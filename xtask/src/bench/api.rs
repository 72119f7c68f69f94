//! Control's public API as a bench uses it: plain HTTP, the provider's token, JSON.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::wire::{self, Request};
use crate::up;

/// How long control may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often an operation is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The most items that a page has.
const PAGE: usize = 200;

/// One instance of control, as the bearer of a token.
#[derive(Debug, Clone)]
pub struct Api {
    address: SocketAddr,
    token: String,
}

impl Api {
    /// The instance at this URL.
    pub fn at(url: &str, token: &str) -> Result<Self> {
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        Ok(Self {
            address: address
                .parse()
                .with_context(|| format!("{url} is no address of a control instance"))?,
            token: token.to_owned(),
        })
    }

    /// Does it answer for itself?
    pub fn is_up(&self) -> bool {
        wire::get(
            self.address,
            "localhost",
            "/healthz",
            Duration::from_secs(5),
        )
        .is_ok_and(|answer| answer.status == 200)
    }

    /// Looks at something.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.send("GET", path, &[], &[])
    }

    /// Makes something, once.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.upload(path, "application/json", body.to_string().as_bytes())
    }

    /// Asks something of a thing that is there, once, whatever its version.
    pub fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        let key = up::secret()?;
        let headers = [
            ("If-Match", "*"),
            ("Idempotency-Key", key.as_str()),
            ("Content-Type", "application/json"),
        ];
        self.send("POST", path, &headers, body.to_string().as_bytes())
    }

    /// Sends bytes, once.
    pub fn upload(&self, path: &str, kind: &str, bytes: &[u8]) -> Result<Value> {
        let key = up::secret()?;
        let headers = [("Idempotency-Key", key.as_str()), ("Content-Type", kind)];
        self.send("POST", path, &headers, bytes)
    }

    /// Changes something, whatever its version.
    pub fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        let headers = [("If-Match", "*"), ("Content-Type", "application/json")];
        self.send("PATCH", path, &headers, body.to_string().as_bytes())
    }

    /// Removes something, whatever its version.
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.send("DELETE", path, &[("If-Match", "*")], &[])
    }

    /// Every item of a list, page after page.
    pub fn all(&self, path: &str) -> Result<Vec<Value>> {
        let join = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut page = self.get(&format!("{path}{join}limit={PAGE}{cursor}"))?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            match page.get("next").and_then(Value::as_str) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// The item of a list that has this text in this field.
    pub fn find(&self, path: &str, field: &str, value: &str) -> Result<Option<Value>> {
        let items = self.all(path)?;
        Ok(items.into_iter().find(|item| text(item, field) == value))
    }

    /// Waits until the operation of an answer has ended well; the operation as it ended.
    pub fn wait(&self, answer: &Value, patience: Duration) -> Result<Value> {
        let id = operation_id(answer);
        if id.is_empty() {
            bail!("control named no operation: {answer}");
        }
        let deadline = Instant::now() + patience;
        loop {
            let operation = self.get(&format!("/v1/operations/{id}"))?;
            match text(&operation, "state") {
                "succeeded" => return Ok(operation),
                "failed" => bail!(
                    "{} failed: {}",
                    text(&operation, "kind"),
                    text(&operation["error"], "detail")
                ),
                _ if Instant::now() > deadline => bail!(
                    "{} is not done after {} s: {}",
                    text(&operation, "kind"),
                    patience.as_secs(),
                    text(&operation, "progress")
                ),
                _ => thread::sleep(LOOK),
            }
        }
    }

    /// Asks for something and waits until it is done.
    pub fn act(&self, path: &str, patience: Duration) -> Result<Value> {
        let answer = self.ask(path, &serde_json::json!({}))?;
        self.wait(&answer, patience)
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Value> {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        let request = Request {
            method,
            host: "localhost",
            path,
            headers: &all,
            body,
        };
        let answer = wire::ask(self.address, &request, PATIENCE)
            .with_context(|| format!("{method} {path}"))?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.status >= 300 {
            bail!(
                "{method} {path}: status {}, {}",
                answer.status,
                text(&value, "detail")
            );
        }
        Ok(value)
    }
}

/// The operation that an answer tells of.
pub fn operation_id(answer: &Value) -> &str {
    text(answer.get("operation").unwrap_or(answer), "id")
}

/// A text field; empty when there is none.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

/// A whole number; 0 when there is none.
pub fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_operation_is_found_alone_and_beside_its_subject() {
        assert_eq!(operation_id(&json!({"id": "a"})), "a");
        assert_eq!(
            operation_id(&json!({"site": {"id": "s"}, "operation": {"id": "b"}})),
            "b"
        );
        assert_eq!(operation_id(&json!({})), "");
    }

    #[test]
    fn an_instance_is_named_by_its_url() {
        assert!(Api::at("http://127.0.0.1:7101", "t").is_ok());
        assert!(Api::at("http://somewhere", "t").is_err());
    }
}
