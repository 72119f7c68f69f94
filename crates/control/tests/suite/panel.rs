//! The panel at the wire: who comes in, who does not, and what hostile input becomes.

use std::time::Duration;

use reqwest::redirect::Policy;
use serde_json::json;
use undine_control::pages::{TABLE, Who};
use undine_model::Bytes;

use crate::world::World;

/// A browser without scripts: it keeps its cookies and follows nothing.
pub struct Browser {
    http: reqwest::Client,
    base: String,
    pub cookie: String,
    /// That its password was right, until its second step.
    pub half: String,
}

/// What it was shown.
#[derive(Debug)]
pub struct Shown {
    pub status: u16,
    pub to: String,
    pub text: String,
    pub headers: reqwest::header::HeaderMap,
}

pub const GOOD: &str = "lamp harbour sixteen fern";

impl Browser {
    pub fn new(world: &World, instance: usize) -> Self {
        let http = reqwest::Client::builder().redirect(Policy::none());
        Self {
            http: http.build().unwrap(),
            base: format!("http://{}", world.instances[instance].api),
            cookie: String::new(),
            half: String::new(),
        }
    }

    async fn read(&mut self, request: reqwest::RequestBuilder) -> Shown {
        let cookies = format!("undine={}; undine-half={}", self.cookie, self.half);
        let request = request.header("cookie", cookies);
        let answer = request
            .timeout(Duration::from_secs(30))
            .send()
            .await
            .unwrap();
        let header = |name: &str| {
            let value = answer.headers().get(name);
            value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
        };
        for set in answer.headers().get_all("set-cookie") {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            match pair.split_once('=').unwrap() {
                ("undine", secret) => self.cookie = secret.to_owned(),
                ("undine-half", note) => self.half = note.to_owned(),
                other => panic!("{other:?}"),
            }
        }
        Shown {
            status: answer.status().as_u16(),
            to: header("location"),
            headers: answer.headers().clone(),
            text: String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned(),
        }
    }

    pub async fn get(&mut self, path: &str) -> Shown {
        let request = self.http.get(format!("{}{path}", self.base));
        self.read(request).await
    }

    /// The same as if it had come to this host name.
    pub async fn get_as(&mut self, path: &str, host: &str) -> Shown {
        let request = self.http.get(format!("{}{path}", self.base));
        self.read(request.header("host", host)).await
    }

    /// Sends these bytes.
    pub async fn raw(&mut self, path: &str, kind: &str, body: Vec<u8>) -> Shown {
        let request = self.http.post(format!("{}{path}", self.base));
        self.read(request.header("content-type", kind).body(body))
            .await
    }

    /// Sends a form with exactly these fields.
    pub async fn bare(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Shown {
        let mut body = url_form(fields);
        if body.is_empty() {
            body.push_str("none=");
        }
        let mut request = self
            .http
            .post(format!("{}{path}", self.base))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.read(request).await
    }

    /// Sends a form as its page would.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Shown {
        let csrf = self.csrf().await;
        let mut fields = fields.to_vec();
        fields.push(("csrf", &csrf));
        self.bare(path, &fields, &[]).await
    }

    /// Sends a form that carries files: name, name of the file, bytes; in exactly this order.
    pub async fn parcel(&mut self, path: &str, parts: &[(&str, Option<&str>, &[u8])]) -> Shown {
        let mut body = Vec::new();
        for (name, file, bytes) in parts {
            let file = file.map_or(String::new(), |file| format!("; filename=\"{file}\""));
            let head = format!(
                "--frontier\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(bytes);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--frontier--\r\n");
        let request = self
            .http
            .post(format!("{}{path}", self.base))
            .header("content-type", "multipart/form-data; boundary=frontier")
            .body(body);
        self.read(request).await
    }

    pub async fn csrf(&mut self) -> String {
        let page = self.get("/me").await.text;
        let after = page
            .split("name=\"csrf\" value=\"")
            .nth(1)
            .unwrap_or_default();
        after.split('"').next().unwrap().to_owned()
    }

    /// Comes in by a one-time link.
    pub async fn welcome(&mut self, link: &str, email: &str) -> Shown {
        let path = format!("/welcome/{}", link.trim().rsplit('/').next().unwrap());
        let fields = [("email", email), ("name", "Ann Lee"), ("password", GOOD)];
        self.bare(&path, &fields, &[]).await
    }
}

fn url_form(fields: &[(&str, &str)]) -> String {
    let coded = |text: &str| -> String {
        text.bytes()
            .map(|b| match b {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => char::from(b).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    let pair = |(name, value): &(&str, &str)| format!("{}={}", coded(name), coded(value));
    fields.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// The owner, logged in by the link that `init` left.
pub async fn owner(world: &World) -> Browser {
    let link = std::fs::read_to_string(world.instances[0].state.path().join("owner-link")).unwrap();
    let mut browser = Browser::new(world, 0);
    let shown = browser.welcome(&link, "ann@example.com").await;
    assert_eq!((shown.status, shown.to.as_str()), (303, "/"), "{shown:?}");
    browser
}

pub fn link_in(page: &str) -> String {
    let after = page
        .split("/welcome/")
        .nth(1)
        .unwrap_or_else(|| panic!("no link: {page}"));
    after.split('<').next().unwrap().to_owned()
}

/// The owner of a customer's account, logged in.
pub async fn customer(world: &World, owner: &mut Browser, account: &str, email: &str) -> Browser {
    let shown = owner
        .post(&format!("/accounts/{account}/invite"), &[])
        .await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let mut browser = Browser::new(world, 0);
    let shown = browser.welcome(&link_in(&shown.text), email).await;
    assert_eq!(shown.status, 303, "{shown:?}");
    browser
}

fn url(path: &str, id: &str) -> String {
    path.replace("{id}", id)
        .replace("{secret}", "guess")
        .replace("{name}", "guess")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_s_link_works_once_and_log_in_and_out_work_after_it() {
    let world = World::new().await;
    let link = std::fs::read_to_string(world.instances[0].state.path().join("owner-link")).unwrap();
    let mut first = Browser::new(&world, 0);
    let path = format!("/welcome/{}", link.trim().rsplit('/').next().unwrap());
    let weak = [
        ("email", "ann@example.com"),
        ("name", "Ann"),
        ("password", "password123"),
    ];
    let shown = first.bare(&path, &weak, &[]).await;
    assert_eq!(shown.status, 422, "{shown:?}");
    assert_eq!(first.cookie, "");
    let mut first = owner(&world).await;
    assert_eq!(first.get("/").await.to, "/cluster");
    assert_eq!(first.get("/cluster").await.status, 200);
    let again = Browser::new(&world, 0)
        .welcome(&link, "bob@example.com")
        .await;
    assert_eq!(again.status, 410, "{again:?}");

    let old = first.cookie.clone();
    assert_eq!(first.post("/logout", &[]).await.to, "/login");
    first.cookie = old;
    assert_eq!(
        first.get("/cluster").await.to,
        "/login",
        "the session is gone, not only its cookie"
    );
    let fields = [("email", "Ann@Example.com"), ("password", GOOD)];
    let planted = first.cookie.clone();
    assert_eq!(first.bare("/login", &fields, &[]).await.status, 303);
    assert_ne!(first.cookie, planted, "a new session has a new secret");
    assert_eq!(first.get("/cluster").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_page_or_a_form_without_a_session() {
    let world = World::new().await;
    let mut nobody = Browser::new(&world, 0);
    nobody.cookie = "guess".to_owned();
    let id = "018bcfe5-6800-7101-8101-010101010101";
    for it in TABLE.iter().filter(|it| it.who != Who::Anybody) {
        let path = url(it.path, id);
        let shown = match it.method.as_str() {
            "GET" => nobody.get(&path).await,
            _ => nobody.bare(&path, &[], &[]).await,
        };
        let wanted = if it.method == "GET" { 303 } else { 401 };
        assert_eq!(shown.status, wanted, "{} {}", it.method, it.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_sees_nothing_of_another_s_and_nothing_of_the_provider_s() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (victim, _) = world.account("victim").await;
    let (other, _) = world.account("stranger").await;
    let site = world.site("one.localhost", &victim, "web-1", "php").await;
    let mut owner = owner(&world).await;
    let mut stranger = customer(&world, &mut owner, &other, "eve@example.com").await;
    let operation = world.get("/v1/operations").await.text("/items/0/id");
    for it in TABLE
        .iter()
        .filter(|it| matches!(it.who, Who::Provider | Who::Seller))
    {
        let path = url(it.path, &site);
        let shown = match it.method.as_str() {
            "GET" => stranger.get(&path).await,
            _ => stranger.post(&path, &[("confirm", "one.localhost")]).await,
        };
        assert_eq!(shown.status, 403, "{} {}", it.method, it.path);
    }
    let release = "018bcfe5-6800-7101-8101-010101010101";
    for it in TABLE
        .iter()
        .filter(|it| it.who == Who::Person && it.path.contains("{id}"))
    {
        let id = if it.path.starts_with("/operations") {
            &operation
        } else {
            &site
        };
        let fields = [
            ("confirm", "one.localhost"),
            ("name", "shop"),
            ("release", release),
        ];
        let shown = match it.method.as_str() {
            "GET" => stranger.get(&url(it.path, id)).await,
            _ => stranger.post(&url(it.path, id), &fields).await,
        };
        assert_eq!(
            shown.status, 404,
            "{} {}: {}",
            it.method, it.path, shown.text
        );
    }
    for list in ["/sites", "/operations", "/audit", "/people", "/me"] {
        let shown = stranger.get(list).await;
        assert_eq!(shown.status, 200, "{list}");
        assert!(
            !shown.text.contains("one.localhost") && !shown.text.contains(&victim),
            "{list}"
        );
    }
    assert_eq!(
        stranger.post("/act", &[("account", &victim)]).await.status,
        404
    );
    assert_eq!(
        world.get(&format!("/v1/sites/{site}")).await.text("/state"),
        "active"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_other_sites_are_refused_and_so_are_forms_without_their_secret() {
    let world = World::new().await;
    let mut owner = owner(&world).await;
    let csrf = owner.csrf().await;
    let fields = [
        ("name", "forged"),
        ("plan", "standard"),
        ("csrf", csrf.as_str()),
    ];
    for headers in [
        [("origin", "https://evil.example")],
        [("origin", "null")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
    ] {
        assert_eq!(
            owner.bare("/accounts", &fields, &headers).await.status,
            403,
            "{headers:?}"
        );
    }
    for it in TABLE
        .iter()
        .filter(|it| it.method == "POST" && it.who != Who::Anybody)
    {
        let path = url(it.path, "018bcfe5-6800-7101-8101-010101010101");
        let shown = owner.bare(&path, &[("csrf", "guess")], &[]).await;
        assert_eq!(shown.status, 403, "{}: {shown:?}", it.path);
    }
    assert_eq!(world.get("/v1/accounts").await.body["items"], json!([]));
    assert_eq!(owner.bare("/accounts", &fields, &[]).await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_type_is_shown_as_text() {
    const EVIL: &str = "\"><script>alert(1)</script><img src=x onerror=alert(2)>";
    let world = World::new().await;
    let mut owner = owner(&world).await;
    let link = owner.post("/people", &[("role", "operator")]).await;
    let mut evil = Browser::new(&world, 0);
    let path = format!("/welcome/{}", link_in(&link.text));
    let fields = [
        ("email", "eve@example.com"),
        ("name", EVIL),
        ("password", GOOD),
    ];
    assert_eq!(evil.bare(&path, &fields, &[]).await.status, 303);
    let login = [("email", EVIL), ("password", "wrong but long")];
    let site = [("domain", EVIL), ("account", EVIL), ("runtime", EVIL)];
    let shown = [
        owner.get("/people").await,
        evil.get("/me").await,
        evil.get("/cluster").await,
        evil.post("/sites/new", &site).await,
        evil.get(&format!("/audit?action={}", "%22%3E%3Cscript%3E"))
            .await,
        evil.post("/servers/new", &[("name", EVIL), ("profile", EVIL)])
            .await,
        Browser::new(&world, 0).bare("/login", &login, &[]).await,
    ];
    for page in shown {
        assert!(
            !page.text.contains("<script>") && !page.text.contains("<img"),
            "{}",
            page.text
        );
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(page.headers["x-frame-options"], "DENY");
        assert_eq!(page.headers["cache-control"], "no-store");
    }
    assert!(
        owner
            .get("/people")
            .await
            .text
            .contains("&#34;&#62;&#60;script&#62;")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_compressed_for_browsers_that_take_it_and_its_form_s_secret_is_always_another() {
    let world = World::new().await;
    let mut owner = owner(&world).await;
    let plain = owner.get("/me").await;
    assert!(!plain.headers.contains_key("content-encoding"));
    let request = owner.http.get(format!("{}/me", owner.base));
    let request = request.header("accept-encoding", "gzip, br");
    let request = request.header("cookie", format!("undine={}", owner.cookie));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    assert_eq!(answer.headers()["vary"], "accept-encoding");
    let bytes = answer.bytes().await.unwrap();
    assert_eq!(bytes[..2], [0x1f, 0x8b]);
    assert!(
        bytes.len() < plain.text.len(),
        "{} of {} bytes",
        bytes.len(),
        plain.text.len()
    );

    let (one, two) = (owner.csrf().await, owner.csrf().await);
    assert_ne!(one, two);
    let mut other = Browser::new(&world, 0);
    let login = [("email", "ann@example.com"), ("password", GOOD)];
    assert_eq!(other.bare("/login", &login, &[]).await.status, 303);
    let fields = [("name", "one"), ("plan", "standard"), ("csrf", &one)];
    let shown = other.bare("/accounts", &fields, &[]).await;
    assert_eq!(shown.status, 403, "another session's secret: {shown:?}");
    assert_eq!(owner.bare("/accounts", &fields, &[]).await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_with_tricks_lead_nowhere_else() {
    let world = World::new().await;
    let mut owner = owner(&world).await;
    for path in [
        "/nodes/..%2f..%2f%2fevil.example/use",
        "/sites/%0d%0aset-cookie:%20a=b/suspend",
        "/sites/%2f%2fevil.example/retry",
        "/servers/evil.example/start",
    ] {
        let shown = owner.post(path, &[("state", "ready")]).await;
        assert_eq!(shown.status, 404, "{path}: {shown:?}");
        assert_eq!(shown.to, "", "{path}");
        assert!(!shown.headers.contains_key("set-cookie"), "{path}");
    }
    assert_eq!(
        Browser::new(&world, 0)
            .get("/login?next=https://evil.example")
            .await
            .status,
        200
    );
    let fields = [
        ("email", "ann@example.com"),
        ("password", GOOD),
        ("next", "//evil.example"),
    ];
    let shown = Browser::new(&world, 0)
        .bare("/login?next=//evil.example", &fields, &[])
        .await;
    assert_eq!(shown.to, "/");
    let cookie = shown.headers["set-cookie"].to_str().unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"),
        "{cookie}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lives_on_when_its_instance_dies_and_can_be_ended_elsewhere() {
    let database = undine_testkit::postgres::TestDatabase::new();
    let mut world = World::on(Some(database.url().to_owned())).await;
    world.another_instance().await;
    let mut first = owner(&world).await;
    let mut second = Browser::new(&world, 1);
    second.cookie = first.cookie.clone();
    world.instances[0].kill();
    assert_eq!(second.get("/cluster").await.status, 200);
    let fields = [("email", "ann@example.com"), ("password", GOOD)];
    let mut phone = Browser::new(&world, 1);
    assert_eq!(phone.bare("/login", &fields, &[]).await.status, 303);
    let page = phone.get("/me").await.text;
    let id = page
        .split("/me/sessions/")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let path = format!("/me/sessions/{id}/end");
    assert_eq!(phone.post(&path, &[]).await.status, 303);
    assert_eq!(second.get("/cluster").await.to, "/login");
    assert_eq!(phone.get("/cluster").await.status, 200);
    first.cookie.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_and_the_right_password_still_counts_elsewhere() {
    let world = World::new().await;
    owner(&world).await;
    let mut guesser = Browser::new(&world, 0);
    let mut last = 0;
    // The waits double: however slow the machine is, one of them is longer than a try.
    for _ in 0..30 {
        let fields = [
            ("email", "ann@example.com"),
            ("password", "guess guess guess"),
        ];
        last = guesser.bare("/login", &fields, &[]).await.status;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
    let place = undine_control::app::sessions::Place {
        ip: Some("192.0.2.7".to_owned()),
        ..Default::default()
    };
    let control = &world.instances[0].control;
    let elsewhere =
        undine_control::app::sessions::log_in(control, "ann@example.com", GOOD, &place).await;
    assert!(elsewhere.is_ok(), "nobody is locked out from elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_s_settings_are_changed_by_one_form_that_keeps_what_was_typed() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    let site = world.site("one.localhost", &account, "web-1", "php").await;
    let mut owner = owner(&world).await;
    let mut baker = customer(&world, &mut owner, &account, "baker@example.com").await;
    let path = format!("/sites/{site}/settings");
    let page = baker.get(&path).await;
    let version = page.text.split("name=\"version\" value=\"").nth(1).unwrap();
    let version = version.split('"').next().unwrap().to_owned();
    let fields = |env: &'static str, version: &str| {
        vec![
            ("version", version.to_owned()),
            ("aliases", "www.one.localhost".to_owned()),
            ("redirects", "/old https://example.com/new".to_owned()),
            ("php", "memory_limit = 128M".to_owned()),
            ("env", env.to_owned()),
            ("page_cache", "on".to_owned()),
        ]
    };
    let sent = async |browser: &mut Browser, fields: Vec<(&str, String)>| {
        let fields: Vec<_> = fields.iter().map(|(a, b)| (*a, b.as_str())).collect();
        browser.post(&path, &fields).await
    };
    let bad = sent(&mut baker, fields("A=1\nnonsense <b>", &version)).await;
    assert_eq!(bad.status, 422, "{bad:?}");
    assert!(
        bad.text.contains("Line 2") && bad.text.contains("nonsense &#60;b&#62;"),
        "{bad:?}"
    );
    let mut reserved = fields("A=1", &version);
    reserved[3].1 = "open_basedir = /".to_owned();
    let bad = sent(&mut baker, reserved).await;
    assert_eq!(bad.status, 422, "{bad:?}");
    let good = sent(&mut baker, fields("A=1\nB=x=y", &version)).await;
    assert_eq!(good.status, 303, "{good:?}");
    let old = sent(&mut baker, fields("A=2", &version)).await;
    assert_eq!(old.status, 412, "somebody else changed it meanwhile");
    let shown = world.get(&format!("/v1/sites/{site}")).await;
    let settings = &shown.body["settings"];
    assert_eq!(settings["env"], json!({"A": "1", "B": "x=y"}));
    assert_eq!(
        settings["redirects"],
        json!({"/old": "https://example.com/new"})
    );
    assert_eq!(shown.body["aliases"], json!(["www.one.localhost"]));
    assert_eq!(settings["page_cache"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_shown_once_used_and_ended() {
    let world = World::new().await;
    let mut owner = owner(&world).await;
    let (account, _) = world.account("bakery").await;
    let mut baker = customer(&world, &mut owner, &account, "baker@example.com").await;
    let fields = [("name", "ci <b>"), ("may", "deploy"), ("days", "30")];
    let made = baker.post("/tokens", &fields).await;
    assert_eq!(made.status, 200, "{made:?}");
    let secret = made.text.split("aria-label=\"The token\">").nth(1).unwrap();
    let secret = secret.split('<').next().unwrap().to_owned();
    let list = baker.get("/tokens").await;
    assert!(!list.text.contains(&secret) && list.text.contains("ci &#60;b&#62;"));
    assert!(list.text.contains("in 30 days"), "{}", list.text);
    assert!(!owner.get("/tokens").await.text.contains(&secret));
    let used = world.send(0, &secret, "GET", "/v1/whoami", None, &[]).await;
    let used = used.expect(200);
    assert_eq!(used.text("/token/account"), account);
    assert_eq!(used.body["token"]["scopes"], json!(["deploy"]));
    let id = used.text("/token/id");
    assert_eq!(
        baker.post(&format!("/tokens/{id}/end"), &[]).await.status,
        303
    );
    let after = world.send(0, &secret, "GET", "/v1/whoami", None, &[]).await;
    after.expect(401);
    let wrong = [("name", "x"), ("may", "root"), ("days", "1")];
    assert_eq!(baker.post("/tokens", &wrong).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_grows_by_one_form_at_once_or_at_its_next_start() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    let server = world.server("web-1", "static").await;
    let mut owner = owner(&world).await;
    let page = format!("/servers/{server}");
    let sent = async |owner: &mut Browser, memory: &str, now: &str| {
        let shown = owner.get(&page).await.text;
        let version = shown.split("name=\"version\" value=\"").nth(1).unwrap();
        let version = version.split('"').next().unwrap().to_owned();
        let fields = [
            ("version", version.as_str()),
            ("memory_mib", memory),
            ("vcpus", "2"),
            ("cpu", "500"),
            ("replicas", "1"),
            ("importance", "7"),
            ("now", now),
        ];
        owner.post(&format!("{page}/size"), &fields).await
    };
    let refused = sent(&mut owner, "999999", "").await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(sent(&mut owner, "much", "").await.status, 422);
    assert_eq!(sent(&mut owner, "512", "").await.status, 303);
    let shown = world.get(&format!("/v1/servers/{server}")).await;
    assert_eq!(shown.body["memory"], 512 << 20);
    assert_eq!(shown.body["importance"], 7);
    assert!(world.get("/v1/operations").await.body["items"][0]["kind"] != "server.restart");
    assert_eq!(sent(&mut owner, "640", "on").await.status, 303);
    let newest = world.get("/v1/operations").await;
    assert_eq!(newest.text("/items/0/kind"), "server.restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn support_looks_changes_nothing_and_acts_for_accounts_with_a_banner_and_an_audit_row() {
    let world = World::new().await;
    let (account, _) = world.account("bakery").await;
    let mut owner = owner(&world).await;
    let link = link_in(&owner.post("/people", &[("role", "support")]).await.text);
    let mut support = Browser::new(&world, 0);
    support.welcome(&link, "sue@example.com").await;
    assert_eq!(support.get("/cluster").await.status, 200);
    let shown = support
        .post("/accounts", &[("name", "mine"), ("plan", "standard")])
        .await;
    assert_eq!(shown.status, 403, "{shown:?}");
    assert_eq!(
        support.post("/people", &[("role", "owner")]).await.status,
        403
    );
    assert_eq!(
        support.post("/act", &[("account", &account)]).await.status,
        303
    );
    let shown = support.get("/sites").await;
    assert!(
        shown.text.contains("You act for <b>bakery</b>"),
        "{}",
        shown.text
    );
    assert_eq!(support.get("/cluster").await.status, 403);
    assert!(support.get("/audit").await.text.contains("account.act_for"));
    assert_eq!(support.post("/act", &[]).await.status, 303);
    assert_eq!(support.get("/cluster").await.status, 200);
    let audit = world.get("/v1/audit").await.body.to_string();
    assert!(audit.contains("account.act_end"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_adds_a_site_by_one_form_and_it_answers() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    let mut owner = owner(&world).await;
    let mut baker = customer(&world, &mut owner, &account, "baker@example.com").await;
    assert_eq!(baker.get("/").await.to, "/sites");
    let shown = baker
        .post("/sites/new", &[("domain", "no domain"), ("runtime", "php")])
        .await;
    assert_eq!(shown.status, 422, "{shown:?}");
    assert!(shown.text.contains("no domain"), "what was typed stays");
    let shown = baker
        .post(
            "/sites/new",
            &[("domain", "aurora.localhost"), ("runtime", "php")],
        )
        .await;
    assert_eq!(shown.status, 303, "{shown:?}");
    let page = shown.to;
    let mut text = String::new();
    for _ in 0..200 {
        text = baker.get(&page).await.text;
        if text.contains(">answers<") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(text.contains(">answers<"), "{text}");
    let shown = baker
        .post(&format!("{page}/databases"), &[("name", "shop")])
        .await;
    assert!(shown.text.contains("shown only now"), "{}", shown.text);
    let shown = baker
        .post(&format!("{page}/delete"), &[("confirm", "aurora")])
        .await;
    assert_eq!(shown.status, 422);
    let audit = baker.get("/audit").await.text;
    assert!(
        audit.contains("person/") && audit.contains("site.create"),
        "{audit}"
    );
    for page in [
        "/cluster",
        "/servers",
        "/servers/new",
        "/join",
        "/accounts",
        "/sites",
        "/operations",
        "/audit",
        "/people",
        "/me",
    ] {
        let shown = owner.get(page).await;
        assert_eq!(shown.status, 200, "{page}: {}", shown.text);
        assert!(shown.text.len() < 100 << 10, "{page} is light");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_opened_from_its_page_once_its_server_has_had_it() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    let mut owner = owner(&world).await;
    let fails = async |bad: bool| {
        let mut state = node.state();
        state.bad_domains.clear();
        if bad {
            let why = "the test says no".to_owned();
            state.bad_domains.insert("one.localhost".to_owned(), why);
        }
    };
    let mut shows = async |page: &str, state: &str| {
        let text = owner.get(page).await.text;
        assert!(text.contains(state), "{state}: {text}");
        text.contains("Open it")
    };
    fails(true).await;
    let wish = json!({"domain": "one.localhost", "account": account, "runtime": "php"});
    let made = world.post("/v1/sites", wish).await.expect(202);
    let path = format!("/v1/sites/{}", made.text("/site/id"));
    let page = path.replace("/v1", "");
    let ended = world.ended(&made.text("/operation/id")).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    assert!(!shows(&page, "Try again").await, "it never answered");
    assert_eq!(world.get(&path).await.text("/routed"), "false");

    fails(false).await;
    let retried = world.post(&format!("{path}/retry"), json!({})).await;
    world.done(&retried.expect(202)).await;
    assert!(shows(&page, "Suspend").await, "it answers");

    // A change that fails leaves what was there before.
    fails(true).await;
    let changed = json!({"aliases": ["www.one.localhost"]});
    let changed = world.change("PATCH", &path, Some(changed)).await;
    let ended = world
        .ended(&changed.expect(202).text("/operation/id"))
        .await;
    assert_eq!(ended["state"], "failed", "{ended}");
    assert!(shows(&page, "Try again").await, "it still answers");
    assert_eq!(world.get(&path).await.text("/routed"), "true");
}
