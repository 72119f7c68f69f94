//! The panel in a real Chromium, over plain WebDriver: a customer's way to their own site, live;
//! the provider's page while its cluster changes; pictures at desk and phone width below
//! `target/panel`.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};
use undine_model::Bytes;

use crate::panel::GOOD;
use crate::world::{World, checkout};

pub const DESK: (u32, u32) = (1280, 900);
pub const PHONE: (u32, u32) = (500, 844);
/// Keys, as WebDriver names them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const DOWN: &str = "\u{e015}";

/// A browser and its driver; both end with the value.
pub struct Chromium {
    driver: Child,
    http: reqwest::Client,
    session: String,
    pub base: String,
    _profile: tempfile::TempDir,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The driver ends its browser when its session ends, not when it is ended itself.
        let _ = self.end_session();
        let _ = Command::new("kill")
            .arg(self.driver.id().to_string())
            .status();
        let _ = self.driver.wait();
    }
}

impl Chromium {
    /// Without the runtime, which may be ending as well.
    fn end_session(&self) -> std::io::Result<()> {
        let (host, path) = self
            .session
            .trim_start_matches("http://")
            .split_once('/')
            .ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut driver = std::net::TcpStream::connect(host)?;
        driver.set_read_timeout(Some(Duration::from_secs(10)))?;
        let ask = format!("DELETE /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        driver.write_all(ask.as_bytes())?;
        driver.read_to_end(&mut Vec::new()).map(drop)
    }

    pub async fn start(world: &World, scripts: bool) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let driver = Command::new("/usr/bin/chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("apt-get install chromium chromium-driver");
        let profile = tempfile::tempdir().unwrap();
        let args = json!([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            format!("--user-data-dir={}", profile.path().display()),
        ]);
        let scripts = if scripts { 1 } else { 2 };
        let prefs = json!({"profile.managed_default_content_settings.javascript": scripts});
        // Between two pages there is no element for a moment: it is waited for.
        let wish = json!({"capabilities": {"alwaysMatch": {
            "timeouts": {"implicit": 10_000},
            "goog:chromeOptions": {"args": args, "binary": "/usr/bin/chromium", "prefs": prefs},
        }}});
        let http = reqwest::Client::new();
        let at = format!("http://127.0.0.1:{port}/session");
        let since = Instant::now();
        let answer = loop {
            match http.post(&at).json(&wish).send().await {
                Ok(answer) => break answer.json::<Value>().await.unwrap(),
                Err(error) => assert!(since.elapsed() < Duration::from_secs(60), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let id = answer["value"]["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"));
        let session = format!("{at}/{id}");
        let base = format!("http://{}", world.instances[0].api);
        Self {
            driver,
            http,
            session,
            base,
            _profile: profile,
        }
    }

    pub async fn tell(&self, what: &str, body: Value) -> Value {
        let mut answer = self.answer(what, body).await;
        assert!(answer["value"]["error"].is_null(), "{what}: {answer}");
        answer["value"].take()
    }

    async fn answer(&self, what: &str, body: Value) -> Value {
        let sent = self
            .http
            .post(format!("{}/{what}", self.session))
            .json(&body)
            .send()
            .await;
        sent.unwrap().json().await.unwrap()
    }

    /// Does it to an element; a page that is alive may put another one in its place meanwhile, and
    /// scripts show some a moment later.
    async fn act(&self, css: &str, what: &str, body: Value) {
        let since = Instant::now();
        loop {
            let element = self.element(css).await;
            let path = format!("element/{element}/{what}");
            let answer = self.answer(&path, body.clone()).await;
            match answer["value"]["error"].as_str() {
                None => return,
                Some("stale element reference" | "element not interactable")
                    if since.elapsed() < Duration::from_secs(10) => {}
                Some(_) => panic!("{css}: {answer}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn open(&self, path: &str) {
        self.tell("url", json!({"url": format!("{}{path}", self.base)}))
            .await;
    }

    pub async fn run(&self, script: &str) -> Value {
        self.tell("execute/sync", json!({"script": script, "args": []}))
            .await
    }

    pub async fn text(&self) -> String {
        let body = self.element("body").await;
        let url = format!("{}/element/{body}/text", self.session);
        let answer: Value = self
            .http
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        answer["value"].as_str().unwrap_or_default().to_owned()
    }

    pub async fn element(&self, css: &str) -> String {
        let found = self
            .tell("element", json!({"using": "css selector", "value": css}))
            .await;
        found
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub async fn write(&self, css: &str, text: &str) {
        self.act(css, "value", json!({"text": text})).await;
    }

    pub async fn click(&self, css: &str) {
        self.act(css, "click", json!({})).await;
    }

    pub async fn until(&self, wanted: &str) {
        let since = Instant::now();
        loop {
            let text = self.text().await;
            if text.contains(wanted) {
                return;
            }
            assert!(
                since.elapsed() < Duration::from_secs(30),
                "no `{wanted}` in {text}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Pictures at both widths; nothing is wider than the window.
    pub async fn pictures(&self, name: &str) {
        let folder = folder();
        for (word, (width, height)) in [("phone", PHONE), ("desk", DESK)] {
            self.tell("window/rect", json!({"width": width, "height": height}))
                .await;
            let over = self
                .run("return document.documentElement.scrollWidth - innerWidth")
                .await;
            assert!(
                over.as_i64().unwrap() <= 0,
                "{name} at {word} width is {over} too wide"
            );
            let url = format!("{}/screenshot", self.session);
            let answer: Value = self
                .http
                .get(url)
                .send()
                .await
                .unwrap()
                .json()
                .await
                .unwrap();
            let engine = base64::engine::general_purpose::STANDARD;
            let bytes = engine.decode(answer["value"].as_str().unwrap()).unwrap();
            std::fs::write(folder.join(format!("{name}-{word}.png")), bytes).unwrap();
        }
    }

    /// Presses keys, one after the other, wherever the focus is.
    async fn press(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|stroke| json!({"type": stroke, "value": key.to_string()}))
        });
        let source = json!({
            "type": "key", "id": "keyboard", "actions": strokes.collect::<Vec<Value>>(),
        });
        self.tell("actions", json!({"actions": [source]})).await;
    }

    /// Goes on with the tabulator until it is there. Wherever it stops on its way can be seen.
    async fn tab_to(&self, css: &str) {
        for _ in 0..60 {
            self.press(TAB).await;
            let script = format!(
                "const at = document.activeElement; \
                 return [at.matches({}), getComputedStyle(at).outlineStyle !== 'none', at.outerHTML]",
                json!(css)
            );
            let here = self.run(&script).await;
            assert_eq!(here[1], true, "the focus cannot be seen on {}", here[2]);
            if here[0] == true {
                return;
            }
        }
        panic!("{css} is not reached by keyboard");
    }

    /// Goes to a field and writes.
    async fn type_in(&self, css: &str, text: &str) {
        self.tab_to(css).await;
        self.press(text).await;
    }

    pub async fn come_in(&self, link: &str, email: &str) {
        let secret = link.trim().rsplit('/').next().unwrap().to_owned();
        self.open(&format!("/welcome/{secret}")).await;
        self.write("[name=email]", email).await;
        self.write("[name=name]", "Ann Lee").await;
        self.write("[name=password]", GOOD).await;
        self.click("form button").await;
    }
}

fn folder() -> PathBuf {
    let folder = checkout().join("target/panel");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub fn owner_link(world: &World) -> String {
    std::fs::read_to_string(world.instances[0].state.path().join("owner-link")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_s_page_shows_what_happens_without_a_reload() {
    let world = World::new().await;
    let _one = world.node("node-1", Bytes::gib(8)).await;
    let _two = world.node("node-2", Bytes::gib(8)).await;
    let browser = Chromium::start(&world, true).await;
    browser.open("/").await;
    browser.pictures("login").await;
    browser
        .come_in(&owner_link(&world), "ann@example.com")
        .await;
    browser.until("2 nodes, 0 servers").await;
    browser.run("window.same = true").await;
    for (name, profile) in [
        ("web-1", "web-php"),
        ("static-1", "static"),
        ("web-2", "web-php"),
    ] {
        world.server(name, profile).await;
    }
    browser.until("2 nodes, 3 servers").await;
    browser.until("static-1").await;
    assert_eq!(
        browser.run("return window.same").await,
        true,
        "the page was not loaded again"
    );
    let fault = browser.run("return [...document.querySelectorAll('.glass .block')].every((b) => b.offsetHeight >= 18)").await;
    assert_eq!(fault, true);
    browser.pictures("cluster").await;
    let (account, _) = world.account("bakery").await;
    world
        .site("aurora.localhost", &account, "web-1", "php")
        .await;
    for (path, name) in [
        ("/servers", "servers"),
        ("/servers/new", "server-new"),
        ("/operations", "operations"),
        ("/accounts", "accounts"),
        ("/audit", "audit"),
        ("/people", "people"),
        ("/me", "me"),
        ("/me/second", "second"),
        ("/tokens", "tokens"),
        ("/settings", "settings"),
        ("/join", "join"),
        ("/sites", "sites"),
    ] {
        browser.open(path).await;
        browser.pictures(name).await;
    }
    for (list, link, name) in [
        ("/servers", "td a", "server"),
        ("/cluster", ".tank h3 a", "node"),
        ("/accounts", "td a", "account"),
        ("/operations", "td a", "operation"),
        ("/sites", "td a", "site-of-provider"),
    ] {
        browser.open(list).await;
        browser.click(link).await;
        browser.pictures(name).await;
    }
    browser.click("a[href$='/settings']").await;
    browser.pictures("site-settings").await;
}

async fn adds_a_site(scripts: bool) {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    world.account("bakery").await;
    let browser = Chromium::start(&world, scripts).await;
    browser
        .come_in(&owner_link(&world), "ann@example.com")
        .await;
    browser.until("Nothing is wrong").await;
    browser.open("/accounts").await;
    browser.click("td a").await;
    browser.click("form[action$=invite] button").await;
    browser.until("/welcome/").await;
    let text = browser.text().await;
    let link = text
        .split_whitespace()
        .find(|word| word.contains("/welcome/"))
        .unwrap()
        .to_owned();
    browser.click("nav form button").await;
    // The way out leads to the log-in page: it would overtake the link otherwise.
    browser.until("Log in").await;
    browser.come_in(&link, "baker@example.com").await;
    browser.until("No sites yet").await;
    let since = Instant::now();
    browser.click("main .primary").await;
    browser.write("[name=domain]", "aurora.localhost").await;
    browser.click("[name=runtime][value=php]").await;
    browser
        .pictures(if scripts {
            "site-new"
        } else {
            "site-new-no-scripts"
        })
        .await;
    browser.click("main form .primary").await;
    if scripts {
        browser.until("answers\nOpen it").await;
    } else {
        while !browser.text().await.contains("answers\nOpen it") {
            assert!(since.elapsed() < Duration::from_secs(30));
            browser.tell("refresh", json!({})).await;
        }
    }
    println!(
        "from the list to an answering site: 4 clicks, {:.1} s",
        since.elapsed().as_secs_f64()
    );
    browser
        .pictures(if scripts { "site" } else { "site-no-scripts" })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_s_site_goes_live_before_their_eyes() {
    adds_a_site(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_keyboard_alone_a_site_is_added() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    world.account("bakery").await;
    let browser = Chromium::start(&world, true).await;
    let link = owner_link(&world);
    let secret = link.trim().rsplit('/').next().unwrap().to_owned();
    browser.open(&format!("/welcome/{secret}")).await;
    browser.type_in("[name=email]", "ann@example.com").await;
    browser.type_in("[name=name]", "Ann Lee").await;
    browser.type_in("[name=password]", GOOD).await;
    browser.press(ENTER).await;
    browser.until("Nothing is wrong").await;
    browser.tab_to("nav a[href='/sites']").await;
    browser.press(ENTER).await;
    browser.until("No sites yet").await;
    browser.tab_to("main .primary").await;
    browser.press(ENTER).await;
    browser.until("What should it run?").await;
    browser.type_in("[name=domain]", "aurora.localhost").await;
    browser.type_in("[name=account]", "bakery").await;
    browser.tab_to("[name=runtime]").await;
    for _ in 0..5 {
        browser.press(DOWN).await;
        let chosen = "return document.querySelector('[name=runtime]:checked')?.value";
        if browser.run(chosen).await == "php" {
            break;
        }
    }
    browser.tab_to("main form .primary").await;
    browser.press(ENTER).await;
    browser.until("answers\nOpen it").await;
    let site = world.get("/v1/sites").await;
    assert_eq!(site.text("/items/0/runtime"), "php");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_scripts_a_site_is_added_all_the_same() {
    adds_a_site(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_uploaded_and_edited_and_the_log_is_watched_in_the_page() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    let site = world
        .site("aurora.localhost", &account, "web-1", "php")
        .await;
    let browser = Chromium::start(&world, true).await;
    browser
        .come_in(&owner_link(&world), "ann@example.com")
        .await;
    browser.until("Nothing is wrong").await;
    browser.open(&format!("/sites/{site}")).await;
    browser.click("a[href$='/files']").await;
    browser.until("what visitors see").await;
    browser.pictures("files-top").await;
    browser.click("table a[href*='path=current']").await;
    browser.until("Nothing is here yet").await;
    let file = world.folder.path().join("hello.txt");
    std::fs::write(&file, "hello").unwrap();
    browser
        .write("[name=file]", &file.display().to_string())
        .await;
    browser.click("form[data-upload] button").await;
    browser.until("hello.txt").await;
    // The same name again: the page says why not, and goes nowhere.
    browser
        .write("[name=file]", &file.display().to_string())
        .await;
    browser.click("form[data-upload] button").await;
    browser.until("Replace files of the same name”").await;
    browser.pictures("files").await;
    browser.click("a[href*='/files/edit']").await;
    browser.write("textarea", "more, ").await;
    browser.pictures("files-edit").await;
    browser.click("main form .primary").await;
    browser.until("Make a folder").await;
    {
        let state = node.state();
        let guest = &state.servers.values().next().unwrap().guest;
        let all = &guest.files.values().next().unwrap().all;
        let text = all[&"current/hello.txt".parse().unwrap()].clone().unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("hello") && text.contains("more"), "{text}");
    }
    browser.click("a[href$='/log']").await;
    browser.until("Requests").await;
    node.logs("GET /one 200");
    node.logs("GET /<b>two</b> 404");
    browser.until("GET /<b>two</b> 404").await;
    browser.pictures("log").await;
}
