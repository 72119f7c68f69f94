//! Six servers with replicated disks, one site each: two static, two PHP, two WordPress. Made when
//! they are not there, found again when they are.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::writes::{PAGE, PROGRAM, WordPress};
use crate::bench::api::{Api, number, text};
use crate::bench::cluster::Cluster;
use crate::bench::{ground, hash, tar};
use crate::up;

const ACCOUNT: &str = "trial";
const USER: &str = "admin";
const TITLE: &str = "The trial gazette";
const STATIC_PAGE: &str = "A page that stays as it is";
const DISK: u64 = 512 << 20;
/// Replicas of each disk.
const REPLICAS: u64 = 2;
/// Copies of all servers are whole again within this.
const RESYNC: Duration = Duration::from_secs(600);

/// What a server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Files.
    Static,
    /// A PHP program with sessions.
    Php,
    /// WordPress with MariaDB.
    WordPress,
}

const FLEET: [(&str, Content); 6] = [
    ("trial-static-1", Content::Static),
    ("trial-static-2", Content::Static),
    ("trial-php-1", Content::Php),
    ("trial-php-2", Content::Php),
    ("trial-wp-1", Content::WordPress),
    ("trial-wp-2", Content::WordPress),
];

impl Content {
    const fn profile(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Php | Self::WordPress => "web-php",
        }
    }

    const fn runtime(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Php | Self::WordPress => "php",
        }
    }

    /// What its page says.
    pub const fn expect(self) -> &'static str {
        match self {
            Self::Static => STATIC_PAGE,
            Self::Php => PAGE,
            Self::WordPress => TITLE,
        }
    }
}

/// One server with its site.
#[derive(Debug, Clone)]
pub struct Member {
    /// The server's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it serves.
    pub content: Content,
    /// The site's name.
    pub host: String,
}

/// The servers.
pub struct Fleet {
    /// All of them.
    pub members: Vec<Member>,
    /// How to write into the WordPress sites.
    pub wordpress: WordPress,
}

impl Fleet {
    /// Makes what is not there yet.
    pub fn ensure(cluster: &Cluster) -> Result<Self> {
        let api = cluster.api();
        // A site of the standard plan may fill more than these small disks.
        ground::plan(api, ACCOUNT, 256, 300)?;
        ground::account_on(api, ACCOUNT, ACCOUNT)?;
        let wordpress = WordPress {
            user: USER.to_owned(),
            password: password()?,
        };
        let known = api.all("/v1/servers")?;
        let mut members = Vec::new();
        for (name, content) in FLEET {
            let id = match known.iter().find(|it| text(it, "name") == name) {
                Some(server) => text(server, "id").to_owned(),
                None => ground::server(
                    api,
                    name,
                    content.profile(),
                    &json!({ "disk": DISK, "replicas": REPLICAS }),
                )?,
            };
            let host = format!("{name}.{}", cluster.domain);
            members.push(Member {
                id,
                name: name.to_owned(),
                content,
                host,
            });
        }
        let fleet = Self { members, wordpress };
        for member in &fleet.members {
            fleet.site(cluster, member)?;
        }
        Ok(fleet)
    }

    fn site(&self, cluster: &Cluster, member: &Member) -> Result<()> {
        let api = cluster.api();
        let found = api.find("/v1/sites", "domain", &member.host)?;
        let site = match &found {
            Some(site) => text(site, "id").to_owned(),
            None => {
                println!("site {}", member.host);
                let wish = json!({
                    "domain": member.host, "account": ACCOUNT, "server": member.id,
                    "runtime": member.content.runtime(),
                });
                let made = api.post("/v1/sites", &wish)?;
                api.wait(&made, ground::BOOT)?;
                text(&made["site"], "id").to_owned()
            }
        };
        let is_empty = found.is_none_or(|it| text(&it, "current_release").is_empty());
        if is_empty {
            self.fill(api, member, &site)
                .with_context(|| format!("the content of {}", member.host))?;
        }
        cluster
            .first_answer(&member.host, member.content.expect(), Instant::now())
            .map(drop)
    }

    fn fill(&self, api: &Api, member: &Member, site: &str) -> Result<()> {
        let made = match member.content {
            Content::Static => release(api, site, "index.html", STATIC_PAGE.as_bytes())?,
            Content::Php => release(api, site, "index.php", PROGRAM.as_bytes())?,
            Content::WordPress => {
                println!("WordPress and its database for {}", member.host);
                let answers = json!({
                    "title": TITLE, "user": USER, "password": self.wordpress.password,
                    "email": "admin@example.com",
                });
                let wish = json!({ "app": "wordpress", "answers": answers });
                api.ask(&format!("/v1/sites/{site}/app"), &wish)?
            }
        };
        api.wait(&made, ground::BOOT).map(drop)
    }

    /// How its servers stand now, by member.
    pub fn standing(&self, api: &Api) -> Result<Vec<Value>> {
        let all = api.all("/v1/servers")?;
        self.members
            .iter()
            .map(|member| {
                let found = all.iter().find(|it| text(it, "id") == member.id);
                found
                    .cloned()
                    .with_context(|| format!("{} is gone", member.name))
            })
            .collect()
    }

    /// Waits until every server runs with all of its copies in sync, and every node is ready; how
    /// long that took.
    pub fn settle(&self, cluster: &Cluster) -> Result<f64> {
        let begun = Instant::now();
        loop {
            let missing = match self.missing(cluster.api()) {
                Ok(None) => return Ok(begun.elapsed().as_secs_f64()),
                Ok(Some(missing)) => missing,
                Err(error) => format!("{error:#}"),
            };
            if begun.elapsed() > RESYNC {
                bail!("not whole again after {} s: {missing}", RESYNC.as_secs());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn missing(&self, api: &Api) -> Result<Option<String>> {
        for node in api.all("/v1/nodes")? {
            if text(&node, "state") != "ready" {
                let (name, state) = (text(&node, "name"), text(&node, "state"));
                return Ok(Some(format!("{name} is {state}")));
            }
        }
        let standing = self.standing(api)?;
        Ok(standing.iter().find_map(lacks))
    }
}

/// What a server lacks before it is whole.
fn lacks(server: &Value) -> Option<String> {
    let name = text(server, "name");
    if text(server, "state") != "running" {
        return Some(format!("{name} is {}", text(server, "state")));
    }
    let copies = server["replicas"].as_array().into_iter().flatten();
    let good = copies.filter(|it| text(it, "state") == "in_sync").count() as u64;
    let wanted = number(server, "replicas_wanted");
    (good < wanted).then(|| format!("{name} has {good} of {wanted} copies in sync"))
}

fn release(api: &Api, site: &str, name: &str, content: &[u8]) -> Result<Value> {
    let archive = tar::archive(&[(name, content)]);
    let sum = hash(&archive);
    let path = format!("/v1/sites/{site}/releases?format=tar&sha256={sum}&activate=true");
    api.upload(&path, "application/octet-stream", &archive)
}

/// The administrator's password of the WordPress sites, kept for the next trial on this cluster.
fn password() -> Result<String> {
    let file = up::layout::state("trial-password");
    if let Ok(known) = std::fs::read_to_string(&file) {
        return Ok(known);
    }
    let fresh = up::secret()?;
    up::write_private(&file, &fresh)?;
    ensure!(file.exists(), "{} was not written", file.display());
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_whole_when_it_runs_with_all_of_its_copies() {
        let copy = |state: &str| json!({ "state": state });
        let server = |state: &str, copies: Value| json!({ "name": "a", "state": state, "replicas_wanted": 2, "replicas": copies });
        let whole = json!([copy("in_sync"), copy("in_sync")]);
        assert_eq!(lacks(&server("running", whole.clone())), None);
        assert!(
            lacks(&server("starting", whole))
                .unwrap()
                .contains("starting")
        );
        let half = json!([copy("in_sync"), copy("syncing")]);
        assert!(lacks(&server("running", half)).unwrap().contains("1 of 2"));
    }
}
