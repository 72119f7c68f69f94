//! The words of the command line: a type for each kind of thing, a line for each word. Its rooms
//! are those of `commands`.

mod catalogue;
mod cluster;
mod observe;
mod server;
mod site;
mod tenancy;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use catalogue::{App, Profile};
pub use cluster::{
    DnsFlags, EncryptionName, FailoverFlags, JoinRoleName, JoinToken, MailFlags, Node, Settings,
    WhatIf,
};
pub use observe::{Audit, MetricKind, Metrics, Operation, ResolutionName};
pub use server::Server;
pub use site::{Database, Files, LogName, Site};
pub use tenancy::{Account, LimitFlags, Plan, Reseller, RoleName, ScopeName, Token};

/// Host sites on servers that outlive their machines.
#[derive(Parser)]
#[command(name = "undine", version, about, max_term_width = 100)]
pub struct Arguments {
    /// Where control's API is.
    #[arg(
        long,
        global = true,
        env = "UNDINE_API",
        default_value = "http://127.0.0.1:7100"
    )]
    pub api: String,
    /// The API token.
    #[arg(long, global = true, env = "UNDINE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A file that holds the API token.
    #[arg(long, global = true, env = "UNDINE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Answer in JSON, for programs.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Hardware nodes.
    #[command(subcommand)]
    Node(Node),
    /// Servers: virtual machines with a profile.
    #[command(subcommand)]
    Server(Server),
    /// Accounts: customers.
    #[command(subcommand)]
    Account(Account),
    /// Plans: the limits of accounts.
    #[command(subcommand)]
    Plan(Plan),
    /// Resellers: who sells hosting on, within limits.
    #[command(subcommand)]
    Reseller(Reseller),
    /// Sites: domains and their content.
    #[command(subcommand)]
    Site(Site),
    /// Databases of sites.
    #[command(subcommand)]
    Database(Database),
    /// Applications of the catalogue.
    #[command(subcommand)]
    App(App),
    /// Operations: durable pieces of work.
    #[command(subcommand)]
    Operation(Operation),
    /// API tokens.
    #[command(subcommand)]
    Token(Token),
    /// What counts for the whole cluster.
    #[command(subcommand)]
    Settings(Settings),
    /// Tokens that let nodes, edges and control instances join.
    #[command(subcommand)]
    JoinToken(JoinToken),
    /// Profiles: what servers can be good at.
    #[command(subcommand)]
    Profile(Profile),
    /// Images that servers boot.
    #[command(subcommand)]
    Image(Look),
    /// Control instances.
    #[command(subcommand)]
    Instance(Look),
    /// Edges: the public doors.
    #[command(subcommand)]
    Edge(Look),
    /// What was done, by whom.
    #[command(subcommand)]
    Audit(Audit),
    /// What the cluster holds and what is left.
    Capacity,
    /// What changes of the cluster would lead to; none of them is made.
    WhatIf(WhatIf),
    /// What happens, as it happens.
    Events {
        /// Begin after this number.
        #[arg(long)]
        after: Option<u64>,
    },
    /// Measurements of a node, server, site or edge.
    Metrics(Metrics),
    /// Who you are to control.
    Whoami,
    /// What support needs to help, without secrets.
    SupportBundle {
        /// Where to write it.
        #[arg(long, default_value = "undine-support.json")]
        out: PathBuf,
    },
    /// Completion for a shell, to be sourced.
    Completion {
        /// Which shell.
        shell: Shell,
    },
}

/// For things that can only be looked at.
#[derive(Subcommand)]
pub enum Look {
    /// All of them.
    List,
}

/// Wait for the operation and show its progress.
#[derive(Args)]
pub struct Waiting {
    /// Wait until it is done, showing its progress.
    #[arg(long)]
    pub wait: bool,
}

/// Confirm what cannot be undone.
#[derive(Args)]
pub struct Sure {
    /// Yes, for good.
    #[arg(long)]
    pub yes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_fit_together() {
        Arguments::command().debug_assert();
    }

    fn parsed(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace()).map(|it| it.command)
    }

    #[test]
    fn a_reseller_s_limits_are_named_one_by_one_or_all_in_a_file() {
        let Ok(Command::Reseller(Reseller::Limits { reseller, limits })) =
            parsed("undine reseller limits north --sites 20 --disk 10GiB")
        else {
            panic!("that is how it is written");
        };
        assert_eq!((reseller.as_str(), limits.sites), ("north", Some(20)));
        assert_eq!(limits.disk, Some(undine_model::Bytes::gib(10)));
        assert!(limits.accounts.is_none() && limits.file.is_none());
        for wrong in [
            "undine reseller limits north",
            "undine reseller limits north --file a.json --sites 3",
            "undine reseller limits --sites 3",
            "undine reseller create north",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_may_name_several_sites() {
        let line = "undine token create ci --account bakery --site a.example --site b.example";
        let Ok(Command::Token(Token::Create { site, .. })) = parsed(line) else {
            panic!("that is how it is written");
        };
        assert_eq!(site, ["a.example", "b.example"]);
    }
}
