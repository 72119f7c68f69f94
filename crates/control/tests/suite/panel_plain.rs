//! A site's files in a real Chromium that runs no scripts: from the first upload to the last
//! removal, by links and forms alone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use undine_model::{Bytes, SitePath};
use undine_testkit::node::FakeNode;

use crate::panel_browser::{Chromium, owner_link};
use crate::world::World;

/// What a file of the only site holds.
fn real(node: &FakeNode, path: &str) -> Option<String> {
    let path: SitePath = path.parse().unwrap();
    let state = node.state();
    let guest = &state.servers.values().next().unwrap().guest;
    let all = &guest.files.values().next()?.all;
    let bytes = all.get(&path)?.clone()?;
    Some(String::from_utf8(bytes).unwrap())
}

/// Waits until a file of the only site holds this.
async fn becomes(node: &FakeNode, path: &str, wanted: &str) {
    let since = Instant::now();
    while real(node, path).as_deref() != Some(wanted) {
        let late = since.elapsed() > Duration::from_secs(30);
        assert!(!late, "{path}: {:?}", real(node, path));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A customer who has just come in, at their list of sites.
async fn baker(world: &World) -> Chromium {
    let browser = Chromium::start(world, false).await;
    browser.come_in(&owner_link(world), "ann@example.com").await;
    browser.until("Nothing is wrong").await;
    browser.open("/accounts").await;
    browser.click("td a").await;
    browser.click("form[action$=invite] button").await;
    browser.until("/welcome/").await;
    let text = browser.text().await;
    let mut words = text.split_whitespace();
    let link = words.find(|word| word.contains("/welcome/")).unwrap();
    browser.click("nav form button").await;
    browser.until("Log in").await;
    browser.come_in(link, "baker@example.com").await;
    browser.until("aurora.localhost").await;
    browser
}

async fn upload(browser: &Chromium, world: &World, name: &str, content: &str) {
    let file = world.folder.path().join(name);
    std::fs::write(&file, content).unwrap();
    browser
        .write("[name=file]", &file.display().to_string())
        .await;
    browser.click("form[data-upload] button").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_scripts_files_are_uploaded_edited_packed_and_removed() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    world
        .site("aurora.localhost", &account, "web-1", "php")
        .await;
    let browser = baker(&world).await;
    browser.click("td a").await;
    browser.click("a[href$='/files']").await;
    browser.until("what visitors see").await;
    browser.click("table a[href*='path=current']").await;
    browser.until("Nothing is here yet").await;
    upload(&browser, &world, "hello.txt", "hello").await;
    browser.until("hello.txt").await;
    becomes(&node, "current/hello.txt", "hello").await;

    // The same name again is refused with what to do, and done when that is ticked.
    upload(&browser, &world, "hello.txt", "again").await;
    browser.until("Replace files of the same name”").await;
    assert_eq!(real(&node, "current/hello.txt").as_deref(), Some("hello"));
    browser.tell("back", json!({})).await;
    browser.click("[name=replace]").await;
    upload(&browser, &world, "hello.txt", "again").await;
    becomes(&node, "current/hello.txt", "again").await;

    changes(&browser, &node).await;
    removes(&browser, &node).await;
    log(&browser, &node).await;
}

/// A folder, a new text in it, a text that was there, another name.
async fn changes(browser: &Chromium, node: &FakeNode) {
    let make = "form[action$='/files/folder']";
    browser.write(&format!("{make} [name=name]"), "css").await;
    browser.click(&format!("{make} [value=folder]")).await;
    browser.click("td.folder a").await;
    browser.until("Nothing is here yet").await;
    browser
        .write(&format!("{make} [name=name]"), "site.css")
        .await;
    browser.click(&format!("{make} [value=file]")).await;
    browser.write("textarea", "p { color: teal }").await;
    browser.click("main form .primary").await;
    browser.until("site.css").await;
    let text = real(node, "current/css/site.css").unwrap();
    assert!(text.contains("teal"), "{text}");

    browser.click("a[aria-label='Edit site.css']").await;
    browser.write("textarea", "/* more */").await;
    browser.pictures("files-edit-no-scripts").await;
    browser.click("main form .primary").await;
    browser.until("Make a folder").await;
    let text = real(node, "current/css/site.css").unwrap();
    assert!(text.contains("teal") && text.contains("more"), "{text}");

    browser.click("a[aria-label='Rename site.css']").await;
    browser.until("Another name for").await;
    let name = "form[action$='/files/move'] [name=name]";
    let field = browser.element(name).await;
    browser
        .tell(&format!("element/{field}/clear"), json!({}))
        .await;
    browser.write(name, "current/main.css").await;
    browser.click("form[action$='/files/move'] button").await;
    browser.until("main.css").await;
    assert!(real(node, "current/css/site.css").is_none());
    assert!(real(node, "current/main.css").is_some());
    browser.pictures("files-no-scripts").await;
}

/// An archive of two things, unpacked again; then all of it goes.
async fn removes(browser: &Chromium, node: &FakeNode) {
    for name in ["hello.txt", "main.css"] {
        browser
            .click(&format!("[aria-label='Choose {name}']"))
            .await;
    }
    browser.write("[name=archive]", "all").await;
    browser.click("#picked .row button:not(.danger)").await;
    browser.until("all.zip").await;
    assert!(real(node, "current/all.zip").is_some());
    browser.click("[aria-label='Unpack all.zip']").await;
    browser.until("unpacked").await;

    for name in ["hello.txt", "css"] {
        browser
            .click(&format!("[aria-label='Choose {name}']"))
            .await;
    }
    browser.click("#picked .danger").await;
    browser.until("Remove for good?").await;
    assert!(
        real(node, "current/hello.txt").is_some(),
        "it was only asked"
    );
    browser.pictures("files-remove-no-scripts").await;
    browser.click("main form .danger").await;
    browser.until("all.zip").await;
    assert!(real(node, "current/hello.txt").is_none());
    assert!(
        real(node, "current/main.css").is_some(),
        "it was not ticked"
    );
    assert!(!browser.text().await.contains("hello.txt"));
}

/// The log is read line by line, again when that is asked for, and with a filter.
async fn log(browser: &Chromium, node: &FakeNode) {
    browser.click("a[href$='/log']").await;
    browser.until("Read it again").await;
    node.logs("GET /one 200");
    node.logs("GET /<b>two</b> 404");
    browser.click("noscript a").await;
    browser.until("GET /<b>two</b> 404").await;
    browser.write("[name=find]", "one").await;
    browser.click("form[action$='/log'] button").await;
    let since = Instant::now();
    loop {
        let text = browser.text().await;
        if text.contains("GET /one 200") && !text.contains("two") {
            break;
        }
        assert!(since.elapsed().as_secs() < 30, "{text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked: Value = browser.run("return location.search").await;
    assert!(asked.as_str().unwrap_or_default().contains("find=one"));
}
