//! The words of the command line. Long because it is one plain list: a type for each kind of
//! thing, a line for each word.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use undine_model::{
    Bytes, DatabaseId, DomainName, MilliCpu, OperationId, ReleaseId, Slug, TokenId,
};
use uuid::Uuid;

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
    Audit(Look),
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

/// Changes to be imagined.
#[derive(Args)]
pub struct WhatIf {
    /// All measured load becomes this many percent of today's.
    #[arg(long, value_name = "PERCENT")]
    pub load: Option<u32>,
    /// So many more nodes like this one.
    #[arg(long, value_name = "NODE=COUNT", value_parser = counted)]
    pub add_nodes: Vec<(String, u32)>,
    /// This node is lost; several are lost at once.
    #[arg(long, value_name = "NODE")]
    pub lose: Vec<String>,
    /// This node is emptied.
    #[arg(long, value_name = "NODE")]
    pub drain: Vec<String>,
    /// So many more servers of this profile.
    #[arg(long, value_name = "PROFILE=COUNT", value_parser = counted)]
    pub add_servers: Vec<(String, u32)>,
    /// With so many copies each.
    #[arg(long)]
    pub replicas: Option<u32>,
    /// The servers are balanced at last.
    #[arg(long)]
    pub rebalance: bool,
}

fn counted(text: &str) -> Result<(String, u32), String> {
    let (name, count) = text
        .split_once('=')
        .ok_or("write it as NAME=COUNT, such as web-php=3")?;
    let count = count
        .parse()
        .map_err(|_| format!("{count:?} is no whole number"))?;
    Ok((name.to_owned(), count))
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

/// What counts for the whole cluster.
#[derive(Subcommand)]
pub enum Settings {
    /// How patient it is with silent nodes, and how it copies disks; without flags: show it.
    Failover(FailoverFlags),
}

/// Changes; what is not named stays.
#[derive(Args)]
pub struct FailoverFlags {
    /// A node with KVM may be dead after this silence, ms.
    #[arg(long)]
    pub silence_kvm_ms: Option<u64>,
    /// A node whose guests are emulated may be dead after this silence, ms.
    #[arg(long)]
    pub silence_tcg_ms: Option<u64>,
    /// When more than this share of the nodes falls silent together, nobody is declared dead.
    #[arg(long)]
    pub brake_percent: Option<u32>,
    /// What counts as together, ms.
    #[arg(long)]
    pub brake_window_ms: Option<u64>,
    /// A copy whose node has been away for so long is replaced elsewhere, ms.
    #[arg(long)]
    pub replace_after_ms: Option<u64>,
    /// A copy is filled with at most so many bytes a second; 0 for no limit.
    #[arg(long)]
    pub limit_bytes_s: Option<u64>,
    /// So many copies at once are filled on, or from, a node.
    #[arg(long)]
    pub joins_per_node: Option<u32>,
    /// Are connections between a server and its remote copies encrypted?
    #[arg(long)]
    pub tls: Option<bool>,
}

/// Hardware nodes.
#[derive(Subcommand)]
pub enum Node {
    /// All of them.
    List,
    /// One of them.
    Show {
        /// Name or id.
        node: String,
    },
    /// Keep what it has, take nothing new.
    Cordon {
        /// Name or id.
        node: String,
    },
    /// Take servers again.
    Uncordon {
        /// Name or id.
        node: String,
    },
    /// Say that it is dead, when control does not dare to: its servers come up elsewhere.
    Fence {
        /// Name or id.
        node: String,
        /// Its name once more: make sure that it is this one.
        #[arg(long)]
        confirm: String,
    },
    /// Say how its power is cut when it is dead.
    Bmc {
        /// Name or id.
        node: String,
        /// A program of Debian's fence-agents, such as fence_ipmilan.
        #[arg(long, required_unless_present = "none")]
        agent: Option<String>,
        /// A file with what the agent is told, a `name=value` a line (`-`: standard input).
        #[arg(long, required_unless_present = "none")]
        options: Option<PathBuf>,
        /// Nobody cuts its power any more.
        #[arg(long, conflicts_with_all = ["agent", "options"])]
        none: bool,
    },
    /// Remove it from the cluster; it must be empty.
    Remove {
        /// Name or id.
        node: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// Servers.
#[derive(Subcommand)]
pub enum Server {
    /// All of them.
    List,
    /// One of them.
    Show {
        /// Name or id.
        server: String,
    },
    /// Make one and start it.
    Create {
        /// Its name.
        name: Slug,
        /// What it is good at.
        #[arg(long)]
        profile: Slug,
        /// On this node and no other.
        #[arg(long)]
        node: Option<String>,
        /// Memory, such as 512MiB.
        #[arg(long)]
        memory: Option<Bytes>,
        /// Virtual CPUs.
        #[arg(long)]
        vcpus: Option<u32>,
        /// CPU that it may use at most, such as 1.5.
        #[arg(long)]
        cpu: Option<MilliCpu>,
        /// Data disk, such as 10GiB.
        #[arg(long)]
        disk: Option<Bytes>,
        /// Copies of its disk, on as many nodes: 1 to 3 (2 unless there is one node only).
        #[arg(long)]
        replicas: Option<u32>,
        /// 0 to 9: after a node's death the most important come up first (5).
        #[arg(long)]
        importance: Option<u32>,
        /// Boot it cold, never from a RAM template.
        #[arg(long)]
        no_template: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Start it.
    Start {
        /// Name or id.
        server: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Stop it.
    Stop {
        /// Name or id.
        server: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Stop and start it.
    Restart {
        /// Name or id.
        server: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Change how many copies its disk has, from its next start, or how important it is.
    Protect {
        /// Name or id.
        server: String,
        /// Copies of its disk: 1 to 3.
        #[arg(long)]
        replicas: Option<u32>,
        /// 0 to 9: after a node's death the most important come up first.
        #[arg(long)]
        importance: Option<u32>,
    },
    /// Go on with a copy that lacks the newest writes: they are lost. For when no copy in sync
    /// will come back.
    AcceptLoss {
        /// Name or id.
        server: String,
        /// The node of the copy to go on with.
        #[arg(long)]
        node: String,
        /// The server's name once more.
        #[arg(long)]
        confirm: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Delete it with its disk; it must have no sites.
    Delete {
        /// Name or id.
        server: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// Accounts.
#[derive(Subcommand)]
pub enum Account {
    /// All of them.
    List,
    /// One of them.
    Show {
        /// Name or id.
        account: String,
    },
    /// Make one.
    Create {
        /// Its name.
        name: Slug,
        /// Its plan.
        #[arg(long)]
        plan: String,
    },
    /// Show the page for suspended sites instead of its sites.
    Suspend {
        /// Name or id.
        account: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Serve its sites again.
    Unsuspend {
        /// Name or id.
        account: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Delete it; it must have no sites.
    Delete {
        /// Name or id.
        account: String,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Plans.
#[derive(Subcommand)]
pub enum Plan {
    /// All of them.
    List,
    /// Make one from a JSON file with its limits.
    Create {
        /// Its name.
        name: Slug,
        /// The limits: `{"sites": 10, "databases": 10, "site": {…}}`.
        #[arg(long)]
        file: PathBuf,
    },
}

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
    /// Delete it with its content and databases.
    Delete {
        /// Domain or id.
        site: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        waiting: Waiting,
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

/// Operations.
#[derive(Subcommand)]
pub enum Operation {
    /// The newest.
    List,
    /// One of them, step by step.
    Show {
        /// Its id.
        operation: OperationId,
    },
    /// Wait until it is done, showing its progress.
    Wait {
        /// Its id.
        operation: OperationId,
    },
}

/// API tokens.
#[derive(Subcommand)]
pub enum Token {
    /// All of them.
    List,
    /// Make one; its secret is shown once.
    Create {
        /// What people will call it.
        name: String,
        /// What its bearer is to be.
        #[arg(long, default_value = "account-owner")]
        role: RoleName,
        /// The only account that it is to reach.
        #[arg(long)]
        account: Option<String>,
        /// What it may do; may be given again; without one, all that its role may.
        #[arg(long)]
        scope: Vec<ScopeName>,
        /// Seconds until it ends.
        #[arg(long)]
        ttl: Option<u32>,
    },
    /// End one.
    Revoke {
        /// Its id.
        token: TokenId,
    },
}

/// What the bearer of a token is.
#[derive(Clone, Copy, ValueEnum)]
pub enum RoleName {
    /// The provider: everything.
    Provider,
    /// An account's owner.
    AccountOwner,
}

/// What a token may do.
#[derive(Clone, Copy, ValueEnum)]
pub enum ScopeName {
    /// Look.
    Read,
    /// Deploy and roll back.
    Deploy,
    /// Make, change and delete.
    Manage,
}

/// Join tokens.
#[derive(Subcommand)]
pub enum JoinToken {
    /// All of them.
    List,
    /// Make one; it is shown once.
    Create {
        /// What it is to admit.
        role: JoinRoleName,
        /// The only name that it is to admit.
        #[arg(long)]
        name: Option<Slug>,
        /// Seconds that it admits.
        #[arg(long)]
        ttl: Option<u32>,
    },
}

/// What a join token admits.
#[derive(Clone, Copy, ValueEnum)]
pub enum JoinRoleName {
    /// A hardware node.
    Node,
    /// A public door.
    Edge,
    /// A control instance.
    Control,
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

/// Measurements.
#[derive(Args)]
pub struct Metrics {
    /// Of what.
    pub kind: MetricKind,
    /// Id of the thing.
    pub id: Uuid,
    /// How close the points are.
    #[arg(long, default_value = "ten-seconds")]
    pub resolution: ResolutionName,
}

/// What is measured.
#[derive(Clone, Copy, ValueEnum)]
pub enum MetricKind {
    /// A hardware node.
    Node,
    /// A server.
    Server,
    /// A site.
    Site,
    /// A public door.
    Edge,
}

/// How close points are.
#[derive(Clone, Copy, ValueEnum)]
pub enum ResolutionName {
    /// Kept for an hour.
    TenSeconds,
    /// Kept for two days.
    Minute,
    /// Kept for a year.
    Hour,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_fit_together() {
        Arguments::command().debug_assert();
    }
}
