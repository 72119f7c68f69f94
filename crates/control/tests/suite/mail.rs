//! Forgotten passwords and the mail server: real conversations with one on loopback.

use std::time::Duration;

use serde_json::{Value, json};
use undine_store::Db;
use undine_testkit::smtp::{Catcher, Caught};

use crate::panel::{Browser, GOOD, customer, owner};
use crate::world::World;

const NEW: &str = "sixteen harbours burn slowly";

async fn with_mail(world: &World) -> Catcher {
    let catcher = Catcher::start().await.unwrap();
    let reply = world.change("PATCH", "/v1/settings/mail", Some(to(&catcher)));
    reply.await.expect(200);
    catcher
}

fn to(catcher: &Catcher) -> Value {
    json!({
        "host": "127.0.0.1", "port": catcher.address.port(), "encryption": "none",
        "from": "Undine <panel@example.com>",
    })
}

/// The path of the link in a mail.
fn link(mail: &Caught) -> String {
    let url = mail.text.split("https://panel.up.localhost:8443").nth(1);
    let url = url.unwrap_or_else(|| panic!("no link to the panel: {mail:?}"));
    url.split_whitespace().next().unwrap().to_owned()
}

async fn forgot(browser: &mut Browser, email: &str) -> (u16, String) {
    let fields = [("email", email)];
    let evil = [
        ("host", "evil.example"),
        ("x-forwarded-host", "evil.example"),
    ];
    let shown = browser.bare("/forgotten", &fields, &evil).await;
    (shown.status, shown.text)
}

async fn chosen(browser: &mut Browser, path: &str, password: &str) -> (u16, String) {
    let shown = browser.bare(path, &[("password", password)], &[]).await;
    (shown.status, shown.to)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_by_mail_sets_a_new_password_once_and_ends_every_session() {
    let world = World::new().await;
    let mut first = owner(&world).await;
    let catcher = with_mail(&world).await;
    let mut lost = Browser::new(&world, 0);
    let page = lost.get("/login").await.text;
    assert!(page.contains("href=\"/forgotten\""), "{page}");
    let (status, known) = forgot(&mut lost, " Ann@Example.com ").await;
    assert_eq!(status, 200, "{known}");
    let mail = catcher.wait_for(1).await.remove(0);
    assert_eq!(mail.to, ["ann@example.com"]);
    assert!(!mail.text.contains("evil.example"), "{mail:?}");
    assert!(mail.text.contains("Auto-Submitted: auto-generated"));
    let path = link(&mail);

    assert_eq!(lost.get(&path).await.status, 200);
    assert_eq!(
        lost.get(&path).await.status,
        200,
        "a look does not use it up"
    );
    assert_eq!(chosen(&mut lost, &path, "password123").await.0, 422);
    assert_eq!(first.get("/cluster").await.status, 200, "nothing happened");
    let (mut here, mut there) = (Browser::new(&world, 0), Browser::new(&world, 0));
    let (one, other) = tokio::join!(
        chosen(&mut here, &path, NEW),
        chosen(&mut there, &path, NEW)
    );
    let mut both = [one.0, other.0];
    both.sort_unstable();
    assert_eq!(both, [303, 410], "it works once");
    assert_eq!(first.get("/cluster").await.to, "/login", "sessions end");
    let old = [("email", "ann@example.com"), ("password", GOOD)];
    assert_eq!(lost.bare("/login", &old, &[]).await.status, 403);
    let new = [("email", "ann@example.com"), ("password", NEW)];
    assert_eq!(lost.bare("/login", &new, &[]).await.to, "/");
    let told = catcher.wait_for(2).await.remove(1);
    assert!(told.text.contains("was changed"), "{told:?}");
    let audit = world.get("/v1/audit").await.body.to_string();
    assert!(audit.contains("person.password_reset"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_tells_nobody_who_is_known_and_nobody_else_gets_mail() {
    let world = World::new().await;
    owner(&world).await;
    let catcher = with_mail(&world).await;
    let mut lost = Browser::new(&world, 0);
    let unknown = forgot(&mut lost, "eve@example.com").await;
    let known = forgot(&mut lost, "ann@example.com").await;
    assert_eq!(unknown, known);
    let mails = catcher.wait_for(1).await;
    // What waits is gone for both, and only one was sent.
    let control = &world.instances[0].control;
    for _ in 0..200 {
        let filter = undine_store::MailFilter::default();
        if control.store.mails().count(&filter).await.unwrap() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(catcher.mails().len(), 1);
    assert_eq!(mails[0].to, ["ann@example.com"]);
    assert_eq!(forgot(&mut lost, "no address").await.0, 422);
    let crlf = "ann@example.com\r\nBcc: eve@example.com";
    assert_eq!(forgot(&mut lost, crlf).await.0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_too_often_is_slowed_down_and_floods_nobody() {
    let world = World::new().await;
    owner(&world).await;
    let catcher = with_mail(&world).await;
    let mut lost = Browser::new(&world, 0);
    let mut last = 0;
    for _ in 0..30 {
        last = forgot(&mut lost, "ann@example.com").await.0;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
    // From many places: the person still gets no more than five links an hour.
    let control = &world.instances[0].control;
    for n in 0..20 {
        let place = undine_control::app::sessions::Place {
            ip: Some(format!("192.0.2.{n}")),
            ..Default::default()
        };
        undine_control::app::reset::ask(control, "ann@example.com", &place)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(catcher.mails().len() <= 5, "{}", catcher.mails().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_step_stays_needed_and_an_old_link_is_over() {
    let world = World::new().await;
    let mut provider = owner(&world).await;
    let (account, _) = world.account("bakery").await;
    let mut baker = customer(&world, &mut provider, &account, "baker@example.com").await;
    crate::second::switched_on(&mut baker).await;
    let catcher = with_mail(&world).await;
    let mut lost = Browser::new(&world, 0);
    forgot(&mut lost, "baker@example.com").await;
    let path = link(&catcher.wait_for(1).await[0]);
    let (status, to) = chosen(&mut lost, &path, NEW).await;
    assert_eq!((status, to.as_str()), (303, "/login/second"));
    assert_eq!(lost.cookie, "", "the mailbox alone is not enough");
    assert_eq!(baker.get("/sites").await.to, "/login");

    forgot(&mut lost, "ann@example.com").await;
    let mails = catcher.wait_for(3).await;
    let mail = mails.iter().find(|it| it.to == ["ann@example.com"]);
    let path = link(mail.unwrap());
    let store = &world.instances[0].control.store;
    let filter = undine_store::LinkFilter::default();
    let links = store.links().all(&filter).await.unwrap();
    let mut hour = links.into_iter().find(|it| it.person.is_some()).unwrap();
    let left = hour.expires_at - undine_control::clock::now_ms();
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    hour.expires_at -= 3_600_000;
    store.links().update(&hour, 1).await.unwrap();
    assert_eq!(lost.get(&path).await.status, 410);
    assert_eq!(chosen(&mut lost, &path, NEW).await.0, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_waits_for_its_server_and_is_sent_by_whichever_instance_is_there() {
    let database = undine_testkit::postgres::TestDatabase::new();
    let mut world = World::on(Some(database.url().to_owned())).await;
    world.another_instance().await;
    owner(&world).await;
    let catcher = with_mail(&world).await;
    catcher.refuse(Some("451 later"));
    let mut lost = Browser::new(&world, 0);
    assert_eq!(forgot(&mut lost, "ann@example.com").await.0, 200);
    let store = world.instances[1].control.store.clone();
    let filter = undine_store::MailFilter::default();
    let waiting = async || store.mails().all(&filter).await.unwrap();
    for _ in 0..500 {
        if waiting().await.iter().any(|it| it.error.is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut mail = waiting().await.remove(0);
    assert!(mail.error.unwrap_or_default().contains("451"));
    world.instances[0].kill();
    catcher.refuse(None);
    mail = waiting().await.remove(0);
    mail.not_before = 0;
    store.mails().update(&mail, 1).await.unwrap();
    let path = link(&catcher.wait_for(1).await[0]);
    let mut other = Browser::new(&world, 1);
    assert_eq!(chosen(&mut other, &path, NEW).await.0, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mail_server_s_password_is_sealed_and_goes_nowhere_else() {
    let world = World::new().await;
    let catcher = with_mail(&world).await;
    let path = "/v1/settings/mail";
    let set = async |body: Value| world.change("PATCH", path, Some(body)).await;
    let user = json!({"user": "panel", "password": "hunter2 hunter2"});
    let shown = set(user).await.expect(200);
    assert_eq!(shown.body["has_password"], true);
    let tried = json!({"to": "ann@example.com"});
    world
        .post("/v1/settings/mail/try", tried.clone())
        .await
        .expect(200);
    // AUTH PLAIN of `\0panel\0hunter2 hunter2`.
    let said = "AUTH PLAIN AHBhbmVsAGh1bnRlcjIgaHVudGVyMg==".to_owned();
    assert!(catcher.words().contains(&said), "{:?}", catcher.words());
    assert!(catcher.wait_for(1).await[0].text.contains("It can."));

    let store = &world.instances[0].control.store;
    let kept = store.settings().find("mail").await.unwrap().unwrap();
    assert!(!kept.value.to_string().contains("hunter2"));
    let audit = world.get("/v1/audit").await.body.to_string();
    assert!(
        !world.get(path).await.body.to_string().contains("hunter2") && !audit.contains("hunter2")
    );
    for elsewhere in [
        json!({"host": "127.0.0.2"}),
        json!({"port": 26}),
        json!({"user": "other"}),
    ] {
        let refused = set(elsewhere).await.expect(422);
        assert_eq!(refused.text("/field"), "password");
    }
    let clear = json!({"host": "mail.example.com", "password": "again"});
    assert_eq!(set(clear).await.expect(422).text("/field"), "encryption");
    let tls = json!({"encryption": "starttls", "password": "hunter2 hunter2"});
    set(tls).await.expect(200);
    let before = catcher.words().len();
    let refused = world.post("/v1/settings/mail/try", tried).await.expect(502);
    assert_eq!(refused.text("/type"), "mail-failed");
    let words = catcher.words().split_off(before);
    assert!(
        !words
            .iter()
            .any(|word| word.starts_with("AUTH") || word.starts_with("MAIL")),
        "{words:?}"
    );
    assert_eq!(set(json!({"host": ""})).await.expect(200).body["on"], false);
    let tried = json!({"to": "ann@example.com"});
    let off = world.post("/v1/settings/mail/try", tried).await.expect(409);
    assert_eq!(off.text("/type"), "mail-off");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sets_the_mail_server_on_a_page_and_tries_it() {
    let world = World::new().await;
    let mut owner = owner(&world).await;
    let shown = owner.get("/forgotten").await;
    assert_eq!(shown.status, 409);
    assert!(shown.text.contains("owner-link"), "{}", shown.text);
    let catcher = Catcher::start().await.unwrap();
    let port = catcher.address.port().to_string();
    let fields = |from: &'static str| {
        [
            ("version", "0".to_owned()),
            ("host", "127.0.0.1".to_owned()),
            ("port", port.clone()),
            ("encryption", "none".to_owned()),
            ("from", from.to_owned()),
        ]
    };
    let sent = async |owner: &mut Browser, fields: &[(&str, String)]| {
        let fields: Vec<_> = fields.iter().map(|(a, b)| (*a, b.as_str())).collect();
        owner.post("/settings/mail", &fields).await
    };
    let bad = sent(&mut owner, &fields("\"><script>")).await;
    assert_eq!(bad.status, 422, "{bad:?}");
    assert!(!bad.text.contains("<script>") && bad.text.contains(&port));
    let good = sent(&mut owner, &fields("panel@example.com")).await;
    assert_eq!(good.status, 303, "{good:?}");
    let to = [("to", "ann@example.com")];
    let tried = owner.post("/settings/mail/try", &to).await;
    assert!(tried.text.contains("took a mail"), "{}", tried.text);
    catcher.refuse(Some("550 nobody here"));
    let tried = owner.post("/settings/mail/try", &to).await;
    assert_eq!(tried.status, 502);
    assert!(tried.text.contains("nobody here"), "{}", tried.text);
}
