//! `up`: this machine becomes a small hosting company. Everything is done as a real installation
//! does it: the same programs, the same `init` and `join`, the units' own command lines.

pub mod http;
pub mod layout;
pub mod network;
mod options;
pub mod supervise;
mod unit;

use anyhow::Result;

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let Some(_options) = options::Options::parse(arguments)? else {
        println!("{}", options::USAGE);
        return Ok(());
    };
    Ok(())
}
