//! Answers as tables for people.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// A column: its heading and where its value is in an item (`a.b` looks inside).
pub type Column = (&'static str, &'static str);

/// Prints a line, as `println!` does; ends quietly when nobody reads any more (`| head`).
macro_rules! say {
    ($($told:tt)*) => { $crate::show::line(format_args!($($told)*)) };
}
pub(crate) use say;

/// What [`say`] does.
pub fn line(told: Arguments<'_>) {
    if let Err(code) = write(&mut stdout().lock(), told) {
        std::process::exit(code);
    }
}

/// Writes a line; the code to end with when that cannot be.
fn write(out: &mut impl Write, told: Arguments<'_>) -> Result<(), i32> {
    writeln!(out, "{told}").map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => 0,
        _ => {
            eprintln!("error: nothing can be printed: {error}");
            1
        }
    })
}

/// Prints items as a table.
pub fn table(items: &[Value], columns: &[Column]) {
    if items.is_empty() {
        say!("none");
        return;
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|(heading, _)| *heading));
    for item in items {
        table.add_row(columns.iter().map(|(_, path)| cell(item, path)));
    }
    say!("{table}");
}

/// Prints one thing as `field  value` lines.
pub fn record(item: &Value) {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    for (name, value) in item.as_object().into_iter().flatten() {
        table.add_row([name.clone(), shown(name, value)]);
    }
    say!("{table}");
}

fn cell(item: &Value, path: &str) -> String {
    let mut value = item;
    for part in path.split('.') {
        value = value.get(part).unwrap_or(&Value::Null);
    }
    shown(path.rsplit('.').next().unwrap_or(path), value)
}

/// Amounts are shown with their units: the API's own numbers are bytes and thousandths of a CPU.
fn shown(name: &str, value: &Value) -> String {
    const BYTES: [&str; 6] = ["memory", "disk", "size", "disk_used", "used", "max_upload"];
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if BYTES.contains(&name) => number.as_u64().map_or_else(
            || number.to_string(),
            |bytes| undine_model::Bytes(bytes).to_string(),
        ),
        Value::Number(number) if name == "cpu" && number.is_u64() => number
            .as_u64()
            .and_then(|amount| u32::try_from(amount).ok())
            .map_or_else(
                || number.to_string(),
                |amount| undine_model::MilliCpu(amount).to_string(),
            ),
        Value::Number(number) if name.ends_with("_at") => {
            number.as_i64().map_or_else(|| number.to_string(), ago)
        }
        Value::Array(items) => items
            .iter()
            .map(|item| shown(name, item))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    }
}

/// A time as people say it.
fn ago(unix_ms: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
    let seconds = (now - unix_ms) / 1000;
    let (amount, unit) = match seconds.abs() {
        0..=119 => (seconds, "s"),
        120..=7199 => (seconds / 60, "min"),
        7200..=172_799 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    if amount < 0 {
        format!("in {} {unit}", -amount)
    } else {
        format!("{amount} {unit} ago")
    }
}
