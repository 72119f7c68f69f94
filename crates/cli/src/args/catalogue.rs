//! What is asked of profiles and applications.

use std::path::PathBuf;

use clap::Subcommand;
use undine_model::Slug;

use super::{Sure, Waiting};

/// Applications.
#[derive(Subcommand)]
pub enum App {
    /// The catalogue.
    List,
    /// Install one into a site.
    Install {
        /// Its name.
        app: Slug,
        /// The site (domain or id).
        #[arg(long)]
        site: String,
        /// A JSON file with answers, `{"password": "…"}`: what others on the machine must not see.
        #[arg(long)]
        answers: Option<PathBuf>,
        /// An answer to one of its questions, `name=value`; may be given again.
        #[arg(long)]
        answer: Vec<String>,
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// Profiles.
#[derive(Subcommand)]
pub enum Profile {
    /// All of them.
    List,
    /// Make or change one from a folder with profile.toml and its templates.
    Put {
        /// The folder; its name is the profile's.
        folder: PathBuf,
    },
    /// Remove one that no server has.
    Delete {
        /// Its name.
        profile: Slug,
        #[command(flatten)]
        sure: Sure,
    },
}
