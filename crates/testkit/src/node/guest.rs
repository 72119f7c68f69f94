//! The agent inside a fake server.

use std::collections::{BTreeMap, BTreeSet};

use undine_api::guest::{
    Answer, Applied, Ask, Failure, FailureKind, Health, LogPiece, SiteFailure,
};
use undine_manifest::{DatabaseSpec, SiteSpec};
use undine_model::{DatabaseId, ReleaseId, SiteId};

use super::files::FakeFiles;

/// What it runs.
#[derive(Default)]
pub struct FakeGuest {
    /// The manifest's version.
    pub version: u64,
    /// Sites.
    pub sites: BTreeMap<SiteId, SiteSpec>,
    /// Databases.
    pub databases: BTreeMap<DatabaseId, DatabaseSpec>,
    /// Releases that were taken: their bytes' count.
    pub releases: BTreeMap<ReleaseId, u64>,
    /// Applications that were installed, with the answers.
    pub installed: Vec<(SiteId, String, BTreeMap<String, String>)>,
    /// Which release each site shows.
    pub live: BTreeMap<SiteId, ReleaseId>,
    /// Whole manifests that it was sent.
    pub wholes: u32,
    /// The sites whose programs were ended, one entry each time.
    pub restarted: Vec<SiteId>,
    /// The sites' files.
    pub files: BTreeMap<SiteId, FakeFiles>,
    /// What the sites' logs say.
    pub log: Vec<String>,
}

impl FakeGuest {
    /// Answers as the real agent must.
    pub fn ask(&mut self, ask: Ask, bad: &BTreeMap<String, String>) -> Result<Answer, Failure> {
        match ask {
            Ask::Apply(manifest) => {
                self.wholes += 1;
                self.version = manifest.version;
                let wanted: BTreeSet<_> = manifest.sites.iter().map(|site| site.id).collect();
                self.sites.retain(|id, _| wanted.contains(id));
                self.databases = manifest
                    .databases
                    .into_iter()
                    .map(|it| (it.id, it))
                    .collect();
                Ok(self.applied(manifest.sites, bad))
            }
            Ask::ApplyDelta(delta) => {
                if delta.from != self.version {
                    return Err(Failure {
                        kind: FailureKind::NeedsWhole,
                        message: format!("runs {}, not {}", self.version, delta.from),
                    });
                }
                self.version = delta.to;
                for id in delta.removed_sites {
                    self.sites.remove(&id);
                    self.live.remove(&id);
                }
                for id in delta.removed_databases {
                    self.databases.remove(&id);
                }
                self.databases
                    .extend(delta.databases.into_iter().map(|it| (it.id, it)));
                Ok(self.applied(delta.sites, bad))
            }
            Ask::Health => Ok(Answer::Health(Health {
                data_mounted: true,
                manifest_version: self.version,
                answers: true,
                trouble: Vec::new(),
            })),
            Ask::Activate(wish) if self.releases.contains_key(&wish.release) => {
                self.live.insert(wish.site, wish.release);
                Ok(Answer::Done)
            }
            Ask::Activate(wish) => Err(Failure {
                kind: FailureKind::NotFound,
                message: format!("release {} was never taken", wish.release),
            }),
            Ask::Install(wish) => {
                self.releases.insert(wish.release, 0);
                self.live.insert(wish.site, wish.release);
                self.installed
                    .push((wish.site, wish.app.name.to_string(), wish.answers));
                Ok(Answer::Done)
            }
            Ask::Restart { site } if self.sites.contains_key(&site) => {
                self.restarted.push(site);
                Ok(Answer::Done)
            }
            Ask::Blank(wish) => {
                self.releases.entry(wish.release).or_default();
                Ok(Answer::Done)
            }
            Ask::Files(ask) => {
                let live = self.live.contains_key(&ask.site);
                self.files.entry(ask.site).or_default().ask(ask.task, live)
            }
            Ask::Follow(ask) => {
                let after = ask.after.and_then(|mark| mark.parse().ok()).unwrap_or(0);
                let lines = self.log.iter().skip(after);
                Ok(Answer::Followed(LogPiece {
                    lines: lines.filter(|it| it.contains(&ask.find)).cloned().collect(),
                    mark: self.log.len().to_string(),
                    skipped: false,
                }))
            }
            Ask::Logs(_) => Ok(Answer::Logs(vec!["a line".to_owned()])),
            _ => Err(Failure {
                kind: FailureKind::Invalid,
                message: "not asked by control".to_owned(),
            }),
        }
    }

    /// Applies each site that can be applied.
    pub fn applied(&mut self, sites: Vec<SiteSpec>, bad: &BTreeMap<String, String>) -> Answer {
        let mut failed = Vec::new();
        for site in sites {
            match bad.get(site.domain.as_str()) {
                Some(error) => failed.push(SiteFailure {
                    site: site.id,
                    error: error.clone(),
                }),
                None => {
                    self.sites.insert(site.id, site);
                }
            }
        }
        Answer::Applied(Applied {
            version: self.version,
            failed,
        })
    }
}
