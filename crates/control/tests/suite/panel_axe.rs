//! Every page of the panel before axe-core, in a real Chromium: light and dark, at desk and phone
//! width. A page that is new in the table is looked at without being named here.
//!
//! axe comes from npm at the version and hash that `web/package-lock.json` holds, once, into
//! `target/axe`.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use undine_control::pages::{TABLE, Who};
use undine_model::Bytes;

use crate::panel_browser::{Chromium, DESK, PHONE, owner_link};
use crate::world::{World, checkout};

/// The script. Several tests may want it at once: each fetches into its own folder, and the one
/// that is done first gives it its name.
fn axe() -> String {
    let folder = checkout().join("target/axe");
    let file = |folder: &PathBuf| folder.join("node_modules/axe-core/axe.min.js");
    if !file(&folder).exists() {
        let target = checkout().join("target");
        let own = tempfile::tempdir_in(&target).unwrap();
        for name in ["package.json", "package-lock.json"] {
            std::fs::copy(checkout().join("web").join(name), own.path().join(name)).unwrap();
        }
        let done = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(own.path())
            .output()
            .expect("apt-get install npm");
        assert!(done.status.success(), "{done:?}");
        let _ = std::fs::rename(own.path(), &folder);
    }
    std::fs::read_to_string(file(&folder)).unwrap()
}

/// What axe is to look for: all of WCAG 2.2 AA, and what its makers hold to be good practice.
const RUN: &str = "axe.run(document, {resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', \
    'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}).then( \
    (found) => found.violations.map((v) => v.id + ': ' + v.help + ': ' + \
    v.nodes.map((n) => n.html + ' (' + n.failureSummary + ')').join('; ')))";

impl Chromium {
    /// What a script comes to that no policy of the page stops.
    async fn evaluated(&self, script: &str) -> Value {
        let wish = json!({"cmd": "Runtime.evaluate", "params": {
            "expression": script, "awaitPromise": true, "returnByValue": true,
        }});
        let mut said = self.tell("goog/cdp/execute", wish).await;
        assert!(said["exceptionDetails"].is_null(), "{said}");
        said["result"]["value"].take()
    }

    /// What axe says of the page that is open, at both widths, light and dark.
    async fn faults(&self, axe: &str, name: &str, found: &mut Vec<String>) {
        for (width, (w, h)) in [("desk", DESK), ("phone", PHONE)] {
            let size = json!({"width": w, "height": h});
            self.tell("window/rect", size).await;
            for scheme in ["light", "dark"] {
                let features = json!([
                    {"name": "prefers-color-scheme", "value": scheme},
                    // A colour on its way to another is neither.
                    {"name": "prefers-reduced-motion", "value": "reduce"},
                ]);
                let wish = json!({
                    "cmd": "Emulation.setEmulatedMedia", "params": {"features": features},
                });
                self.tell("goog/cdp/execute", wish).await;
                if self.evaluated("!window.axe").await == true {
                    self.evaluated(&format!("{axe};0")).await;
                }
                let said = self.evaluated(RUN).await;
                for fault in said.as_array().unwrap() {
                    found.push(format!("{name}, {width}, {scheme}: {}", text(fault)));
                }
            }
        }
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_default()
        .chars()
        .take(600)
        .collect()
}

/// A path of the table with the ids that it needs.
fn address(path: &str, ids: &[(&str, String)]) -> String {
    if !path.contains('{') {
        return path.to_owned();
    }
    let found = ids.iter().find(|(begin, _)| path.starts_with(begin));
    let (_, id) = found.unwrap_or_else(|| panic!("no id for {path}: add one here"));
    let (before, rest) = path.split_once('{').unwrap();
    format!("{before}{id}{}", rest.split_once('}').unwrap().1)
}

/// No pages: they lead elsewhere, or are files and streams.
const NO_PAGE: &[&str] = &[
    "/",
    "/live",
    "/assets/{name}",
    "/brands/{name}",
    "/sites/{id}/log/live",
    "/sites/{id}/files/get",
];

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_on_any_page() {
    let axe = axe();
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    let server = world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    let site = world
        .site("aurora.localhost", &account, "web-1", "php")
        .await;
    let ids = [
        ("/welcome", "no-link-of-ours".to_owned()),
        ("/nodes", world.get("/v1/nodes").await.text("/items/0/id")),
        ("/servers", server),
        ("/accounts", account),
        ("/plans", world.get("/v1/plans").await.text("/items/0/id")),
        ("/sites", site),
        (
            "/operations",
            world.get("/v1/operations").await.text("/items/0/id"),
        ),
    ];
    let limits = json!({"accounts": 5, "sites": 5, "databases": 5, "site": {
        "cpu": 500, "memory": 64 << 20, "processes": 50, "io_bytes_per_s": 1 << 20,
        "iops": 100, "disk": 64 << 20, "inodes": 1000,
    }});
    let reseller = world
        .post("/v1/resellers", json!({"name": "north", "limits": limits}))
        .await;
    let ids = [
        &ids[..],
        &[("/resellers", reseller.expect(201).text("/id"))],
    ]
    .concat();
    let browser = Chromium::start(&world, true).await;
    let mut found = Vec::new();
    let link = owner_link(&world);
    let secret = link.trim().rsplit('/').next().unwrap();
    browser.open(&format!("/welcome/{secret}")).await;
    browser.faults(&axe, "the owner's link", &mut found).await;
    let pages = TABLE
        .iter()
        .filter(|it| it.method == "GET" && !NO_PAGE.contains(&it.path));
    let (way_in, inside): (Vec<_>, Vec<_>) = pages.partition(|it| it.who == Who::Anybody);
    for it in way_in {
        browser.open(&address(it.path, &ids)).await;
        browser.faults(&axe, it.path, &mut found).await;
    }
    browser.come_in(&link, "ann@example.com").await;
    browser.until("1 node, 1 server, 1 site").await;
    for it in inside {
        browser.open(&address(it.path, &ids)).await;
        browser.faults(&axe, it.path, &mut found).await;
    }
    // What a form answers, and what a refusal looks like.
    for (page, button, wanted) in [
        (
            "/people",
            "main form[action='/people'] button",
            "Send this link",
        ),
        ("/join", "main form button", "Run this as root"),
        ("/servers/none", "", "no such page"),
    ] {
        browser.open(page).await;
        if !button.is_empty() {
            browser.click(button).await;
        }
        browser.until(wanted).await;
        browser
            .faults(&axe, &format!("{page} after its form"), &mut found)
            .await;
    }
    // As a customer has them, with a banner above.
    browser.open(&address("/accounts/{id}", &ids)).await;
    browser.click("form[action='/act'] button").await;
    browser.until("You act for").await;
    for page in ["/sites", "/plan", "/people", "/me"] {
        browser.open(page).await;
        browser
            .faults(&axe, &format!("{page} of a customer"), &mut found)
            .await;
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
