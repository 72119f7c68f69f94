//! Brands: what may be one, who sees it, and that it can do nothing but look.

use serde_json::json;

use crate::panel::{Browser, Shown, customer, link_in, owner};
use crate::world::World;

/// A PNG of one point, as far as anybody looks.
fn png() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 8, 6, 0, 0, 0]);
    bytes
}

async fn hand_in(browser: &mut Browser, csrf: &str, file: &[u8]) -> Shown {
    let mut body = format!(
        "--x\r\ncontent-disposition: form-data; name=\"csrf\"\r\n\r\n{csrf}\r\n--x\r\n\
         content-disposition: form-data; name=\"file\"; filename=\"a.png\"\r\n\r\n"
    )
    .into_bytes();
    body.extend(file);
    body.extend(b"\r\n--x--\r\n");
    browser
        .raw("/brand/logo", "multipart/form-data; boundary=x", body)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reseller_s_customers_see_its_brand_and_nobody_else_does() {
    let world = World::new().await;
    let limits = json!({"accounts": 5, "sites": 5, "databases": 5, "site": {
        "cpu": 500, "memory": 64 << 20, "processes": 50, "io_bytes_per_s": 1 << 20,
        "iops": 100, "disk": 64 << 20, "inodes": 1000,
    }});
    let wish = json!({"name": "north", "limits": limits});
    let north = world.post("/v1/resellers", wish).await.expect(201);
    let north = north.text("/id");
    let mut plan = limits.clone();
    plan.as_object_mut().unwrap().remove("accounts");
    let wish = json!({"name": "small", "limits": plan, "reseller": "north"});
    world.post("/v1/plans", wish).await.expect(201);
    let wish = json!({"name": "mill", "plan": "small"});
    let mill = world
        .post("/v1/accounts", wish)
        .await
        .expect(201)
        .text("/id");
    let (bakery, _) = world.account("bakery").await;
    let mut owner = owner(&world).await;
    let link = owner.post(&format!("/resellers/{north}/invite"), &[]).await;
    let mut nora = Browser::new(&world, 0);
    nora.welcome(&link_in(&link.text), "nora@example.com").await;
    let mut miller = customer(&world, &mut nora, &mill, "mill@example.com").await;
    let mut baker = customer(&world, &mut owner, &bakery, "baker@example.com").await;

    let pale = [("name", "North Host"), ("colour", "#ffd500")];
    let refused = nora.post("/brand", &pale).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.text.contains("is the nearest that can"));
    let panel = [("host", "panel.up.localhost")];
    assert_eq!(nora.post("/brand", &panel).await.status, 409);
    let fields = [
        ("name", "North <b>Host"),
        ("colour", "#7a1fa2"),
        ("host", "panel.north.example"),
        ("suspended", "Ring us: 123 <script>"),
    ];
    assert_eq!(nora.post("/brand", &fields).await.status, 303);
    let csrf = nora.csrf().await;
    for bad in [&b"<svg onload='alert(1)'/>"[..], b"GIF89a", b""] {
        assert_eq!(hand_in(&mut nora, &csrf, bad).await.status, 422);
    }
    let guess = hand_in(&mut nora, "guess", &png()).await;
    assert_eq!(guess.status, 403, "{guess:?}");
    let done = hand_in(&mut nora, &csrf, &png()).await;
    assert_eq!(done.status, 303, "{done:?}");

    let page = miller.get("/sites").await.text;
    assert!(page.contains("North &#60;b&#62;Host"), "{page}");
    let path = |kind: &str| format!("/brands/{north}.{kind}");
    assert!(page.contains(&path("css")) && page.contains(&path("logo")));
    let style = miller.get(&path("css")).await;
    assert!(style.text.contains("light-dark(#7a1fa2,"), "{}", style.text);
    let logo = Browser::new(&world, 0).get(&path("logo")).await;
    assert_eq!(logo.status, 200);
    assert_eq!(logo.headers["content-type"], "image/png");
    assert_eq!(logo.headers["x-content-type-options"], "nosniff");
    let policy = logo.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'; sandbox"), "{policy}");
    assert!(!baker.get("/sites").await.text.contains("North"));
    assert!(!owner.get("/accounts").await.text.contains("North"));
    assert_eq!(miller.get("/brand").await.status, 403);

    // Strangers see it by the host name alone, and no site takes that name.
    let mut stranger = Browser::new(&world, 0);
    assert!(!stranger.get("/login").await.text.contains("North"));
    let shown = stranger.get_as("/login", "panel.north.example").await;
    assert!(
        shown.text.contains("North &#60;b&#62;Host"),
        "{}",
        shown.text
    );
    let taken = json!({"domain": "panel.north.example", "account": "mill", "runtime": "php"});
    let _node = world.node("node-1", undine_model::Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let refused = world.post("/v1/sites", taken).await.expect(409);
    assert_eq!(refused.text("/type"), "domain-taken");

    // Visitors of its suspended sites read its words; the edges answer at its host name.
    world.site("mill.localhost", &mill, "web-1", "php").await;
    let suspend = format!("/accounts/{mill}/suspend");
    assert_eq!(nora.post(&suspend, &[]).await.status, 303);
    let control = &world.instances[0].control;
    let update = undine_control::routes::update_after(control, 0)
        .await
        .unwrap();
    assert!(
        update
            .panel
            .hosts
            .contains(&"panel.north.example".to_owned())
    );
    let words = Some("Ring us: 123 <script>".to_owned());
    let wanted = undine_api::edge::Target::Suspended { words };
    assert_eq!(update.routes[0].target, wanted);
}

/// Somebody of a new reseller, logged in at an instance.
async fn seller(world: &World, owner: &mut Browser, name: &str, instance: usize) -> Browser {
    let limits = json!({"accounts": 5, "sites": 5, "databases": 5, "site": {
        "cpu": 500, "memory": 64 << 20, "processes": 50, "io_bytes_per_s": 1 << 20,
        "iops": 100, "disk": 64 << 20, "inodes": 1000,
    }});
    let wish = json!({"name": name, "limits": limits});
    let made = world.post("/v1/resellers", wish).await.expect(201);
    let path = format!("/resellers/{}/invite", made.text("/id"));
    let link = owner.post(&path, &[]).await;
    let mut browser = Browser::new(world, instance);
    let email = format!("{name}@example.com");
    let entered = browser.welcome(&link_in(&link.text), &email).await;
    assert_eq!(entered.status, 303, "{entered:?}");
    browser
}

/// Two resellers ask for the same host name at the same moment, again and again.
async fn race(world: World, second: usize) {
    let mut owner = owner(&world).await;
    let mut north = seller(&world, &mut owner, "north", 0).await;
    let mut south = seller(&world, &mut owner, "south", second).await;
    for round in 0..12 {
        let host = format!("panel-{round}.example.com");
        let fields = [("name", "Mine"), ("host", host.as_str())];
        let (one, other) =
            tokio::join!(north.post("/brand", &fields), south.post("/brand", &fields));
        let mut both = [one.status, other.status];
        both.sort_unstable();
        assert_eq!(both, [303, 409], "{host}: {one:?} {other:?}");
        let loser = if one.status == 409 { &one } else { &other };
        let said = format!("{host} is a site or a panel already.");
        assert!(loser.text.contains(&said), "{}", loser.text);
    }
    // Who has it keeps it, and gives it back by taking another.
    let fields = [("name", "Mine"), ("host", "panel-11.example.com")];
    let (one, other) = (
        north.post("/brand", &fields).await,
        south.post("/brand", &fields).await,
    );
    let winner = if one.status == 303 {
        &mut north
    } else {
        &mut south
    };
    assert_ne!(one.status, other.status);
    assert_eq!(winner.post("/brand", &[("name", "Mine")]).await.status, 303);
    for browser in [&mut north, &mut south] {
        let shown = browser.post("/brand", &fields).await;
        assert!(matches!(shown.status, 303 | 409), "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_resellers_who_want_one_host_name_at_once_one_gets_it() {
    race(World::new().await, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_two_instances_on_postgres_give_one_host_name_to_both() {
    let database = undine_testkit::postgres::TestDatabase::new();
    let mut world = World::on(Some(database.url().to_owned())).await;
    world.another_instance().await;
    race(world, 1).await;
}
