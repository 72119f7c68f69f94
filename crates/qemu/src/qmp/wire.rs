//! QMP's lines: what we send and what may arrive.

use serde::Deserialize;
use serde_json::{Value, json};

/// Something QEMU tells without being asked.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Event {
    /// Its name, for example `STOP` or `BLOCK_IO_ERROR`.
    #[serde(rename = "event")]
    pub name: String,
    /// Its details; null when it has none.
    #[serde(default)]
    pub data: Value,
    /// When it happened, by the machine's clock. QEMU holds back events that come often: one may
    /// be told up to a second later.
    #[serde(default)]
    pub timestamp: Timestamp,
}

/// A time of the machine's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Timestamp {
    seconds: i64,
    microseconds: i64,
}

impl Timestamp {
    /// Microseconds since 1970.
    pub const fn unix_us(self) -> i64 {
        self.seconds * 1_000_000 + self.microseconds
    }
}

/// The version that a monitor greets with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// The three numbers.
    pub qemu: Triple,
    /// The packager's own suffix.
    #[serde(default)]
    pub package: String,
}

/// major.minor.micro.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Triple {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

#[derive(Deserialize)]
pub(super) struct Greeting {
    #[serde(rename = "QMP")]
    pub qmp: GreetingBody,
}

#[derive(Deserialize)]
pub(super) struct GreetingBody {
    pub version: Version,
    #[serde(default)]
    pub capabilities: Vec<String>,
}

pub(super) enum Line {
    Event(Event),
    Return {
        id: Option<u64>,
        value: Value,
    },
    Error {
        id: Option<u64>,
        class: String,
        desc: String,
    },
}

#[derive(Deserialize)]
struct Raw {
    id: Option<u64>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    timestamp: Timestamp,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<RawError>,
}

#[derive(Deserialize)]
struct RawError {
    class: String,
    desc: String,
}

pub(super) fn parse(line: &str) -> Result<Line, serde_json::Error> {
    let raw: Raw = serde_json::from_str(line)?;
    let Raw {
        id,
        event,
        data,
        timestamp,
        value,
        error,
    } = raw;
    Ok(match (event, error) {
        (Some(name), _) => Line::Event(Event {
            name,
            data,
            timestamp,
        }),
        (None, Some(RawError { class, desc })) => Line::Error { id, class, desc },
        (None, None) => Line::Return {
            id,
            value: value.unwrap_or(Value::Null),
        },
    })
}

/// In its turn (`execute`), or past everything that waits (`exec-oob`).
pub(super) fn command(verb: &str, id: u64, name: &str, arguments: &Value) -> String {
    let mut line = json!({ verb: name, "arguments": arguments, "id": id }).to_string();
    line.push('\n');
    line
}
