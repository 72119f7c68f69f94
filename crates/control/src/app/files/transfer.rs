//! Files on their way out of a site and into it, piece by piece.

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{Stream, StreamExt as _};
use serde_json::json;
use undine_api::guest::{Answer, Expect, FileTask, Piece, Put};
use undine_api::public::{FileEntry, MAX_FILE};
use undine_model::{SiteId, SitePath, UploadId};

use super::{Reached, entry, shown, stale, strange};
use crate::app::caller::Caller;
use crate::clock::new_id;
use crate::control::Control;
use crate::refusal::{Refusal, Result, capital};

/// A file on its way out.
pub struct Download {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size: u64,
    /// Its mark.
    pub mark: String,
    /// Its first piece.
    first: Bytes,
    reached: Reached,
    path: SitePath,
}

fn bytes_of(piece: &Piece) -> Result<Bytes> {
    STANDARD
        .decode(&piece.data)
        .map(Bytes::from)
        .map_err(|_| strange())
}

/// Opens a file; that is written down, for files hold passwords.
pub async fn open(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    path: SitePath,
) -> Result<Download> {
    let reached = Reached::of(control, caller, site).await?;
    let task = FileTask::Read {
        path: path.clone(),
        offset: 0,
        mark: None,
    };
    let Answer::Piece(piece) = reached.ask(task).await? else {
        return Err(strange());
    };
    let data = json!({"path": shown(&path), "size": piece.size});
    reached.wrote(control, caller, "file.read", data).await?;
    Ok(Download {
        name: path.name().unwrap_or_default().to_owned(),
        size: piece.size,
        first: bytes_of(&piece)?,
        mark: piece.mark,
        reached,
        path,
    })
}

impl Download {
    /// Its bytes, asked for as they are taken; it breaks off when the file changes meanwhile.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let state = (self, 0_u64, true);
        futures_util::stream::try_unfold(state, |(it, sent, is_first)| async move {
            if !is_first && sent >= it.size {
                return Ok(None);
            }
            let bytes = match is_first {
                true => it.first.clone(),
                false => it.more(sent).await?,
            };
            let sent = sent + bytes.len() as u64;
            if bytes.is_empty() && sent < it.size {
                return Err(strange());
            }
            Ok(Some((bytes, (it, sent, false))))
        })
    }

    async fn more(&self, offset: u64) -> Result<Bytes> {
        let task = FileTask::Read {
            path: self.path.clone(),
            offset,
            mark: Some(self.mark.clone()),
        };
        match self.reached.ask(task).await? {
            Answer::Piece(piece) => bytes_of(&piece),
            _ => Err(strange()),
        }
    }

    /// All of it as text that a person may edit here.
    pub async fn text(self, most: u64) -> Result<String> {
        let unfit = |why: &str| {
            Refusal::of(422, "no-text", "The file cannot be edited here", why)
                .field("path")
                .remedy("Download it, change it with a program of yours and upload it again.")
        };
        if self.size > most {
            return Err(unfit("It is too large for a page."));
        }
        let mut whole = Vec::new();
        let mut stream = std::pin::pin!(self.stream());
        while let Some(bytes) = stream.next().await {
            whole.extend_from_slice(&bytes?);
        }
        let text = String::from_utf8(whole).map_err(|_| unfit("It is no text in UTF-8."))?;
        // A page gives back what it was given only without these.
        if text.contains('\0') || text.replace("\r\n", "").contains('\r') {
            return Err(unfit("It has letters that a page would change."));
        }
        Ok(text)
    }
}

/// Where a file is put.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its path.
    pub path: SitePath,
    /// What may be there.
    pub expect: Expect,
    /// Make the folders on its way that are not there.
    pub parents: bool,
}

/// Takes a file, in pieces, and puts it into its place once it is whole.
pub async fn put<E: std::fmt::Display>(
    control: &Control,
    caller: &Caller,
    site: SiteId,
    place: Place,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<FileEntry> {
    let Place {
        path,
        expect,
        parents,
    } = place;
    let reached = Reached::for_change(control, caller, site, &path).await?;
    let upload = new_id();
    let outcome = async {
        let size = take(&reached, upload, body).await?;
        let put = Put {
            upload,
            size,
            path: path.clone(),
            expect: expect.clone(),
            parents,
        };
        entry(reached.ask(FileTask::Put(put)).await?)
    }
    .await;
    match outcome {
        Ok(entry) => {
            let data = json!({"path": shown(&path), "size": entry.size});
            reached.wrote(control, caller, "file.put", data).await?;
            Ok(entry)
        }
        Err(refusal) => {
            // What is not thrown away now goes by itself in a day.
            let _ = reached.ask(FileTask::Forget { upload }).await;
            let refusal = stale(refusal, &expect);
            Err(match refusal.0.kind.as_str() {
                "not-found" if !parents => {
                    refusal.remedy("Make its folder first, or send it with `parents=true`.")
                }
                _ => refusal,
            })
        }
    }
}

async fn take<E: std::fmt::Display>(
    reached: &Reached,
    upload: UploadId,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<u64> {
    let mut body = std::pin::pin!(body);
    let (mut kept, mut sent) = (Vec::with_capacity(FileTask::PIECE), 0_u64);
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| {
            let why = capital(&error.to_string());
            Refusal::of(400, "broken-body", "The body broke off", why)
        })?;
        let mut rest = &bytes[..];
        if sent + (kept.len() + rest.len()) as u64 > MAX_FILE {
            return Err(too_large());
        }
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(FileTask::PIECE - kept.len()));
            kept.extend_from_slice(now);
            rest = later;
            if kept.len() == FileTask::PIECE {
                send(reached, upload, &kept, sent).await?;
                sent += kept.len() as u64;
                kept.clear();
            }
        }
    }
    if !kept.is_empty() || sent == 0 {
        send(reached, upload, &kept, sent).await?;
    }
    Ok(sent + kept.len() as u64)
}

async fn send(reached: &Reached, upload: UploadId, bytes: &[u8], offset: u64) -> Result<()> {
    let task = FileTask::Piece {
        upload,
        offset,
        data: STANDARD.encode(bytes),
    };
    reached.ask(task).await.map(drop)
}

/// The file has more bytes than any.
pub fn too_large() -> Refusal {
    Refusal::of(
        413,
        "too-large",
        "The file is too large",
        format!("A file has at most {MAX_FILE} bytes here."),
    )
    .remedy("Deploy it within a release, or send it in parts.")
}
