//! A site's files and its live log: by the API and by the panel without scripts, and what hostile
//! names, forms and uploads become.

use std::time::Duration;

use serde_json::json;
use undine_model::{Bytes, SiteId, SitePath};
use undine_testkit::node::FakeNode;

use crate::panel::{Browser, Shown, customer, owner};
use crate::world::World;

const EVIL: &str = "<script>alert(1)<b>\r\nset-cookie: a=b\u{202e}.txt";

/// A node with a server and a customer's site that was never deployed.
struct Place {
    world: World,
    node: FakeNode,
    account: String,
    token: String,
    site: String,
}

impl Place {
    async fn new() -> Self {
        let world = World::new().await;
        let node = world.node("node-1", Bytes::gib(8)).await;
        world.server("web-1", "web-php").await;
        let (account, token) = world.account("demo").await;
        let site = world.site("one.localhost", &account, "web-1", "php").await;
        Self {
            world,
            node,
            account,
            token,
            site,
        }
    }

    fn url(&self, rest: &str) -> String {
        format!(
            "http://{}/v1/sites/{}/{rest}",
            self.world.instances[0].api, self.site
        )
    }

    async fn put(&self, path: &str, mark: &str, body: Vec<u8>) -> reqwest::Response {
        reqwest::Client::new()
            .put(self.url(&format!("files/content?path={path}")))
            .bearer_auth(&self.token)
            .header("if-match", mark)
            .body(body)
            .send()
            .await
            .unwrap()
    }

    async fn get(&self, rest: &str) -> reqwest::Response {
        let request = reqwest::Client::new().get(self.url(rest));
        request.bearer_auth(&self.token).send().await.unwrap()
    }

    /// What the fake server's site has there.
    fn real(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.node.state();
        let mut guests = state.servers.values();
        let site: SiteId = self.site.parse().unwrap();
        let files = guests.find_map(|server| server.guest.files.get(&site))?;
        files.all.get(&path.parse::<SitePath>().unwrap())?.clone()
    }

    /// A file that a program of the site made, with a name that nobody else could give.
    fn plant(&self, path: &str) {
        let mut state = self.node.state();
        let server = state.servers.values_mut().next().unwrap();
        let files = server
            .guest
            .files
            .entry(self.site.parse().unwrap())
            .or_default();
        files
            .all
            .insert(path.parse().unwrap(), Some(b"<b>x</b>".to_vec()));
    }

    async fn actions(&self) -> Vec<String> {
        let audit = self.world.get("/v1/audit?limit=100").await.expect(200);
        let rows = audit.body["items"].as_array().unwrap().iter();
        rows.map(|row| row["action"].as_str().unwrap().to_owned())
            .filter(|action| action.starts_with("file.") || action.starts_with("release."))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_file_is_on_the_site_and_comes_back_as_it_went() {
    let place = Place::new().await;
    let content: Vec<u8> = (0..2_500_000_u32).map(|n| (n % 251) as u8).collect();
    let put = place.put("current/big.bin", "*", content.clone()).await;
    assert_eq!(put.status(), 200);
    let tag = put.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(place.real("current/big.bin").unwrap(), content);
    let site = place.world.get(&format!("/v1/sites/{}", place.site)).await;
    assert!(site.body["current_release"].is_string(), "{site:?}");

    let got = place.get("files/content?path=current/big.bin").await;
    assert_eq!(got.headers()["etag"], tag.as_str());
    assert_eq!(got.headers()["content-length"], "2500000");
    assert_eq!(got.headers()["x-content-type-options"], "nosniff");
    assert_eq!(got.bytes().await.unwrap(), content);
    let list: serde_json::Value = place.get("files?path=current").await.json().await.unwrap();
    assert_eq!(list["items"][0]["path"], "current/big.bin");
    assert_eq!(list["items"][0]["size"], 2_500_000);

    assert_eq!(
        place
            .put("current/big.bin", &tag, b"new".to_vec())
            .await
            .status(),
        200
    );
    let stale = place.put("current/big.bin", &tag, b"old".to_vec()).await;
    assert_eq!(stale.status(), 412);
    assert_eq!(place.real("current/big.bin").unwrap(), b"new");
    let there = place.put("current/big.bin&new=true", "*", Vec::new()).await;
    assert_eq!(there.status(), 409);
    assert_eq!(
        place.put("current/empty", "*", Vec::new()).await.status(),
        200
    );
    assert_eq!(place.real("current/empty").unwrap(), b"");
    let actions = place.actions().await;
    let count = |wanted: &str| actions.iter().filter(|it| *it == wanted).count();
    assert_eq!(
        (
            count("release.begin"),
            count("file.put"),
            count("file.read")
        ),
        (1, 3, 1),
        "{actions:?}"
    );
    // Nothing that was refused waits in the server.
    let state = place.node.state();
    let guest = &state.servers.values().next().unwrap().guest;
    assert!(guest.files.values().all(|files| files.uploads.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_first_files_at_once_are_both_on_the_site() {
    let place = Place::new().await;
    let (one, two) = tokio::join!(
        place.put("current/one", "*", b"1".to_vec()),
        place.put("current/two", "*", b"2".to_vec()),
    );
    assert_eq!(
        (one.status(), two.status()),
        (reqwest::StatusCode::OK, reqwest::StatusCode::OK)
    );
    assert!(place.real("current/one").is_some() && place.real("current/two").is_some());
    let releases = place
        .get("releases")
        .await
        .json::<serde_json::Value>()
        .await
        .unwrap();
    assert_eq!(releases["items"].as_array().unwrap().len(), 1, "{releases}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_lead_elsewhere_are_refused_by_name() {
    let place = Place::new().await;
    for path in [
        "../../etc/passwd",
        "current/../../etc",
        "%2fetc%2fpasswd",
        "current%2f..%2f..%2fx",
        "current/a%00b",
        "releases/x",
        "current//x",
    ] {
        for rest in ["files", "files/content"] {
            let answer = place.get(&format!("{rest}?path={path}")).await;
            assert_eq!(answer.status(), 422, "{rest} {path}");
            let problem: serde_json::Value = answer.json().await.unwrap();
            assert_eq!(problem["field"], "path", "{problem}");
            assert!(problem["remedy"].is_string());
        }
        assert_eq!(
            place.put(path, "*", b"x".to_vec()).await.status(),
            422,
            "{path}"
        );
    }
    for name in ["a%0Ab", "a%E2%80%AEb", ".undine-upload-x", "%20a"] {
        let answer = place
            .put(&format!("current/{name}"), "*", b"x".to_vec())
            .await;
        assert_eq!(answer.status(), 422, "{name}");
    }
    let missing = place.get("files/content?path=current/none").await;
    assert_eq!(missing.status(), 404);
    assert!(
        place
            .actions()
            .await
            .iter()
            .all(|it| !it.starts_with("file."))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_on_the_way_are_made_when_asked_for() {
    let place = Place::new().await;
    let path = "current/css/fonts/a.woff";
    let refused = place.put(path, "*", b"x".to_vec()).await;
    assert_eq!(refused.status(), 404);
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["field"], "path", "{problem}");
    assert!(
        problem["remedy"].as_str().unwrap().contains("parents"),
        "{problem}"
    );
    for content in [&b"one"[..], b"two"] {
        let asked = format!("{path}&parents=true");
        let put = place.put(&asked, "*", content.to_vec()).await;
        assert_eq!(put.status(), 200);
        assert_eq!(place.real(path).as_deref(), Some(content));
    }
    for hostile in [
        "current/../../x/y&parents=true",
        "releases/a/b&parents=true",
    ] {
        let refused = place.put(hostile, "*", b"x".to_vec()).await;
        assert_eq!(refused.status(), 422, "{hostile}");
    }
    let odd = place
        .put("current/a/b&parents=perhaps", "*", Vec::new())
        .await;
    assert_eq!(odd.status(), 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused_before_it_is_sent() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let place = Place::new().await;
    let mut line = tokio::net::TcpStream::connect(place.world.instances[0].api)
        .await
        .unwrap();
    let head = format!(
        "PUT /v1/sites/{}/files/content?path=current/bomb HTTP/1.1\r\nhost: x\r\nif-match: *\r\n\
         authorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        place.site,
        place.token,
        undine_api::public::MAX_FILE + 1
    );
    line.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(10), line.read_exact(&mut answer));
    read.await.expect("an answer at once").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert!(place.real("current/bomb").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_leaves_nothing() {
    use tokio::io::AsyncWriteExt as _;
    let place = Place::new().await;
    assert_eq!(
        place.put("current/a", "*", b"old".to_vec()).await.status(),
        200
    );
    let mut line = tokio::net::TcpStream::connect(place.world.instances[0].api)
        .await
        .unwrap();
    let head = format!(
        "PUT /v1/sites/{}/files/content?path=current/a HTTP/1.1\r\nhost: x\r\nif-match: *\r\n\
         authorization: Bearer {}\r\ncontent-length: 3000000\r\n\r\n",
        place.site, place.token
    );
    line.write_all(head.as_bytes()).await.unwrap();
    line.write_all(&vec![b'x'; 1_500_000]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(line);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(place.real("current/a").unwrap(), b"old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_name_neither_ends_its_header_nor_becomes_a_page() {
    let place = Place::new().await;
    assert_eq!(
        place
            .put("current/index.html", "*", b"x".to_vec())
            .await
            .status(),
        200
    );
    place.plant(&format!("current/{EVIL}"));
    let list: serde_json::Value = place.get("files?path=current").await.json().await.unwrap();
    let mut items = list["items"].as_array().unwrap().iter();
    let path = items.find(|it| it["name"] == EVIL).unwrap()["path"]
        .as_str()
        .unwrap();
    let coded: String = path.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let got = place.get(&format!("files/content?path={coded}")).await;
    assert_eq!(got.status(), 200);
    assert!(!got.headers().contains_key("set-cookie"));
    let said = got.headers()["content-disposition"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        said.starts_with("attachment; filename=\"_script_"),
        "{said}"
    );
    assert!(said.contains("filename*=UTF-8''%3Cscript%3E"), "{said}");
    assert_eq!(got.headers()["content-type"], "application/octet-stream");

    let mut owner = owner(&place.world).await;
    let mut own = customer(&place.world, &mut owner, &place.account, "eve@example.com").await;
    let page = own
        .get(&format!("/sites/{}/files?path=current", place.site))
        .await;
    assert_eq!(page.status, 200);
    assert!(!page.text.contains("<script>alert"), "{}", page.text);
    assert!(!page.text.contains('\u{202e}'), "{}", page.text);
    assert!(page.text.contains("\\u{202e}"), "{}", page.text);
    let got = own
        .get(&format!("/sites/{}/files/get?path={coded}", place.site))
        .await;
    assert_eq!((got.status, got.text.as_str()), (200, "<b>x</b>"));
    assert_eq!(got.headers["content-type"], "application/octet-stream");
    assert!(
        got.headers["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("'none'")
    );
    // It can be renamed and removed all the same.
    let of = hex::encode(path);
    let fields = [("of", of.as_str()), ("name", "tame.txt")];
    let moved = own
        .post(&format!("/sites/{}/files/move", place.site), &fields)
        .await;
    assert_eq!(moved.status, 303, "{moved:?}");
    assert!(place.real("current/tame.txt").is_some());
}

/// The owner of the site in a browser without scripts.
async fn browser(place: &Place) -> Browser {
    let mut owner = owner(&place.world).await;
    customer(&place.world, &mut owner, &place.account, "ann2@example.com").await
}

async fn upload(own: &mut Browser, place: &Place, more: &[(&str, Option<&str>, &[u8])]) -> Shown {
    let csrf = own.csrf().await;
    let mut parts: Vec<(&str, Option<&str>, &[u8])> =
        vec![("csrf", None, csrf.as_bytes()), ("path", None, b"current")];
    parts.extend_from_slice(more);
    own.parcel(&format!("/sites/{}/files/upload", place.site), &parts)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_uploaded_edited_renamed_packed_and_removed_without_scripts() {
    let place = Place::new().await;
    let mut own = browser(&place).await;
    let files = format!("/sites/{}/files", place.site);
    let top = own.get(&files).await;
    assert!(
        top.text.contains("?path=current") && top.text.contains("?path=shared"),
        "{}",
        top.text
    );
    let done = upload(
        &mut own,
        &place,
        &[
            ("file", Some("C:\\docs\\index.html"), b"hello"),
            ("file", Some("Gr\u{fc}\u{df}e.txt"), b"a\r\nb\r\n"),
        ],
    )
    .await;
    assert_eq!(
        (done.status, done.to.as_str()),
        (303, format!("{files}?path=current").as_str())
    );
    assert_eq!(place.real("current/index.html").unwrap(), b"hello");
    // Not a second time unless that was ticked.
    let again = [("file", Some("index.html"), &b"again"[..])];
    let refused = upload(&mut own, &place, &again).await;
    assert_eq!(refused.status, 409);
    assert!(refused.text.contains("Replace files"), "{}", refused.text);
    let ticked = [("replace", None, &b"on"[..]), again[0]];
    assert_eq!(upload(&mut own, &place, &ticked).await.status, 303);
    assert_eq!(place.real("current/index.html").unwrap(), b"again");
    assert_eq!(
        upload(&mut own, &place, &[("file", Some(""), b"")])
            .await
            .status,
        422
    );

    edit(&mut own, &place, &files).await;
    let post = [("path", "current"), ("name", "css"), ("what", "folder")];
    assert_eq!(
        own.post(&format!("{files}/folder"), &post).await.status,
        303
    );
    let of = hex::encode("current/index.html");
    let fields = [("of", of.as_str()), ("name", "current/css/home.html")];
    let moved = own.post(&format!("{files}/move"), &fields).await;
    assert_eq!(moved.to, format!("{files}?path=current/css"), "{moved:?}");
    let pick = format!("pick:{}", hex::encode("current/css"));
    let fields = [
        ("path", "current"),
        (pick.as_str(), "on"),
        ("archive", "all"),
    ];
    assert_eq!(
        own.post(&format!("{files}/pack"), &fields).await.status,
        303
    );
    assert!(place.real("current/all.zip").is_some());
    let fields = [("path", "current/all.zip")];
    assert_eq!(
        own.post(&format!("{files}/unpack"), &fields).await.status,
        303
    );
    assert!(place.real("current/unpacked").is_some());

    let fields = [("path", "current"), (pick.as_str(), "on")];
    let asked = own.post(&format!("{files}/remove"), &fields).await;
    assert_eq!(asked.status, 200);
    assert!(
        asked.text.contains("Remove for good?") && place.real("current/css/home.html").is_some()
    );
    let sure = [fields[0], fields[1], ("sure", "yes")];
    assert_eq!(
        own.post(&format!("{files}/remove"), &sure).await.status,
        303
    );
    assert!(place.real("current/css/home.html").is_none());
    assert_eq!(
        own.post(&format!("{files}/remove"), &sure).await.status,
        303,
        "sent twice"
    );
    let nothing = own
        .post(&format!("{files}/remove"), &[("path", "current")])
        .await;
    assert_eq!(nothing.status, 422);
}

/// A text is opened, saved, refused when somebody else was quicker, and saved all the same.
async fn edit(own: &mut Browser, place: &Place, files: &str) {
    let path = "current/Gr\u{fc}\u{df}e.txt";
    let page = own.get(&format!("{files}/edit?path={path}")).await;
    assert!(page.text.contains("name=\"crlf\""), "{}", page.text);
    let mark = page.text.split("name=\"mark\" value=\"").nth(1).unwrap();
    let mark = mark.split('"').next().unwrap().to_owned();
    let csrf = own.csrf().await;
    let save = |text: &'static str, anyway: bool| {
        let mut parts = vec![
            ("csrf", None, csrf.clone().into_bytes()),
            ("path", None, path.as_bytes().to_vec()),
            ("mark", None, mark.clone().into_bytes()),
            ("crlf", None, b"yes".to_vec()),
            ("text", None, text.as_bytes().to_vec()),
        ];
        if anyway {
            parts.push(("anyway", None, b"yes".to_vec()));
        }
        parts
    };
    let mut send = async |parts: Vec<(&'static str, Option<&'static str>, Vec<u8>)>| {
        let parts: Vec<_> = parts
            .iter()
            .map(|(n, f, b)| (*n, *f, b.as_slice()))
            .collect();
        own.parcel(&format!("{files}/edit"), &parts).await
    };
    assert_eq!(send(save("a\r\nc\r\n", false)).await.status, 303);
    assert_eq!(place.real(path).unwrap(), b"a\r\nc\r\n");
    let refused = send(save("mine </textarea><script>", false)).await;
    assert_eq!(refused.status, 412, "{refused:?}");
    assert!(
        refused
            .text
            .contains("mine &#60;/textarea&#62;&#60;script&#62;"),
        "{}",
        refused.text
    );
    assert_eq!(send(save("mine", true)).await.status, 303);
    assert_eq!(place.real(path).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_with_files_that_is_not_ours_writes_nothing() {
    let place = Place::new().await;
    let mut own = browser(&place).await;
    let csrf = own.csrf().await;
    let path = format!("/sites/{}/files/upload", place.site);
    let file = ("file", Some("evil.html"), &b"evil"[..]);
    let folder = ("path", None, &b"current"[..]);
    for parts in [
        vec![folder, file],
        vec![("csrf", None, b"guess"), folder, file],
        // Its secret comes too late: who knows what was read before.
        vec![folder, file, ("csrf", None, csrf.as_bytes())],
    ] {
        assert_eq!(own.parcel(&path, &parts).await.status, 403);
    }
    let mut stranger = {
        let (other, _) = place.world.account("stranger").await;
        let mut owner = Browser::new(&place.world, 0);
        let login = [
            ("email", "ann@example.com"),
            ("password", crate::panel::GOOD),
        ];
        assert_eq!(owner.bare("/login", &login, &[]).await.status, 303);
        customer(&place.world, &mut owner, &other, "eve@example.com").await
    };
    let csrf = stranger.csrf().await;
    let parts = [("csrf", None, csrf.as_bytes()), folder, file];
    assert_eq!(stranger.parcel(&path, &parts).await.status, 404);
    assert!(place.real("current/evil.html").is_none());
    for name in ["..", "a\u{202e}b", ".undine-x"] {
        let refused = upload(&mut own, &place, &[("file", Some(name), b"x")]).await;
        assert_eq!(refused.status, 422, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_watched_as_it_is_written_and_only_what_is_looked_for() {
    let place = Place::new().await;
    let say = |line: &str| place.node.logs(line);
    say("GET /old");
    say("GET /<script>alert(1)</script>\u{1b}[2J");
    let mut stream = place.get("logs/stream?find=GET").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let mut until = async |wanted: &str| {
        while !text.contains(wanted) {
            let piece = tokio::time::timeout(Duration::from_secs(10), stream.chunk()).await;
            let piece = piece.unwrap_or_else(|_| panic!("no {wanted}: {text}"));
            text.push_str(&String::from_utf8_lossy(&piece.unwrap().unwrap()));
        }
        text.clone()
    };
    until("GET /old").await;
    say("POST /other");
    say("GET /new");
    let all = until("GET /new").await;
    assert!(!all.contains("POST"), "{all}");
    assert!(all.contains("id: 4") || all.contains("id:4"), "{all}");
    let long = place
        .get(&format!("logs/stream?find={}", "x".repeat(201)))
        .await;
    assert_eq!(long.status(), 422);

    let mut own = browser(&place).await;
    let page = own
        .get(&format!("/sites/{}/log?find=GET", place.site))
        .await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("GET /new") && !page.text.contains("POST"));
    assert!(
        !page.text.contains("<script>alert") && page.text.contains("\\u{1b}"),
        "{}",
        page.text
    );
    assert!(
        page.text
            .contains(&format!("/sites/{}/log/live?log=access", place.site))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_said_so_and_nothing_is_lost() {
    let place = Place::new().await;
    assert_eq!(
        place.put("current/a", "*", b"a".to_vec()).await.status(),
        200
    );
    place.node.fail_next("guest files", 507, "guest-full");
    let full = place.put("current/b", "*", b"b".to_vec()).await;
    assert_eq!(full.status(), 507);
    let problem: serde_json::Value = full.json().await.unwrap();
    assert_eq!(problem["type"], "no-room");
    assert!(place.real("current/b").is_none());
    let server = place.world.get("/v1/servers").await.text("/items/0/id");
    let stopped = place
        .world
        .post(&format!("/v1/servers/{server}/stop"), json!({}))
        .await;
    place.world.done(&stopped.expect(202)).await;
    for rest in ["files", "files/content?path=current/a", "logs/stream"] {
        assert_eq!(place.get(rest).await.status(), 503, "{rest}");
    }
}
