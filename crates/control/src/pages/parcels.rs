//! Forms that carry files or long texts (`multipart/form-data`), read as they come: first the
//! form's own secret, then small fields, then what it carries, which is never held whole.

use axum::extract::multipart::{Field, Multipart};
use axum::extract::{FromRequest as _, Request, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Redirect, Response};
use undine_api::guest::Expect;
use undine_api::public::{MAX_TEXT, Site};
use undine_model::SitePath;

use super::fields::{self, Fields, id};
use super::files::folder_page;
use crate::app::sessions::Viewer;
use crate::app::{files, sites};
use crate::control::Control;
use crate::refusal::{Refusal, Result, capital};

/// A form with its site, once it has shown that it is ours.
pub struct Parcel {
    /// The site.
    pub site: Site,
    form: Multipart,
}

fn broken(error: &axum::extract::multipart::MultipartError) -> Refusal {
    Refusal::of(
        400,
        "broken-form",
        "The form broke",
        capital(&error.body_text()),
    )
    .remedy("Send it once more.")
}

impl Parcel {
    /// Reads until it is known whose form it is.
    pub async fn open(
        control: &Control,
        viewer: &Viewer,
        which: &str,
        request: Request,
    ) -> Result<Self> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let carries = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/form-data"));
        let form = if carries {
            let form = Multipart::from_request(request, &()).await;
            let mut form = form.map_err(|error| {
                Refusal::of(
                    400,
                    "broken-form",
                    "The form broke",
                    capital(&error.body_text()),
                )
            })?;
            let csrf = match form.next_field().await.map_err(|error| broken(&error))? {
                Some(field) if field.name() == Some("csrf") => small(field, 400).await?,
                _ => String::new(),
            };
            if !viewer.wrote(&csrf) {
                return Err(fields::not_ours());
            }
            Some(form)
        } else {
            // A plain form is measured by the same rule before it is told that it is none.
            Fields::from_request(request, &()).await?;
            None
        };
        let site = sites::get(control, &viewer.caller, id(which)?).await?;
        let form = form.ok_or_else(|| {
            Refusal::of(
                415,
                "no-files",
                "The form carries no files",
                "It was not sent as multipart/form-data.",
            )
        })?;
        Ok(Self { site, form })
    }

    /// The next field.
    pub async fn next(&mut self) -> Result<Option<Field<'_>>> {
        self.form.next_field().await.map_err(|error| broken(&error))
    }
}

/// A field of at most so many bytes.
pub async fn small(mut field: Field<'_>, most: u64) -> Result<String> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(|error| broken(&error))? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > most {
            return Err(Refusal::of(
                413,
                "too-large",
                "The form is too large",
                format!("One of its fields has more than {most} bytes."),
            ));
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| Refusal::of(400, "broken-form", "The form broke", "A field is no text."))
}

/// Fields with names, paths and choices.
const SMALL: u64 = 4_096;

/// Takes files into a folder.
pub async fn upload(
    State(control): State<Control>,
    viewer: Viewer,
    axum::extract::Path(which): axum::extract::Path<String>,
    request: Request,
) -> Result<Response> {
    let by_script = request.headers().contains_key("x-panel");
    let mut parcel = Parcel::open(&control, &viewer, &which, request).await?;
    let site = parcel.site.clone();
    let (mut folder, mut expect, mut taken) = (SitePath::top(), Expect::Nothing, 0_u32);
    while let Some(field) = parcel.next().await? {
        match field.name().unwrap_or_default() {
            "path" => folder = files::path("path", &small(field, SMALL).await?)?,
            "replace" => {
                small(field, SMALL).await?;
                expect = Expect::Any;
            }
            "file" => {
                let name = plain_name(field.file_name().unwrap_or_default()).to_owned();
                // A form without a file carries one that has no name.
                if name.is_empty() {
                    continue;
                }
                let path = folder
                    .join(&name)
                    .map_err(|error| Refusal::invalid("file", capital(&error.to_string())))?;
                let place = files::Place {
                    path,
                    expect: expect.clone(),
                    parents: false,
                };
                files::put(&control, &viewer.caller, site.id, place, field)
                    .await
                    .map_err(|refusal| told(refusal, taken))?;
                taken += 1;
            }
            _ => drop(small(field, SMALL).await?),
        }
    }
    if taken == 0 {
        return Err(
            Refusal::invalid("file", "No file was chosen.").remedy("Go back and choose one.")
        );
    }
    if by_script {
        return Ok(axum::http::StatusCode::NO_CONTENT.into_response());
    }
    Ok(Redirect::to(&folder_page(&site, &folder)).into_response())
}

/// Some browsers say the whole path on the person's machine.
fn plain_name(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or_default()
}

/// A refusal that also says what was taken before it.
fn told(mut refusal: Refusal, taken: u32) -> Refusal {
    if refusal.0.kind == "conflict" {
        refusal = refusal.remedy("Tick “Replace files of the same name”, or give it another name.");
    }
    if taken > 0 {
        let detail = format!("{} The {taken} before it are there.", refusal.0.detail);
        refusal.0.detail = detail;
    }
    refusal
}

/// What a page with a text sent back.
#[derive(Default)]
pub struct Typed {
    /// Of which file.
    pub path: String,
    /// The file as it was; empty for a new one.
    pub mark: String,
    /// Do its lines end as on Windows?
    pub crlf: bool,
    /// Whatever is there by now is replaced.
    pub anyway: bool,
    /// The text, with plain ends of lines.
    pub text: String,
}

impl Typed {
    /// Reads it.
    pub async fn read(parcel: &mut Parcel) -> Result<Self> {
        let mut typed = Self::default();
        while let Some(field) = parcel.next().await? {
            match field.name().unwrap_or_default() {
                "path" => typed.path = small(field, SMALL).await?,
                "mark" => typed.mark = small(field, SMALL).await?,
                "crlf" => typed.crlf = small(field, SMALL).await? == "yes",
                "anyway" => typed.anyway = !small(field, SMALL).await?.is_empty(),
                // Browsers send every end of a line as two letters.
                "text" => typed.text = small(field, 2 * MAX_TEXT).await?.replace("\r\n", "\n"),
                _ => drop(small(field, SMALL).await?),
            }
        }
        Ok(typed)
    }

    /// As the file has it.
    pub fn bytes(&self) -> Vec<u8> {
        match self.crlf {
            true => self.text.replace('\n', "\r\n").into_bytes(),
            false => self.text.clone().into_bytes(),
        }
    }

    /// What may be there when it is saved.
    pub fn expect(&self) -> Expect {
        match (self.anyway, self.mark.is_empty()) {
            (true, _) => Expect::Any,
            (false, true) => Expect::Nothing,
            (false, false) => Expect::Mark(self.mark.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_loses_the_path_that_a_browser_says() {
        for (said, name) in [
            ("a.txt", "a.txt"),
            ("C:\\Users\\x\\a.txt", "a.txt"),
            ("../../etc/passwd", "passwd"),
            ("", ""),
            ("x/", ""),
        ] {
            assert_eq!(plain_name(said), name);
        }
    }

    #[test]
    fn a_text_keeps_the_ends_of_its_lines() {
        let mut typed = Typed {
            text: "a\nb\n".to_owned(),
            ..Typed::default()
        };
        assert_eq!(typed.bytes(), b"a\nb\n");
        assert_eq!(typed.expect(), Expect::Nothing);
        typed.crlf = true;
        typed.mark = "1".to_owned();
        assert_eq!(typed.bytes(), b"a\r\nb\r\n");
        assert_eq!(typed.expect(), Expect::Mark("1".to_owned()));
        typed.anyway = true;
        assert_eq!(typed.expect(), Expect::Any);
    }
}
