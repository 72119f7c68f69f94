//! Cutting a dead node's power by its management controller (BMC): programs of the fence-agents
//! project, which take `name=value` lines on their standard input and answer by their exit code
//! (FenceAgentAPI of ClusterLabs). Nothing rests on it: what a dead node had is fenced by epochs
//! before; power that is off is one doubt less.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use undine_model::NodeId;

use crate::refusal::{Refusal, Result};
use crate::secrets::Secrets;

/// An agent ends within this time, or is ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// The exit code of `status` for a machine that is off.
const IS_OFF: i32 = 2;
const MOST_OPTIONS: usize = 20;
const LONGEST_VALUE: usize = 500;

/// How a node's power is cut.
#[derive(Clone, PartialEq, Eq)]
pub struct Switch {
    /// The agent's program.
    pub agent: String,
    /// What it is told: address, user, password.
    pub options: BTreeMap<String, String>,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What the agent is told stays out of logs.
        f.debug_struct("Switch")
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

/// A switch as the store keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    agent: String,
    sealed: String,
}

/// The agent of what the store keeps.
pub fn agent_of(kept: &serde_json::Value) -> Option<String> {
    kept.get("agent")?.as_str().map(str::to_owned)
}

fn purpose(node: NodeId) -> String {
    format!("node/{node}/bmc")
}

impl Switch {
    /// Names and values that an agent can be given.
    pub fn check(&self) -> Result<()> {
        let plain = |text: &str| {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
            !text.is_empty() && text.len() <= 60 && text.chars().all(fits)
        };
        if !self.agent.starts_with("fence_") || !plain(&self.agent) {
            return Err(Refusal::invalid(
                "agent",
                "An agent is a program of Debian's fence-agents, such as fence_ipmilan.",
            ));
        }
        if self.options.len() > MOST_OPTIONS {
            return Err(Refusal::invalid(
                "options",
                format!("An agent takes at most {MOST_OPTIONS} options here."),
            ));
        }
        for (name, value) in &self.options {
            let field = format!("options.{name}");
            if !plain(name) || name == "action" {
                return Err(Refusal::invalid(
                    &field,
                    "An option is named like ip, username or password; what is to be done is not one.",
                ));
            }
            if value.len() > LONGEST_VALUE || value.chars().any(char::is_control) {
                return Err(Refusal::invalid(
                    &field,
                    format!("A value is one line of at most {LONGEST_VALUE} characters."),
                ));
            }
        }
        Ok(())
    }

    /// As the store keeps it.
    pub fn seal(&self, secrets: &Secrets, node: NodeId) -> Result<serde_json::Value> {
        let options =
            serde_json::to_vec(&self.options).map_err(|error| Refusal::internal(&error))?;
        let sealed = secrets.seal(&purpose(node), &options);
        let kept = Kept {
            agent: self.agent.clone(),
            sealed,
        };
        serde_json::to_value(kept).map_err(|error| Refusal::internal(&error))
    }

    /// From what the store keeps.
    pub fn open(secrets: &Secrets, node: NodeId, kept: &serde_json::Value) -> Result<Self> {
        let kept: Kept =
            serde_json::from_value(kept.clone()).map_err(|error| Refusal::internal(&error))?;
        let options = secrets.open(&purpose(node), &kept.sealed);
        let options = options.map_err(|error| Refusal::internal(&error))?;
        Ok(Self {
            agent: kept.agent,
            options: serde_json::from_str(&options).map_err(|error| Refusal::internal(&error))?,
        })
    }

    /// Where its program is.
    pub fn program(&self, folders: &[PathBuf]) -> Option<PathBuf> {
        let mut programs = folders.iter().map(|folder| folder.join(&self.agent));
        programs.find(|program| program.is_file())
    }

    /// Cuts the power; that it is off already is success. The error says why not, in the agent's
    /// words and without what it was told in confidence.
    pub async fn cut(&self, program: &Path) -> Result<(), String> {
        let off = self.ask(program, "off").await?;
        if off.status.success() {
            return Ok(());
        }
        let status = self.ask(program, "status").await?;
        if status.status.code() == Some(IS_OFF) {
            return Ok(());
        }
        Err(self.words(&off))
    }

    async fn ask(&self, program: &Path, action: &str) -> Result<Output, String> {
        let cannot = |error: std::io::Error| format!("{} cannot be run: {error}", self.agent);
        let mut child = Command::new(program)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(cannot)?;
        let mut told = format!("action={action}\n");
        for (name, value) in &self.options {
            told.push_str(&format!("{name}={value}\n"));
        }
        if let Some(mut input) = child.stdin.take() {
            // One that ends without reading says so by its exit code.
            let _ = input.write_all(told.as_bytes()).await;
        }
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let late = |_| format!("{} did not end within {PATIENCE:?}", self.agent);
        ended.map_err(late)?.map_err(cannot)
    }

    fn words(&self, output: &Output) -> String {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        let mut words: String = last
            .unwrap_or("it said nothing")
            .chars()
            .take(300)
            .collect();
        for (name, value) in &self.options {
            if name.contains("pass") && !value.is_empty() {
                words = words.replace(value, "•••");
            }
        }
        format!("{} failed: {words}", self.agent)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn switch(options: &[(&str, &str)]) -> Switch {
        let pairs = options.iter();
        Switch {
            agent: "fence_test".to_owned(),
            options: pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    /// An agent that notes what it was told and answers so to `off` and to `status`.
    fn agent(folder: &Path, off: i32, status: i32) -> PathBuf {
        let program = folder.join("fence_test");
        let script = format!(
            "#!/bin/sh\ncat >{0}/told\nif grep -q action=off {0}/told; then echo \"no, hunter2\" >&2; exit {off}; fi\nexit {status}\n",
            folder.display()
        );
        std::fs::write(&program, script).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        program
    }

    #[tokio::test]
    async fn power_that_is_cut_or_was_off_is_success_and_anything_else_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let switch = switch(&[("ip", "192.0.2.9"), ("password", "hunter2")]);
        let program = agent(folder.path(), 0, 0);
        assert_eq!(switch.cut(&program).await, Ok(()));
        let told = std::fs::read_to_string(folder.path().join("told")).unwrap();
        assert_eq!(told, "action=off\nip=192.0.2.9\npassword=hunter2\n");
        let program = agent(folder.path(), 1, 2);
        assert_eq!(switch.cut(&program).await, Ok(()), "it was off already");
        let program = agent(folder.path(), 1, 0);
        let why = switch.cut(&program).await.unwrap_err();
        assert_eq!(why, "fence_test failed: no, •••");
    }

    #[test]
    fn names_and_values_that_an_agent_cannot_be_given_are_refused_by_field() {
        let field = |switch: Switch| switch.check().unwrap_err().0.field.unwrap();
        assert!(switch(&[("ip", "192.0.2.9")]).check().is_ok());
        for agent in ["sh", "fence_../x", "fence_a b", ""] {
            let other = Switch {
                agent: agent.to_owned(),
                ..switch(&[])
            };
            assert_eq!(field(other), "agent");
        }
        assert_eq!(field(switch(&[("action", "on")])), "options.action");
        assert_eq!(field(switch(&[("ip", "a\naction=on")])), "options.ip");
    }

    #[test]
    fn what_is_kept_opens_for_its_own_node_only() {
        let (secrets, node) = (Secrets::generate(), NodeId::from_parts(1, [0; 10]));
        let switch = switch(&[("password", "hunter2")]);
        let kept = switch.seal(&secrets, node).unwrap();
        assert!(!kept.to_string().contains("hunter2"));
        assert_eq!(agent_of(&kept).as_deref(), Some("fence_test"));
        assert_eq!(Switch::open(&secrets, node, &kept).unwrap(), switch);
        let other = NodeId::from_parts(2, [0; 10]);
        assert!(Switch::open(&secrets, other, &kept).is_err());
    }
}
