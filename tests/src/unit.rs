//! A systemd unit, as far as the tests play systemd.

use std::collections::BTreeMap;

/// What a service unit says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// The words of its command line, variables filled in.
    pub words: Vec<String>,
    /// Its own environment.
    pub environment: BTreeMap<String, String>,
    /// Its user; none is root.
    pub user: Option<String>,
    /// Capabilities that it keeps without being root, such as `CAP_NET_BIND_SERVICE`.
    pub capabilities: Vec<String>,
    /// It tells when it is ready.
    pub notifies: bool,
    /// Never more than it has at first.
    pub no_new_privileges: bool,
    /// What must be there.
    pub needs: Vec<String>,
}

impl Unit {
    /// Reads a unit's text.
    pub fn parse(text: &str) -> Self {
        let mut unit = Self::default();
        let mut line_of_command = "";
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            match key {
                "ExecStart" => line_of_command = value,
                "Environment" => {
                    if let Some((name, value)) = value.trim_matches('"').split_once('=') {
                        unit.environment.insert(name.to_owned(), value.to_owned());
                    }
                }
                "User" => unit.user = Some(value.to_owned()),
                "AmbientCapabilities" => {
                    unit.capabilities
                        .extend(value.split_whitespace().map(str::to_owned));
                }
                "Type" => unit.notifies = value == "notify",
                "NoNewPrivileges" => unit.no_new_privileges = value == "yes",
                "ConditionPathExists" => unit.needs.push(value.to_owned()),
                _ => {}
            }
        }
        unit.words = fill(line_of_command, &unit.environment);
        unit
    }

    /// The words that give up what the unit's service does not have.
    pub fn privileges(&self) -> Vec<String> {
        let mut words = vec!["setpriv".to_owned()];
        if let Some(user) = &self.user {
            let ids = ["--reuid", user, "--regid", user, "--init-groups"];
            words.extend(ids.map(str::to_owned));
            let kept: String = self
                .capabilities
                .iter()
                .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()))
                .collect();
            words.push(format!("--inh-caps=-all{kept}"));
            words.push(format!("--ambient-caps=-all{kept}"));
        }
        if self.no_new_privileges {
            words.push("--no-new-privs".to_owned());
        }
        words.push("--".to_owned());
        words
    }
}

/// `${NAME}` stays one word, a bare `$NAME` becomes as many words as it has.
fn fill(line: &str, environment: &BTreeMap<String, String>) -> Vec<String> {
    let value = |name: &str| environment.get(name).map_or("", String::as_str);
    let mut words = Vec::new();
    for word in line.split_whitespace() {
        if let Some(name) = word.strip_prefix("${").and_then(|it| it.strip_suffix('}')) {
            words.push(value(name).to_owned());
        } else if let Some(name) = word.strip_prefix('$') {
            words.extend(value(name).split_whitespace().map(str::to_owned));
        } else {
            words.push(word.to_owned());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_s_command_line_is_filled_in_as_systemd_does() {
        let unit = Unit::parse(
            "[Service]\nType=notify\nEnvironment=STATE_DIR=/a\nEnvironment=\"LISTEN=--x 1 --y 2\"\n\
             ExecStart=/usr/bin/x run --state-dir ${STATE_DIR} $LISTEN $EXTRA\nUser=undine\n",
        );
        let expected = "/usr/bin/x run --state-dir /a --x 1 --y 2";
        assert_eq!(unit.words.join(" "), expected);
        assert_eq!(unit.user.as_deref(), Some("undine"));
        assert!(unit.notifies);
    }
}
