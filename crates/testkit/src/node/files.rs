//! A site's files in a fake server: paths and bytes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use undine_api::guest::{Answer, Expect, Failure, FailureKind, FileTask, Piece, Put};
use undine_api::public::{FileEntry, FileKind, FilePage};
use undine_model::{Bytes, SitePath, UploadId};

/// Files, folders (that have no bytes) and what is on its way.
#[derive(Default)]
pub struct FakeFiles {
    /// What is there.
    pub all: BTreeMap<SitePath, Option<Vec<u8>>>,
    /// What is on its way.
    pub uploads: BTreeMap<UploadId, Vec<u8>>,
    /// Counts changes: the marks.
    changes: u64,
    marks: BTreeMap<SitePath, u64>,
}

fn failure<T>(kind: FailureKind, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure {
        kind,
        message: message.into(),
    })
}

impl FakeFiles {
    /// Answers as the real agent must.
    pub fn ask(&mut self, task: FileTask, live: bool) -> Result<Answer, Failure> {
        match task {
            FileTask::List { path, after, limit } => Ok(self.list(&path, after.as_deref(), limit)),
            FileTask::Read { path, offset, .. } => self.read(&path, offset),
            FileTask::Piece {
                upload,
                offset,
                data,
            } => {
                let have = self.uploads.entry(upload).or_default();
                have.truncate(usize::try_from(offset).unwrap_or_default());
                have.extend(STANDARD.decode(data).unwrap_or_default());
                Ok(Answer::Done)
            }
            FileTask::Put(put) => self.put(&put, live),
            FileTask::Forget { upload } => {
                self.uploads.remove(&upload);
                Ok(Answer::Done)
            }
            FileTask::Folder { path } => self.make(&path, None, live),
            FileTask::Move { from, to } => {
                let Some(content) = self.all.remove(&from) else {
                    return failure(FailureKind::NotFound, format!("`{from}` is not there"));
                };
                self.make(&to, content, live)
            }
            FileTask::Remove { path, .. } => {
                let before = self.all.len();
                self.all.retain(|it, _| !path.holds(it));
                match self.all.len() < before {
                    true => Ok(Answer::Done),
                    false => failure(FailureKind::NotFound, format!("`{path}` is not there")),
                }
            }
            FileTask::Pack { paths, to } => {
                self.make(&to, Some(b"zip".to_vec()), live)?;
                Ok(taken(paths.len()))
            }
            FileTask::Unpack { path, into } => {
                let inside = into.join("unpacked").unwrap_or_default();
                self.read(&path, 0)?;
                self.make(&inside, Some(b"it".to_vec()), live)?;
                Ok(taken(1))
            }
        }
    }

    fn list(&self, path: &SitePath, after: Option<&str>, limit: u32) -> Answer {
        let mut items: Vec<FileEntry> = match path.tree() {
            None => ["current", "shared"]
                .map(|name| self.entry(&plain(name)))
                .into(),
            Some(_) => {
                let inside = self.all.keys().filter(|it| it.parent() == *path);
                inside.map(|it| self.entry(it)).collect()
            }
        };
        items.retain(|it| after.is_none_or(|after| it.name.as_str() > after));
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = items.last().filter(|_| more).map(|it| it.name.clone());
        Answer::Listed(FilePage {
            path: path.clone(),
            items,
            next,
            truncated: false,
        })
    }

    fn entry(&self, path: &SitePath) -> FileEntry {
        let content = self.all.get(path).cloned().flatten();
        FileEntry {
            name: path.name().unwrap_or_default().to_owned(),
            path: Some(path.clone()),
            kind: match content {
                Some(_) => FileKind::File,
                None => FileKind::Folder,
            },
            size: content.map_or(0, |bytes| bytes.len() as u64),
            modified_at: 1_700_000_000_000,
            mark: self.mark(path),
            leads_to: None,
        }
    }

    fn mark(&self, path: &SitePath) -> String {
        format!("m{}", self.marks.get(path).copied().unwrap_or_default())
    }

    fn read(&self, path: &SitePath, offset: u64) -> Result<Answer, Failure> {
        match self.all.get(path) {
            Some(Some(bytes)) => {
                let from = usize::try_from(offset).unwrap_or_default().min(bytes.len());
                let to = bytes.len().min(from + FileTask::PIECE);
                Ok(Answer::Piece(Piece {
                    size: bytes.len() as u64,
                    mark: self.mark(path),
                    data: STANDARD.encode(&bytes[from..to]),
                }))
            }
            Some(None) => failure(FailureKind::Invalid, format!("`{path}` is a folder")),
            None => failure(FailureKind::NotFound, format!("`{path}` is not there")),
        }
    }

    fn put(&mut self, put: &Put, live: bool) -> Result<Answer, Failure> {
        self.folder_of(&put.path, put.parents, live)?;
        let there = self.all.contains_key(&put.path);
        let as_expected = match &put.expect {
            Expect::Any => true,
            Expect::Nothing => !there,
            Expect::Mark(mark) => there && *mark == self.mark(&put.path),
        };
        if !as_expected {
            return failure(FailureKind::Conflict, format!("`{}` was changed", put.path));
        }
        let bytes = self.uploads.remove(&put.upload);
        let Some(bytes) = bytes.filter(|bytes| bytes.len() as u64 == put.size) else {
            return failure(FailureKind::Conflict, "the upload is not here any more");
        };
        self.all.remove(&put.path);
        self.make(&put.path, Some(bytes), live)
    }

    /// The folder that something is put into is there, or is made with those above it.
    fn folder_of(&mut self, path: &SitePath, may_make: bool, live: bool) -> Result<(), Failure> {
        let folder = path.parent();
        match self.all.get(&folder) {
            None if folder.within().is_empty() => Ok(()),
            None if may_make => {
                self.folder_of(&folder, true, live)?;
                self.make(&folder, None, live).map(drop)
            }
            None => failure(FailureKind::NotFound, format!("`{folder}` is not there")),
            Some(Some(_)) => failure(FailureKind::Invalid, format!("`{folder}` is no folder")),
            Some(None) => Ok(()),
        }
    }

    fn make(
        &mut self,
        path: &SitePath,
        content: Option<Vec<u8>>,
        live: bool,
    ) -> Result<Answer, Failure> {
        if path.tree() == Some(SitePath::CURRENT) && !live {
            return failure(FailureKind::NotFound, "the site has no content yet");
        }
        if let Err(error) = path.check_new() {
            return failure(FailureKind::Invalid, error.to_string());
        }
        if self.all.contains_key(path) {
            return failure(FailureKind::Conflict, format!("`{path}` is there already"));
        }
        self.changes += 1;
        self.marks.insert(path.clone(), self.changes);
        self.all.insert(path.clone(), content);
        Ok(Answer::File(self.entry(path)))
    }
}

fn plain(name: &str) -> SitePath {
    SitePath::top().join(name).unwrap_or_default()
}

fn taken(files: usize) -> Answer {
    Answer::Uploaded {
        files: files as u64,
        bytes: Bytes(2),
    }
}
