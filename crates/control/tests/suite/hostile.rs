//! Hostile input, in every field of every form of the panel at once: it is text in pages, nothing
//! in headers, and leads nowhere else. Planted sessions are never anybody's.

use std::collections::BTreeSet;

use undine_control::pages::{TABLE, Who};
use undine_model::Bytes;

use crate::panel::{Browser, GOOD, Shown, customer, owner};
use crate::world::{World, checkout};

const EVIL: &str =
    "x\"'><script>alert(1)</script><img src=x onerror=alert(2)>\r\nset-cookie: evil=1\r\n\r\n";

/// Every name that any form of the panel has for a field.
fn fields() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(checkout().join("crates/control/templates")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let found = text.split(" name=\"").skip(1);
        names.extend(found.map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    names.remove("csrf");
    names.retain(|name| !name.contains('{'));
    for of_macros in ["memory", "disk", "inodes", "cpu", "processes", "io", "iops"] {
        names.insert(of_macros.to_owned());
    }
    assert!(names.len() > 30, "{names:?}");
    names
}

fn harmless(what: &str, shown: &Shown) {
    for mark in ["<script>alert", "<img src=x", "x\"'>"] {
        assert!(!shown.text.contains(mark), "{what}: {}", shown.text);
    }
    let cookies = shown.headers.get_all("set-cookie").iter();
    for cookie in cookies.map(|cookie| cookie.to_str().unwrap()) {
        assert!(!cookie.contains("evil"), "{what}: {cookie}");
    }
    let local =
        shown.to.starts_with('/') && !shown.to.starts_with("//") && !shown.to.contains('\\');
    assert!(shown.to.is_empty() || local, "{what} leads to {}", shown.to);
    assert!(shown.status < 500, "{what}: {shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_typed_anywhere_is_text_in_pages_and_nothing_in_headers() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    let server = world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    let site = world.site("one.localhost", &account, "web-1", "php").await;
    let operation = world.get("/v1/operations").await.text("/items/0/id");
    let plan = world.get("/v1/plans").await.text("/items/0/id");
    let node = world.get("/v1/nodes").await.text("/items/0/id");
    let mut owner = owner(&world).await;
    let mut baker = customer(&world, &mut owner, &account, "baker@example.com").await;
    let fields = fields();
    let address = |path: &str| {
        let id = match path.split('/').nth(1).unwrap_or_default() {
            "servers" => &server,
            "accounts" => &account,
            "operations" => &operation,
            "plans" => &plan,
            "nodes" => &node,
            _ => &site,
        };
        let evil = "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E%0d%0aset-cookie:evil=1";
        path.replace("{id}", id)
            .replace("{secret}", evil)
            .replace("{name}", evil)
    };
    let tries: [(&mut Browser, &[Who]); 2] = [
        (&mut baker, &[Who::Anybody, Who::Person]),
        (&mut owner, &[Who::Person, Who::Seller, Who::Provider]),
    ];
    for (browser, who) in tries {
        let csrf = browser.csrf().await;
        let forms = TABLE.iter().filter(|it| who.contains(&it.who));
        let forms = forms.filter(|it| it.method == "POST" && it.path != "/logout");
        for it in forms {
            let mut sent: Vec<(&str, &str)> =
                fields.iter().map(|name| (name.as_str(), EVIL)).collect();
            sent.push(("csrf", &csrf));
            let shown = browser.bare(&address(it.path), &sent, &[]).await;
            harmless(&format!("POST {}", it.path), &shown);
            // The same with what lets more forms through to where they show something.
            for (name, value) in &mut sent {
                match *name {
                    "version" => *value = "1",
                    "role" => *value = "reader",
                    "may" => *value = "read",
                    "days" => *value = "1",
                    "password" | "old" => *value = GOOD,
                    _ => {}
                }
            }
            let shown = browser.bare(&address(it.path), &sent, &[]).await;
            harmless(&format!("POST {} again", it.path), &shown);
        }
        let query = "find=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&action=x%22'%3E%3Cscript%3Ealert\
            &log=%22%3E%3Cscript%3Ealert&account=%3Cimg%20src=x%3E&next=//evil.example";
        let pages = TABLE.iter().filter(|it| who.contains(&it.who));
        let pages = pages.filter(|it| it.method == "GET" && !it.path.ends_with("/live"));
        for it in pages {
            let shown = browser.get(&address(it.path)).await;
            harmless(&format!("GET {}", it.path), &shown);
            let shown = browser.get(&format!("{}?{query}", address(it.path))).await;
            harmless(&format!("GET {} with a query", it.path), &shown);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_session_never_becomes_anybody_s() {
    let world = World::new().await;
    let link = std::fs::read_to_string(world.instances[0].state.path().join("owner-link")).unwrap();
    let planted = "a-secret-that-somebody-else-knows-too-0123456";
    let is_nobody = async || {
        let mut spy = Browser::new(&world, 0);
        spy.cookie = planted.to_owned();
        assert_eq!(spy.get("/cluster").await.to, "/login");
    };
    let mut victim = Browser::new(&world, 0);
    victim.cookie = planted.to_owned();
    victim.welcome(&link, "ann@example.com").await;
    assert_ne!(victim.cookie, planted);
    assert_eq!(victim.get("/cluster").await.status, 200);
    is_nobody().await;
    victim.cookie = planted.to_owned();
    let login = [("email", "ann@example.com"), ("password", GOOD)];
    assert_eq!(victim.bare("/login", &login, &[]).await.status, 303);
    assert_ne!(victim.cookie, planted);
    is_nobody().await;
    // Nor is somebody logged in as another by a form of another site.
    for headers in [
        [("origin", "https://evil.example")],
        [("sec-fetch-site", "cross-site")],
    ] {
        let mut other = Browser::new(&world, 0);
        assert_eq!(other.bare("/login", &login, &headers).await.status, 403);
        assert_eq!(other.cookie, "");
    }
}
