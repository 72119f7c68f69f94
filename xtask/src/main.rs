//! The project's own commands. `up` makes this machine a small hosting company, `test` proves
//! that everything works; the rest serves those two.

mod bench;
mod chaos;
mod client;
mod command;
mod down;
mod image;
mod machine;
mod package;
mod test;
mod tidy;
mod trial;
mod up;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask COMMAND [--help]

  up        make this machine a small hosting company: control, nodes, edges, servers, sites
  down      remove everything that `up` made
  test      run every check and test
  tidy      check the house rules
  bench     measure: site, start, memory, survival, failover, copies, panel, image, placement
  chaos     break things at random under visitors, and judge what they saw
  image     build a server image
  package   make Debian packages
  client    write the API's client from openapi/v1.json";

fn main() -> ExitCode {
    if let Some(code) = chaos::run_as_recorder() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", arguments),
    };
    match command {
        "up" => up::run(rest),
        "down" => down::run(rest),
        "test" => test::run(rest),
        "tidy" => tidy::run(rest),
        "bench" => bench::run(rest),
        "chaos" => chaos::run(rest),
        "image" => image::run(rest),
        "client" => client::run(rest),
        "package" => package::run(rest),
        "supervise" => up::supervise::run(rest),
        "catch-mail" => up::mail::run(rest),
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("there is no command `{other}`\n{USAGE}"),
    }
}
