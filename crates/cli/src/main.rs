//! `undine`: the operator's and the customer's command line. It speaks only the public API;
//! tables are for people, `--json` is for programs.

mod args;
mod commands;
mod pack;
mod show;
mod wait;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};

use args::{Arguments, Command};
use undine_client::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // A second provider cannot be installed: this is the first line that runs.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    if let Command::Completion { shell } = arguments.command {
        let mut command = Arguments::command();
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "undine", &mut script);
        show::say!("{}", String::from_utf8_lossy(&script).trim_end());
        return Ok(());
    }
    let client = Client::new(&arguments.api, token(&arguments)?)?;
    let context = commands::Context {
        client,
        json: arguments.json,
    };
    commands::run(&context, arguments.command).await
}

fn token(arguments: &Arguments) -> Result<String> {
    let text = match (&arguments.token, &arguments.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .with_context(|| format!("the token file {} cannot be read", file.display()))?,
        (None, None) => {
            anyhow::bail!("no token: set UNDINE_TOKEN or UNDINE_TOKEN_FILE, or pass --token-file")
        }
    };
    Ok(text.trim().to_owned())
}
