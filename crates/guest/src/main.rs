//! undine-guest: applies the manifest inside a server; small and static.
//!
//! It is started before anything else, waits at its virtio-serial port and knows nothing until
//! the node tells it who it is. There is nothing to configure: paths and names are the image's.

mod agent;
mod apply;
mod caps;
mod command;
mod database;
mod disk;
mod fail;
mod files;
mod health;
mod identity;
mod idle;
mod install;
mod journal;
mod logs;
mod paths;
mod port;
mod rehearsal;
mod release;
mod session;
mod site;
mod site_files;
mod stop;
mod sys;
mod units;
mod unpack;
mod usage;
mod users;
mod web;

use std::path::Path;
use std::time::Duration;

use agent::Agent;
use paths::Paths;
use port::Port;

fn main() {
    let paths = Paths::real();
    let sites = paths.sites();
    std::thread::spawn(move || idle::watch(&sites));
    let mut agent = Agent::resume(paths);
    loop {
        if let Some(device) = port::find(Path::new("/sys/class/virtio-ports")) {
            match Port::open(&device) {
                Ok(mut port) => {
                    let error = session::serve(&mut port, &mut agent);
                    eprintln!("undine-guest: {} fails: {error}", device.display());
                }
                Err(error) => eprintln!("undine-guest: cannot open {}: {error}", device.display()),
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
