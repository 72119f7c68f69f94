//! A site's files: looked at, sent, taken and changed, through control and node, by the agent
//! inside the site's server as the site's own user. Files pass through in pieces and are never
//! held whole.

mod transfer;

use serde_json::{Value as Json, json};
use undine_api::guest::{Answer, Ask, Expect, FileTask, Files};
use undine_api::public::{
    ArchiveResult, CreateFolder, FileEntry, FilePage, MoveFile, PackFiles, UnpackFile,
};
use undine_model::path::visible;
use undine_model::{SiteId, SitePath};
use undine_store::{Server, Site};

use super::caller::Caller;
use super::{first_release, sites};
use crate::control::Control;
use crate::nodes::NodeClient;
use crate::refusal::{Refusal, Result, capital};

pub use transfer::{Download, Place, open, put, too_large};

/// A path that somebody wrote.
pub fn path(field: &str, text: &str) -> Result<SitePath> {
    text.parse().map_err(|error: undine_model::InvalidPath| {
        Refusal::invalid(field, capital(&error.to_string()))
            .remedy("Write a path below `current` (the live release) or `shared`.")
    })
}

/// A site whose server is up.
struct Reached {
    site: Site,
    server: Server,
    client: NodeClient,
}

impl Reached {
    async fn of(control: &Control, caller: &Caller, id: SiteId) -> Result<Self> {
        let site = sites::reach(control, caller, id).await?;
        let (server, client) = sites::running_server(control, site.server).await?;
        Ok(Self {
            site,
            server,
            client,
        })
    }

    /// The same, with a release that files can be put into, when one of these paths wants it.
    async fn for_change(
        control: &Control,
        caller: &Caller,
        id: SiteId,
        wanted: &SitePath,
    ) -> Result<Self> {
        let it = Self::of(control, caller, id).await?;
        if wanted.tree() == Some(SitePath::CURRENT) && it.site.current_release.is_none() {
            first_release::ensure(control, caller, &it.site, &it.server, &it.client).await?;
        }
        Ok(it)
    }

    async fn ask(&self, task: FileTask) -> Result<Answer> {
        let ask = Ask::Files(Files {
            site: self.site.id,
            task,
        });
        let answer = self.client.guest(self.server.id, self.server.epoch, ask);
        answer.await.map_err(|error| public(error.into()))
    }

    async fn wrote(
        &self,
        control: &Control,
        caller: &Caller,
        action: &str,
        data: Json,
    ) -> Result<()> {
        let tx = control.store.begin().await?;
        let subject = format!("site/{}", self.site.id);
        caller
            .did(&tx, action, subject, Some(self.site.account), data)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}

/// What the agent's refusals are to whoever called us.
fn public(refusal: Refusal) -> Refusal {
    let problem = *refusal.0;
    let detail = capital(&problem.detail);
    let of = |status, kind, title, remedy: &str| {
        Refusal::of(status, kind, title, detail.clone())
            .field("path")
            .remedy(remedy)
    };
    match problem.kind.as_str() {
        "guest-not-found" => of(
            404,
            "not-found",
            "There is no such thing",
            "List the folder to see what is there.",
        ),
        "guest-conflict" => of(
            409,
            "conflict",
            "What is there does not allow it",
            "Look at what is there now, and do it again.",
        ),
        "guest-invalid" => of(
            422,
            "invalid",
            "A value cannot be used",
            "Write a path below `current` or `shared` that leads through plain folders.",
        ),
        "bad-archive" => of(
            422,
            "bad-archive",
            "The archive breaks a rule",
            "Pack it again, with plain names and no links that lead out of it.",
        ),
        "guest-full" => of(
            507,
            "no-room",
            "No room is left",
            "Remove files, or move the account to a larger plan.",
        ),
        _ => Refusal(Box::new(problem)),
    }
}

fn strange() -> Refusal {
    Refusal::unavailable("The server answered something else than expected.")
}

fn entry(answer: Answer) -> Result<FileEntry> {
    match answer {
        Answer::File(entry) => Ok(entry),
        _ => Err(strange()),
    }
}

fn archived(answer: &Answer) -> Result<ArchiveResult> {
    match answer {
        Answer::Uploaded { files, bytes } => Ok(ArchiveResult {
            files: *files,
            bytes: bytes.0,
        }),
        _ => Err(strange()),
    }
}

/// Whoever named a mark hears of a change as everywhere: 412.
fn stale(refusal: Refusal, expect: &Expect) -> Refusal {
    match expect {
        Expect::Mark(_) if refusal.0.kind == "conflict" => Refusal::of(
            412,
            "stale",
            "It was changed meanwhile",
            refusal.0.detail.clone(),
        )
        .remedy("Read it again and send its ETag in If-Match."),
        _ => refusal,
    }
}

fn shown(path: &SitePath) -> String {
    visible(path.as_str())
}

/// The most names of a page.
const MOST_NAMES: u32 = 500;

/// One page of what is in a folder.
pub async fn list(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    path: SitePath,
    after: Option<String>,
    limit: Option<u32>,
) -> Result<FilePage> {
    let limit = limit.unwrap_or(MOST_NAMES);
    if !(1..=MOST_NAMES).contains(&limit) {
        return Err(Refusal::invalid(
            "limit",
            format!("A page holds 1 to {MOST_NAMES} names."),
        ));
    }
    let reached = Reached::of(control, caller, site).await?;
    match reached.ask(FileTask::List { path, after, limit }).await? {
        Answer::Listed(page) => Ok(page),
        _ => Err(strange()),
    }
}

/// Makes a folder.
pub async fn folder(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    wish: CreateFolder,
) -> Result<FileEntry> {
    let path = wish.path;
    let reached = Reached::for_change(control, caller, site, &path).await?;
    let data = json!({"path": shown(&path)});
    let made = entry(reached.ask(FileTask::Folder { path }).await?)?;
    reached.wrote(control, caller, "file.folder", data).await?;
    Ok(made)
}

/// Gives a file or folder another name or place.
pub async fn rename(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    wish: MoveFile,
) -> Result<FileEntry> {
    let MoveFile { from, to } = wish;
    let reached = Reached::for_change(control, caller, site, &to).await?;
    let data = json!({"from": shown(&from), "to": shown(&to)});
    let moved = entry(reached.ask(FileTask::Move { from, to }).await?)?;
    reached.wrote(control, caller, "file.move", data).await?;
    Ok(moved)
}

/// Removes a file, or a folder with all that is in it.
pub async fn remove(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    path: SitePath,
    mark: Option<String>,
) -> Result<()> {
    let reached = Reached::of(control, caller, site).await?;
    let data = json!({"path": shown(&path)});
    let expect = mark.clone().map_or(Expect::Any, Expect::Mark);
    let task = FileTask::Remove { path, mark };
    let answer = reached.ask(task).await;
    answer.map_err(|refusal| stale(refusal, &expect))?;
    reached.wrote(control, caller, "file.remove", data).await
}

/// Makes an archive.
pub async fn pack(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    wish: PackFiles,
) -> Result<ArchiveResult> {
    let PackFiles { paths, to } = wish;
    if !(1..=500).contains(&paths.len()) {
        return Err(Refusal::invalid(
            "paths",
            "An archive is made of 1 to 500 files and folders.",
        ));
    }
    let reached = Reached::for_change(control, caller, site, &to).await?;
    let data = json!({"to": shown(&to), "of": paths.iter().map(shown).collect::<Vec<_>>()});
    let done = archived(&reached.ask(FileTask::Pack { paths, to }).await?)?;
    reached.wrote(control, caller, "file.pack", data).await?;
    Ok(done)
}

/// Unpacks an archive.
pub async fn unpack(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    wish: UnpackFile,
) -> Result<ArchiveResult> {
    let UnpackFile { path, into } = wish;
    let reached = Reached::for_change(control, caller, site, &into).await?;
    let data = json!({"path": shown(&path), "into": shown(&into)});
    let done = archived(&reached.ask(FileTask::Unpack { path, into }).await?)?;
    reached.wrote(control, caller, "file.unpack", data).await?;
    Ok(done)
}
