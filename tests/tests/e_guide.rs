//! Walks `docs/guides/install.md` on fresh machines, with its own words: the packages, the
//! commands and the units of real installations, and nothing of xtask.
//!
//! It takes the packages of `cargo xtask package --debug --no-image` and the newest server image.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use undine_e2e::{Guide, Lab, Machine, target};

const HOST: &str = "www.acme.example";
const CONTENT: &str = "It came by the guide.";

#[test]
fn the_install_guide_makes_a_cluster_that_serves_a_site() -> Result<()> {
    let lab = Lab::open()?;
    let walked = walk(&lab);
    if walked.is_err() {
        println!("{}", lab.logs());
    }
    walked
}

fn walk(lab: &Lab) -> Result<()> {
    let guide = Guide::read("install.md")?;
    let begun = Instant::now();
    let say = |what: &str| println!("{:5.1} s  {what}", begun.elapsed().as_secs_f32());

    let switch = switch(lab)?;
    let page = [("public/index.html", CONTENT), ("bmc", "ip=192.0.2.9\n")];
    let mut control = Machine::start(lab, "control", &page)?;
    control.plug("eno1", &switch, "management")?;
    control.address("eno1", "10.20.0.5/24")?;
    control.share(&image()?, "/usr/share/undine/images/debian12-web")?;
    install(&control, &guide.command("apt install ./undine-cli", &[])?)?;
    control.run(&guide.command("undine-control init", &[])?)?;
    control.run(&guide.command("chown -R undine: /var/lib/undine-control", &[])?)?;
    let enable = guide.command("systemctl enable --now undine-control", &[])?;
    start(&mut control, &enable)?;
    say("control runs");

    let mut nodes = [
        node(lab, &guide, &switch, &control, 1)?,
        node(lab, &guide, &switch, &control, 2)?,
    ];
    say("two nodes run");
    let _edge = edge(lab, &guide, &switch, &control)?;
    say("an edge runs");

    let undine = Undine::new(&guide, &control)?;
    undine.wait_for_nodes(&guide)?;
    say("the nodes are ready");
    for command in [
        "undine server create",
        "undine account create",
        "undine site create",
        "undine site deploy",
    ] {
        undine.run(&guide.command(command, &[])?)?;
        say(command);
    }

    settings(&guide, &control, &undine)?;
    say("settings for a node's death");
    mail_and_names(&guide, &control, &undine)?;
    say("a mail server, and what DNS is to say");

    let visitor = Machine::start(lab, "visitor", &[])?;
    visitor.plug("eno1", &switch, "management")?;
    visitor.address("eno1", "10.20.0.99/24")?;
    sees(&visitor, "/", CONTENT)?;
    say("a visitor sees the site");

    // An upgrade: the agents go, their servers stay.
    for node in &mut nodes {
        node.kill_unit("undine-node")?;
    }
    sees(&visitor, "/", CONTENT)?;
    for node in &mut nodes {
        node.start_unit("undine-node")?;
    }
    sees(&visitor, "/", CONTENT)?;
    say("agents were started anew under their server");

    let backup = guide.command("undine-control backup", &[("FILE", "/tmp/backup")])?;
    control.run(&backup)?;
    control.run(&["test", "-s", "/tmp/backup"])?;
    restored(&guide, &mut control)?;
    sees(&visitor, "/", CONTENT)?;
    say("the store was restored under its servers");
    nothing_is_left(&guide)
}

/// What may be set for the day on which a node dies; the fence agent is one of our own.
fn settings(guide: &Guide, control: &Machine, undine: &Undine<'_>) -> Result<()> {
    undine.run(&guide.command("undine settings failover", &[])?)?;
    let agent = "/var/lib/undine-control/fence-agents/fence_ipmilan";
    control.run(&["install", "-D", "/bin/true", agent])?;
    let of_node = [("NODE", "node-1"), ("FILE", "/bmc")];
    undine.run(&guide.command("undine node bmc", &of_node)?)?;
    let of_server = [("NAME", "static-1")];
    undine.run(&guide.command("undine server protect", &of_server)?)?;
    let often = guide.command("undine settings failover --scrub", &[])?;
    undine.run(&often)?;
    undine.run(&guide.command("undine server scrub", &of_server)?)?;
    Ok(())
}

/// Nobody answers for the mail server of the guide: what it takes is that this is said.
fn mail_and_names(guide: &Guide, control: &Machine, undine: &Undine<'_>) -> Result<()> {
    control.run(&["cp", "/etc/hostname", "/mail-password"])?;
    let file = [("FILE", "/mail-password")];
    undine.run(&guide.command("undine settings mail", &file)?)?;
    let tried = undine.run(&guide.command("undine settings try-mail", &[])?);
    let why = tried.err().context("a mail server answered")?;
    ensure!(format!("{why:#}").contains("(mail-failed"), "{why:#}");
    let address = [("ADDRESS", "10.20.0.99")];
    undine.run(&guide.command("undine settings dns", &address)?)?;
    let site = guide.command("undine site create", &[])?;
    let domain = [("DOMAIN", site[3].as_str())];
    let told = undine.run(&guide.command("undine site dns", &domain)?)?;
    ensure!(told.contains("10.20.0.99"), "{told}");
    Ok(())
}

/// The backup takes the store's place. The nodes know no more than it, so that nothing is left for
/// an operator to adopt.
fn restored(guide: &Guide, control: &mut Machine) -> Result<()> {
    let stop = guide.command("systemctl stop undine-control", &[])?;
    control.kill_unit(&stop[2])?;
    let backup = [("FILE", "/tmp/backup")];
    control.run(&guide.command("undine-control restore", &backup)?)?;
    control.run(&words("chown -R undine: /var/lib/undine-control"))?;
    let begin = guide.command("systemctl start undine-control", &[])?;
    control.start_unit(&begin[2])?;
    let undine = Undine::new(guide, control)?;
    let of_server = [("NAME", "static-1")];
    let mut show = guide.command("undine server show", &of_server)?;
    show.push("--json".to_owned());
    within(Duration::from_secs(60), || {
        let shown: Value = serde_json::from_str(&undine.run(&show)?)?;
        ensure!(shown["doubt"].is_null(), "in doubt: {shown}");
        ensure!(shown["state"] == "running", "not running: {shown}");
        Ok(())
    })?;
    let refused = undine.run(&guide.command("undine server adopt", &of_server)?);
    let why = refused.err().context("nothing was to be adopted")?;
    ensure!(why.to_string().contains("static-1"), "{why}");
    Ok(())
}

/// Further instances of control need PostgreSQL, and have tests of their own.
fn nothing_is_left(guide: &Guide) -> Result<()> {
    for further in ["undine-control token control", "undine-control join"] {
        let _ = guide.command(further, &[]);
    }
    let left = guide.left();
    let unexpected: Vec<&&str> = left
        .iter()
        .filter(|command| !command.ends_with("undine-control"))
        .collect();
    ensure!(
        unexpected.is_empty(),
        "nobody tries what the guide says here: {unexpected:?}"
    );
    Ok(())
}

/// The switches of the management network and of the servers' network.
fn switch(lab: &Lab) -> Result<Machine> {
    let switch = Machine::start(lab, "switch", &[])?;
    for bridge in ["management", "servers"] {
        let add = format!("ip link add {bridge} type bridge forward_delay 0 mcast_snooping 0");
        switch.run(&words(&add))?;
        switch.run(&["ip", "link", "set", bridge, "up"])?;
    }
    Ok(switch)
}

fn node(
    lab: &Lab,
    guide: &Guide,
    switch: &Machine,
    control: &Machine,
    number: usize,
) -> Result<Machine> {
    let (name, address) = (format!("node-{number}"), format!("10.20.0.1{number}"));
    let placeholders = [("node-1", name.as_str()), ("10.20.0.11", &address)];
    let mut machine = Machine::start(lab, &name, &[])?;
    machine.plug("eno1", switch, "management")?;
    machine.plug("eno2", switch, "servers")?;
    machine.address("eno1", &format!("{address}/24"))?;
    let token = control.run(&guide.command("undine-control token node", &placeholders)?)?;
    let packages = "apt install ./undine-common_*.deb ./undine-node";
    install(&machine, &guide.command(packages, &[])?)?;
    let [named, addressed] = placeholders;
    let placeholders = [("TOKEN", token.trim()), named, addressed];
    machine.run(&guide.command("undine-node join", &placeholders)?)?;
    let enable = guide.command("systemctl enable --now undine-node", &[])?;
    start(&mut machine, &enable)?;
    Ok(machine)
}

fn edge(lab: &Lab, guide: &Guide, switch: &Machine, control: &Machine) -> Result<Machine> {
    let mut machine = Machine::start(lab, "edge", &[])?;
    machine.plug("eno1", switch, "management")?;
    machine.plug("eno2", switch, "servers")?;
    machine.address("eno1", "10.20.0.8/24")?;
    machine.address("eno2", "10.30.0.2/16")?;
    machine.address("eno2", "fd00:30::2/64")?;
    let token = control.run(&guide.command("undine-control token edge", &[])?)?;
    let packages = "apt install ./undine-common_*.deb ./undine-edge";
    install(&machine, &guide.command(packages, &[])?)?;
    machine.run(&guide.command("undine-edge join", &[("TOKEN", token.trim())])?)?;
    machine.run(&guide.command("chown -R undine: /var/lib/undine-edge", &[])?)?;
    let enable = guide.command("systemctl enable --now undine-edge", &[])?;
    start(&mut machine, &enable)?;
    Ok(machine)
}

/// `apt install`, by the program under it: no package is fetched. The image's package is big and
/// holds one folder, which is shown to the machine instead.
fn install(machine: &Machine, apt: &[String]) -> Result<()> {
    let folder = target().join("package");
    machine.share(&folder, "/media")?;
    let mut dpkg = words("dpkg --install --force-unsafe-io");
    for pattern in apt.iter().filter(|word| word.ends_with("_*.deb")) {
        let begins = pattern.trim_start_matches("./").trim_end_matches("*.deb");
        if begins.starts_with("undine-image-") {
            continue;
        }
        let found = entries(&folder)
            .into_iter()
            .find(|path| name(path).starts_with(begins));
        let file = found.with_context(|| {
            format!("no {begins}*.deb; run cargo xtask package --debug --no-image")
        })?;
        dpkg.push(format!("/media/{}", name(&file)));
    }
    machine.run(&dpkg).map(drop)
}

/// `systemctl enable --now UNIT…`
fn start(machine: &mut Machine, systemctl: &[String]) -> Result<()> {
    for unit in systemctl.iter().skip(3) {
        machine.start_unit(unit)?;
    }
    Ok(())
}

/// The command line, on the machine and with the token that the guide says.
struct Undine<'a> {
    machine: &'a Machine,
    variable: (String, String),
}

impl<'a> Undine<'a> {
    fn new(guide: &Guide, machine: &'a Machine) -> Result<Self> {
        let export = guide.command("export", &[])?;
        let (name, value) = export[1].split_once('=').context("export NAME=VALUE")?;
        let variable = (name.to_owned(), value.to_owned());
        Ok(Self { machine, variable })
    }

    fn run(&self, words: &[String]) -> Result<String> {
        let (name, value) = &self.variable;
        let done = self.machine.command(words).env(name, value).output()?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            done.status.success(),
            "{words:?} failed: {}{}",
            said(&done.stdout),
            said(&done.stderr)
        );
        Ok(said(&done.stdout))
    }

    fn wait_for_nodes(&self, guide: &Guide) -> Result<()> {
        let mut words = guide.command("undine node list", &[])?;
        words.push("--json".to_owned());
        within(Duration::from_secs(30), || {
            let text = self.run(&words)?;
            let list: Value = serde_json::from_str(&text)?;
            let nodes = list.get("items").unwrap_or(&list).as_array();
            let ready = nodes.map_or(0, |nodes| {
                nodes.iter().filter(|it| it["state"] == "ready").count()
            });
            ensure!(ready == 2, "{ready} of 2 nodes are ready: {text}");
            Ok(())
        })
    }
}

/// Asks the edge as the site's DNS would have it.
fn sees(visitor: &Machine, path: &str, text: &str) -> Result<()> {
    let resolve = format!("{HOST}:80:10.20.0.8");
    let url = format!("http://{HOST}{path}");
    within(Duration::from_secs(30), || {
        let words = ["curl", "-sS", "-i", "-m", "20", "--resolve", &resolve, &url];
        let answer = visitor.run(&words)?;
        let head = answer.lines().next().unwrap_or_default();
        ensure!(
            head.contains(" 200") && answer.contains(text),
            "{url} answers {answer}"
        );
        Ok(())
    })
}

fn within(patience: Duration, mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("not within {patience:?}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(250)),
        }
    }
}

/// The newest server image; its package holds just this folder.
fn image() -> Result<PathBuf> {
    let built = entries(&target().join("image")).into_iter();
    let newest = built
        .filter_map(|folder| {
            let made = folder.join("image.json").metadata().ok()?.modified().ok()?;
            Some((made, folder))
        })
        .max();
    let (_, folder) = newest.context("no server image is built; run cargo xtask image")?;
    Ok(folder)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
