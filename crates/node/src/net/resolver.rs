//! The servers' name service: one unbound on the router's address, supervised.
//!
//! It is adopted when the agent restarts with the same configuration, so that servers notice
//! nothing, and started again whenever it ends.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ipnet::IpNet;
use tokio::process::Command;
use undine_qemu::process::ProcessId;

use crate::files;

/// What the resolver is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where it listens.
    pub listen: Vec<IpAddr>,
    /// Who may ask.
    pub clients: Vec<IpNet>,
    /// Whom it asks; none means the root servers of the Internet.
    pub upstream: Vec<IpAddr>,
    /// The user that it runs as; none leaves it as it is.
    pub user: Option<String>,
}

impl Settings {
    /// unbound's configuration.
    pub fn render(&self, folder: &Path) -> String {
        let mut out = String::from("server:\n");
        for ip in &self.listen {
            let _ = writeln!(out, "  interface: {ip}");
        }
        for net in &self.clients {
            let _ = writeln!(out, "  access-control: {net} allow");
        }
        let user = self.user.as_deref().unwrap_or_default();
        let _ = write!(
            out,
            "  access-control: 0.0.0.0/0 refuse\n  access-control: ::/0 refuse\n\
             \x20 ip-freebind: yes\n  do-daemonize: no\n  use-syslog: no\n  logfile: \"\"\n\
             \x20 chroot: \"\"\n  username: \"{user}\"\n  directory: \"{0}\"\n  pidfile: \"{0}/unbound.pid\"\n\
             \x20 num-threads: 1\n  msg-cache-size: 2m\n  rrset-cache-size: 4m\n\
             \x20 module-config: \"iterator\"\n  do-not-query-localhost: no\n\
             \x20 hide-identity: yes\n  hide-version: yes\n  harden-glue: yes\n  qname-minimisation: yes\n\
             remote-control:\n  control-enable: no\n",
            folder.display()
        );
        if !self.upstream.is_empty() {
            out.push_str("forward-zone:\n  name: \".\"\n");
            for ip in &self.upstream {
                let _ = writeln!(out, "  forward-addr: {ip}");
            }
        }
        out
    }
}

/// The name servers of a `resolv.conf`, without those that we ourselves are.
pub fn upstream(resolv_conf: &str, own: &[IpAddr]) -> Vec<IpAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .filter(|ip| !own.contains(ip))
        .collect()
}

/// Runs the resolver for ever, in a task of its own.
///
/// # Errors
/// Its configuration cannot be written.
pub fn supervise(folder: &Path, settings: &Settings) -> Result<(), files::FileError> {
    files::make_folder(folder)?;
    let path = folder.join("unbound.conf");
    let wanted = settings.render(folder);
    let unchanged = std::fs::read_to_string(&path).is_ok_and(|found| found == wanted);
    let running = ProcessId::find("-c", &path).ok().flatten();
    files::write(&path, wanted.as_bytes())?;
    tokio::spawn(async move {
        if let Some(running) = running {
            if !unchanged {
                let _ = running.kill();
            }
            let _ = running.gone().await;
        }
        loop {
            let reason = run(&path).await;
            tracing::warn!(reason, "the resolver ended; it is started again in 2 s");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    });
    Ok(())
}

async fn run(config: &Path) -> String {
    let log = config.with_extension("log");
    // A file, not a pipe: the resolver goes on writing when the agent is gone.
    let stderr = std::fs::File::create(&log).map_or_else(|_| Stdio::null(), Stdio::from);
    let child = Command::new("unbound")
        .arg("-d")
        .arg("-p")
        .arg("-c")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        // Like the servers, it outlives the agent.
        .process_group(0)
        .spawn();
    match child {
        Err(error) => format!("unbound cannot be run: {error}; install Debian's package unbound"),
        Ok(mut child) => match child.wait().await {
            Ok(status) => {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                format!("{status}: {}", text.lines().last().unwrap_or_default())
            }
            Err(error) => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_resolver() {
        let settings = Settings {
            listen: vec![
                "10.214.0.1".parse().unwrap(),
                "fd5e:d1e0:214::1".parse().unwrap(),
            ],
            clients: vec![
                "10.214.0.0/16".parse().unwrap(),
                "fd5e:d1e0:214::/64".parse().unwrap(),
            ],
            upstream: vec!["192.0.2.53".parse().unwrap()],
            user: Some("unbound".into()),
        };
        insta::assert_snapshot!(settings.render(Path::new("/run/undine/n/resolver")));
    }

    #[test]
    fn the_host_s_own_name_servers_are_asked_but_never_ourselves() {
        let text = "# c\nsearch x\nnameserver 192.0.2.1\nnameserver 10.214.0.1 # us\nnameserver oops\nnameserver ::1\n";
        let own = ["10.214.0.1".parse().unwrap()];
        let wanted: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(upstream(text, &own), wanted);
    }
}
