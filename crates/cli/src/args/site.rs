//! What is asked of sites and databases.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use undine_model::{DatabaseId, DomainName, ReleaseId, Slug};

use super::{Sure, Waiting};

/// Sites.
#[derive(Subcommand)]
pub enum Site {
    /// All of them.
    List,
    /// One of them.
    Show {
        /// Domain or id.
        site: String,
    },
    /// Make one.
    Create {
        /// Its name.
        domain: DomainName,
        /// Whose it is; an account's own token needs none.
        #[arg(long)]
        account: Option<String>,
        /// On this server; without one, the fitting server with the fewest sites.
        #[arg(long)]
        server: Option<String>,
        /// How it runs, such as static or php.
        #[arg(long)]
        runtime: Slug,
        /// Further names; may be given again.
        #[arg(long)]
        alias: Vec<DomainName>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Make a folder or an archive (.tar, .tar.gz, .tar.zst, .zip) its content.
    Deploy {
        /// Domain or id.
        site: String,
        /// Folder or archive.
        path: PathBuf,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Its releases.
    Releases {
        /// Domain or id.
        site: String,
    },
    /// Show visitors an earlier release again.
    Rollback {
        /// Domain or id.
        site: String,
        /// Which release; without one, the one before.
        #[arg(long)]
        release: Option<ReleaseId>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Change its settings to those in a JSON file.
    Settings {
        /// Domain or id.
        site: String,
        /// The settings: `{"php": {"memory_limit": "128M"}, "env": {…}, …}`.
        #[arg(long)]
        file: PathBuf,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Its files: `current` is the live release, `shared` outlives releases.
    #[command(subcommand)]
    Files(Files),
    /// The last lines of its log.
    Logs {
        /// Domain or id.
        site: String,
        /// Which log.
        #[arg(long, default_value = "access")]
        log: LogName,
        /// How many lines.
        #[arg(long, default_value_t = 50)]
        lines: u32,
        /// Go on with what is new, until interrupted.
        #[arg(long, short)]
        follow: bool,
        /// Only lines with this text; with --follow.
        #[arg(long, requires = "follow")]
        find: Option<String>,
    },
    /// What to put into DNS for it, and what stands there now.
    Dns {
        /// Domain or id.
        site: String,
    },
    /// End its program; the next visitor starts it anew.
    Restart {
        /// Domain or id.
        site: String,
    },
    /// Show the page for suspended sites instead.
    Suspend {
        /// Domain or id.
        site: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Serve it again.
    Unsuspend {
        /// Domain or id.
        site: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Undo its deletion.
    Restore {
        /// Domain or id.
        site: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Delete it with its content and databases: off at once, gone after a day.
    Delete {
        /// Domain or id.
        site: String,
        /// Gone at once: nothing can be undone.
        #[arg(long)]
        for_good: bool,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// A site's files.
#[derive(Subcommand)]
pub enum Files {
    /// What is in a folder.
    Ls {
        /// Domain or id.
        site: String,
        /// The folder, such as current/css; the top without one.
        #[arg(default_value = "")]
        path: String,
    },
    /// Fetch a file.
    Get {
        /// Domain or id.
        site: String,
        /// The file, such as current/index.html.
        path: String,
        /// Where to write it, `-` for the screen; without one, under its own name here.
        to: Option<PathBuf>,
    },
    /// Send a file; one of the same name is replaced.
    Put {
        /// Domain or id.
        site: String,
        /// The file here.
        from: PathBuf,
        /// Its path there, such as current/index.html.
        path: String,
        /// Only where nothing is yet.
        #[arg(long)]
        new: bool,
        /// Make the folders on its way that are not there.
        #[arg(long)]
        parents: bool,
    },
    /// Remove a file, or a folder with all that is in it.
    Rm {
        /// Domain or id.
        site: String,
        /// Its path.
        path: String,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Which log of a site.
#[derive(Clone, Copy, ValueEnum)]
pub enum LogName {
    /// Requests.
    Access,
    /// Errors.
    Error,
}

/// Databases.
#[derive(Subcommand)]
pub enum Database {
    /// All of them.
    List,
    /// Make one; its password is shown once.
    Create {
        /// For this site (domain or id).
        #[arg(long)]
        site: String,
        /// Its name.
        name: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Delete it with its content.
    Delete {
        /// Its id.
        database: DatabaseId,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        waiting: Waiting,
    },
}
