//! The agent's state and what each request does with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use undine_api::guest::{
    Answer, Applied as AppliedAnswer, Ask, AttachData, Failure, FailureKind, HelloAnswer, Identity,
};
use undine_manifest::render::{Facts, Renderer};
use undine_manifest::{FORMAT, Manifest, ManifestDelta, SiteSpec, validate};
use undine_model::{ServerId, SiteId};

use crate::apply::{Change, Place, apply};
use crate::fail::{Doing, Outcome, failure};
use crate::journal::{Applied, Journal};
use crate::paths::Paths;
use crate::release::Releases;
use crate::{
    disk, files, health, identity, install, logs, rehearsal, site, site_files, stop, usage,
};

/// What outlives the agent, but not the server: kept in `/run`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Session {
    server: Option<ServerId>,
    facts: Facts,
    /// A manifest has been applied since the server started.
    applied: bool,
}

/// The agent.
pub struct Agent {
    paths: Paths,
    session: Session,
    device: Option<PathBuf>,
    journal: Option<Journal>,
    applied: Option<Applied>,
}

impl Agent {
    /// An agent that goes on where one before it in the same server left off.
    pub fn resume(paths: Paths) -> Self {
        let mut agent = Self {
            session: fs::read(paths.run.join("session.json"))
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok())
                .unwrap_or_default(),
            paths,
            device: None,
            journal: None,
            applied: None,
        };
        if crate::paths::is_mounted(&agent.paths.data)
            && let Some(device) = disk::device()
        {
            // Whatever fails here is told when the node asks to attach again.
            let _ = agent.open_data(device);
        }
        agent
    }

    /// Answers a request that needs no stream.
    pub fn answer(&mut self, ask: Ask) -> Outcome<Answer> {
        match ask {
            Ask::Hello => Ok(Answer::Hello(self.hello())),
            Ask::Identify(identity) => self.identify(&identity),
            Ask::AttachData(ask) => self.attach(&ask),
            Ask::Apply(manifest) => self.apply(*manifest),
            Ask::ApplyDelta(delta) => self.apply_delta(*delta),
            Ask::Health => Ok(Answer::Health(self.health())),
            Ask::Upload(_) => Err(failure(FailureKind::Invalid, "an upload needs its stream")),
            Ask::Activate(ask) => {
                let (site, _) = self.site(ask.site)?;
                self.releases(site).activate(ask.release)?;
                Ok(Answer::Done)
            }
            Ask::Restart { site } => {
                let (site, _) = self.site(site)?;
                self.releases(site).restart()?;
                Ok(Answer::Done)
            }
            Ask::Install(ask) => {
                let (site, applied) = self.site(ask.site)?;
                let database = applied.databases.values().find(|d| d.site == ask.site);
                install::install(&self.releases(site), &ask, database)?;
                Ok(Answer::Done)
            }
            Ask::Usage => Ok(Answer::Usage(usage::all(
                self.applied.as_ref(),
                self.device.as_deref(),
            ))),
            Ask::Logs(ask) => {
                let (site, _) = self.site(ask.site)?;
                logs::tail(&self.paths.site(site.uid), ask.log, ask.lines)
                    .doing("read the log")
                    .map(Answer::Logs)
            }
            Ask::Follow(ask) => {
                let (site, _) = self.site(ask.site)?;
                logs::follow(&self.paths.site(site.uid), &ask)
                    .doing("read the log")
                    .map(Answer::Followed)
            }
            Ask::Files(ask) => {
                let (site, _) = self.site(ask.site)?;
                site_files::run(&self.releases(site), ask.task)
            }
            Ask::Blank(ask) => {
                let (site, _) = self.site(ask.site)?;
                self.releases(site).blank(ask.release)?;
                Ok(Answer::Done)
            }
            Ask::Rehearse(profile) => {
                if self.session.server.is_some() {
                    return Err(failure(
                        FailureKind::Invalid,
                        "this server is somebody's by now; only a spare rehearses",
                    ));
                }
                rehearsal::run(&self.paths, &profile)?;
                Ok(Answer::Done)
            }
            Ask::Shutdown => {
                stop::power_off(&self.paths, self.applied.as_ref())?;
                Ok(Answer::Done)
            }
        }
    }

    fn live(&self) -> Option<&Applied> {
        self.applied.as_ref().filter(|_| self.session.applied)
    }

    fn hello(&self) -> HelloAnswer {
        HelloAnswer {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest_format: FORMAT,
            server: self.session.server,
            data_mounted: self.device.is_some(),
            manifest_version: self.live().map_or(0, |applied| applied.version),
        }
    }

    fn health(&self) -> undine_api::guest::Health {
        let live = self.live();
        health::look(
            &self.paths,
            live.map(|applied| &applied.profile),
            live.is_some_and(|applied| !applied.databases.is_empty()),
            live.map_or(0, |applied| applied.version),
        )
    }

    fn identify(&mut self, identity: &Identity) -> Outcome<Answer> {
        if self
            .session
            .server
            .is_some_and(|server| server != identity.server)
        {
            return Err(failure(
                FailureKind::Invalid,
                "this server has become another one already; start it anew",
            ));
        }
        identity::take(&self.paths, identity)?;
        self.session.server = Some(identity.server);
        self.session.facts = Facts {
            hostname: identity.hostname.clone(),
            edges: identity.edges.clone(),
            resolvers: identity.resolvers.clone(),
        };
        self.keep_session()?;
        Ok(Answer::Done)
    }

    fn keep_session(&self) -> Outcome<()> {
        let text = serde_json::to_vec(&self.session).doing("write the session")?;
        fs::create_dir_all(&self.paths.run).doing("make the agent's folder in /run")?;
        files::replace(&self.paths.run.join("session.json"), &text, 0o600).doing("keep the session")
    }

    fn attach(&mut self, ask: &AttachData) -> Outcome<Answer> {
        if self.session.server.is_none() {
            return Err(not_ready("identify"));
        }
        let device = disk::attach(&self.paths, ask)?;
        self.open_data(device)?;
        Ok(Answer::Done)
    }

    fn open_data(&mut self, device: PathBuf) -> Outcome<()> {
        let (journal, applied) = Journal::open(&self.paths).doing("read the kept manifest")?;
        self.journal = Some(journal);
        self.applied = applied;
        self.device = Some(device);
        site::empty_trash(&self.paths);
        Ok(())
    }

    fn apply(&mut self, manifest: Manifest) -> Outcome<Answer> {
        validate::manifest(&manifest).map_err(|bad| refuse(&bad))?;
        if self.session.server != Some(manifest.server) {
            return Err(failure(
                FailureKind::Invalid,
                "the manifest is for another server",
            ));
        }
        let fresh = !self.session.applied;
        let new = Applied::of(manifest);
        let old = self.applied.take().filter(|old| old.server == new.server);
        let result = self.run(&Change::whole(old.as_ref(), &new, fresh));
        let failed = match result {
            Ok(failed) => failed,
            Err(error) => {
                self.applied = old;
                return Err(error);
            }
        };
        self.finish(new, None, failed)
    }

    fn apply_delta(&mut self, delta: ManifestDelta) -> Outcome<Answer> {
        validate::delta(&delta).map_err(|bad| refuse(&bad))?;
        let Some(old) = self.live().filter(|live| live.version == delta.from) else {
            // An answer that was lost on the way: the same delta again changes nothing.
            if let Some(live) = self.live().filter(|live| live.version == delta.to) {
                return Ok(answer_of(live, Vec::new()));
            }
            return Err(failure(
                FailureKind::NeedsWhole,
                "this delta is not for the version that runs here; send the whole manifest",
            ));
        };
        let mut databases: BTreeSet<_> = old.databases.keys().copied().collect();
        for gone in &delta.removed_databases {
            databases.remove(gone);
        }
        let change = Change {
            old: Some(old),
            profile: &old.profile,
            wants_databases: !databases.is_empty() || !delta.databases.is_empty(),
            fresh: false,
            sites: delta.sites.iter().collect(),
            removed: delta
                .removed_sites
                .iter()
                .filter_map(|id| old.sites.get(id))
                .collect(),
            databases: delta.databases.iter().collect(),
            removed_databases: delta
                .removed_databases
                .iter()
                .filter_map(|id| old.databases.get(id))
                .collect(),
        };
        let failed = self.run(&change)?;
        // In place: copying what did not change would cost more with every site.
        let mut new = self.applied.take().ok_or_else(|| not_ready("apply"))?;
        new.change(delta.clone());
        self.finish(new, Some(delta), failed)
    }

    fn run(&self, change: &Change<'_>) -> Outcome<Vec<undine_api::guest::SiteFailure>> {
        let place = Place {
            paths: &self.paths,
            device: self
                .device
                .as_deref()
                .ok_or_else(|| not_ready("attach_data"))?,
            facts: &self.session.facts,
            units: PathBuf::from("/run/systemd/system"),
        };
        apply(&place, change)
    }

    /// Has all of it on disk before the node hears that it is done.
    fn finish(
        &mut self,
        mut new: Applied,
        delta: Option<ManifestDelta>,
        failed: Vec<undine_api::guest::SiteFailure>,
    ) -> Outcome<Answer> {
        for site in delta.iter().flat_map(|delta| &delta.sites) {
            new.failed.remove(&site.id);
        }
        new.failed.extend(failed.iter().map(|failure| failure.site));
        let answer = answer_of(&new, failed);
        let new = &*self.applied.insert(new);
        files::sync_all_of(&self.paths.data).doing("write the data disk")?;
        if let Some(journal) = &mut self.journal {
            match delta {
                Some(delta) => journal.add(delta, new),
                None => journal.save(new),
            }
            .doing("keep the manifest")?;
        }
        if !self.session.applied {
            self.session.applied = true;
            self.keep_session()?;
        }
        Ok(answer)
    }

    /// A site that runs here.
    fn site(&self, id: SiteId) -> Outcome<(&SiteSpec, &Applied)> {
        let live = self.live().ok_or_else(|| not_ready("apply"))?;
        let site = live.sites.get(&id).ok_or_else(|| {
            failure(
                FailureKind::NotFound,
                format!("there is no site {id} on this server"),
            )
        })?;
        Ok((site, live))
    }

    /// The releases of a site, for the stream of an upload.
    pub fn releases_of(&self, id: SiteId) -> Outcome<Releases> {
        self.site(id).map(|(site, _)| self.releases(site))
    }

    fn releases(&self, site: &SiteSpec) -> Releases {
        let device = self.device.as_deref().unwrap_or(Path::new(""));
        let worker = self.applied.as_ref().and_then(|applied| {
            let renderer = Renderer::new(&applied.profile, &self.session.facts).ok()?;
            Some(renderer.site(site, "").ok()?.worker)
        });
        Releases::new(&self.paths, site, device, worker.unwrap_or_default())
    }
}

fn answer_of(applied: &Applied, failed: Vec<undine_api::guest::SiteFailure>) -> Answer {
    Answer::Applied(AppliedAnswer {
        version: applied.version,
        failed,
    })
}

fn not_ready(first: &str) -> Failure {
    failure(FailureKind::NotReady, format!("`{first}` must come first"))
}

fn refuse(bad: &validate::BadManifest) -> Failure {
    let kind = match bad {
        validate::BadManifest::Newer { .. } => FailureKind::Newer,
        validate::BadManifest::Twice { .. } => FailureKind::Invalid,
    };
    failure(kind, bad.to_string())
}
