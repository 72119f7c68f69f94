//! Suspended resellers: who of theirs may do what, whose sites are off, and what comes back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use undine_api::edge::Target;
use undine_api::public::Scope;
use undine_control::pages::{TABLE, Who};
use undine_control::routes::update_after;
use undine_model::Bytes;
use undine_testkit::node::FakeNode;
use undine_testkit::postgres::TestDatabase;

use crate::panel::{Browser, GOOD, customer, link_in, owner};
use crate::resellers::{limits, reseller, seller};
use crate::world::{Reply, World};

const NO_ID: &str = "018bcfe5-6800-7101-8101-010101010101";

/// A reseller with a plan of its own, `<name>-small`: its id and its token.
async fn north(world: &World, name: &str) -> (String, String) {
    let (id, token) = reseller(world, name, 9, 9).await;
    let plan = json!({"name": format!("{name}-small"), "limits": limits(2, 64)});
    let made = world
        .send(0, &token, "POST", "/v1/plans", Some(plan), &[])
        .await;
    made.expect(201);
    (id, token)
}

async fn account(world: &World, name: &str, plan: &str) -> String {
    let wish = json!({"name": name, "plan": plan});
    let made = world.post("/v1/accounts", wish).await;
    made.expect(201).text("/id")
}

async fn token_of(world: &World, maker: &str, account: &str) -> String {
    let wish = json!({"name": "t", "role": "account_owner", "account": account});
    let made = world
        .send(0, maker, "POST", "/v1/tokens", Some(wish), &[])
        .await;
    made.expect(201).text("/secret")
}

async fn suspend(world: &World, id: &str, with_customers: bool) -> Reply {
    let path = format!("/v1/resellers/{id}/suspend");
    let wish = json!({"with_customers": with_customers});
    world.post(&path, wish).await.expect(200)
}

async fn unsuspend(world: &World, id: &str) -> Reply {
    let path = format!("/v1/resellers/{id}/unsuspend");
    world.change("POST", &path, None).await.expect(200)
}

/// Every method and path of the API that changes something.
fn changes() -> Vec<(String, String)> {
    let document = serde_json::to_value(undine_control::api::document()).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|it| *it != "get") {
            let path = path.replace("{id}", NO_ID).replace("{name}", "static");
            found.push((method.to_uppercase(), path));
        }
    }
    assert!(found.len() > 50, "{found:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_suspended_reseller_look_and_change_nothing_by_any_path() {
    let world = World::new().await;
    let (id, own) = north(&world, "north").await;
    let (_, southern) = north(&world, "south").await;
    let mill = account(&world, "mill", "north-small").await;
    let made = token_of(&world, &own, &mill).await;
    // What that one made in its turn is the reseller's doing too.
    let second = token_of(&world, &made, &mill).await;
    let customer = token_of(&world, &world.provider, &mill).await;
    let any = [("if-match", "*")];
    let ask = async |token: &str, method: &str, path: &str, body: Option<Value>| {
        world.send(0, token, method, path, body, &any).await
    };
    let told = suspend(&world, &id, false).await;
    assert_eq!(told.text("/state"), "suspended");
    for (method, path) in changes() {
        for token in [&own, &made, &second] {
            let refused = ask(token, &method, &path, Some(json!({}))).await;
            assert_eq!(refused.status, 403, "{method} {path}: {refused:?}");
            assert_eq!(refused.text("/type"), "reseller-suspended");
            assert!(refused.text("/detail").contains("north"), "{refused:?}");
        }
    }
    for path in ["/v1/accounts", "/v1/plans", "/v1/audit", "/v1/resellers"] {
        ask(&own, "GET", path, None).await.expect(200);
    }
    let shown = ask(&own, "GET", &format!("/v1/resellers/{id}"), None).await;
    assert_eq!(shown.text("/state"), "suspended");
    ask(&made, "GET", "/v1/sites", None).await.expect(200);

    // Its customers, on their own, and another reseller go on.
    assert_eq!(
        world
            .get(&format!("/v1/accounts/{mill}"))
            .await
            .text("/state"),
        "active"
    );
    token_of(&world, &customer, &mill).await;
    let more = |name| json!({"name": name, "limits": limits(1, 64)});
    let made_by_south = ask(&southern, "POST", "/v1/plans", Some(more("south-more"))).await;
    made_by_south.expect(201);
    unsuspend(&world, &id).await;
    let again = ask(&own, "POST", "/v1/plans", Some(more("north-more"))).await;
    again.expect(201);
    token_of(&world, &second, &mill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_of_a_suspended_reseller_read_so_and_neither_change_nor_act() {
    let world = World::new().await;
    let (id, _) = north(&world, "north").await;
    let mill = account(&world, "mill", "north-small").await;
    let mut owner = owner(&world).await;
    let mut nora = seller(&mut owner, &world, &id, "nora@example.com").await;
    let mut miller = customer(&world, &mut nora, &mill, "mill@example.com").await;
    assert_eq!(nora.post("/act", &[("account", &mill)]).await.status, 303);
    assert!(nora.get("/sites").await.text.contains("You act for"));
    suspend(&world, &id, false).await;

    let shown = nora.get("/accounts").await;
    assert_eq!(shown.status, 200, "acting has ended: {shown:?}");
    assert!(shown.text.contains("suspended <b>north</b>"), "{shown:?}");
    assert!(miller.get("/audit").await.text.contains("account.act_end"));
    for it in TABLE.iter().filter(|it| it.method == "POST") {
        if it.who == Who::Anybody || it.scope == Scope::Billing {
            continue;
        }
        let path = it.path.replace("{id}", &mill);
        let refused = nora.post(&path, &[("name", "x"), ("confirm", "x")]).await;
        assert_eq!(refused.status, 403, "{path}: {refused:?}");
        let why = refused.text.contains("The provider has suspended north");
        assert!(why || it.who == Who::Provider, "{path}: {refused:?}");
    }
    let refused = nora.post("/act", &[("account", &mill)]).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    for page in ["/accounts", "/plans", "/audit", "/people", "/brand", "/me"] {
        assert_eq!(nora.get(page).await.status, 200, "{page}");
    }
    // They still come in and go.
    assert_eq!(nora.post("/logout", &[]).await.status, 303);
    let fields = [("email", "nora@example.com"), ("password", GOOD)];
    assert_eq!(nora.bare("/login", &fields, &[]).await.status, 303);
    assert!(
        nora.get("/me")
            .await
            .text
            .contains("suspended <b>north</b>")
    );
    // Its customers' own people go on.
    let token = [("name", "ci"), ("may", "all"), ("days", "1")];
    assert_eq!(miller.post("/tokens", &token).await.status, 200);

    unsuspend(&world, &id).await;
    let shown = nora.get("/accounts").await;
    assert_eq!(shown.status, 200, "nobody acts again by themselves");
    assert!(!shown.text.contains("suspended <b>"), "{shown:?}");
    assert_eq!(nora.post("/act", &[("account", &mill)]).await.status, 303);
}

/// The host names at which visitors read the page for suspended sites.
async fn off(world: &World) -> BTreeSet<String> {
    let update = update_after(&world.instances[0].control, 0).await.unwrap();
    let mut hosts = BTreeSet::new();
    for route in update.routes {
        if matches!(route.target, Target::Suspended { .. }) {
            hosts.insert(route.host);
        }
    }
    hosts
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|it| format!("{it}.localhost")).collect()
}

/// Waits until the servers run exactly these sites as suspended ones.
async fn servers_hear(node: &FakeNode, wanted: &BTreeSet<String>) {
    let since = Instant::now();
    loop {
        let now: BTreeSet<String> = {
            let state = node.state();
            let guests = state.servers.values().map(|it| &it.guest);
            let sites = guests.flat_map(|guest| guest.sites.values());
            let sites = sites.filter(|site| site.suspended);
            sites.map(|site| site.domain.to_string()).collect()
        };
        if now == *wanted {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{now:?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// The names of the accounts that say this of themselves.
async fn in_state(world: &World, state: &str) -> BTreeSet<String> {
    let all = world.get("/v1/accounts").await;
    let all = all.body["items"].as_array().unwrap().iter();
    all.filter(|it| it["state"] == state)
        .map(|it| format!("{}.localhost", it["name"].as_str().unwrap()))
        .collect()
}

async fn exactly_they_come_back(world: World) {
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (id, own) = north(&world, "north").await;
    north(&world, "south").await;
    let mut ids = std::collections::BTreeMap::new();
    for (name, plan) in [
        ("mill", "north-small"),
        ("barn", "north-small"),
        ("held", "north-small"),
        ("late", "north-small"),
        ("shop", "south-small"),
        ("bakery", "standard"),
    ] {
        let account = account(&world, name, plan).await;
        let domain = format!("{name}.localhost");
        world.site(&domain, &account, "web-1", "php").await;
        ids.insert(name, account);
    }
    let set_account = async |who: &str, name: &str, act: &str| {
        let path = format!("/v1/accounts/{}/{act}", ids[name]);
        let any = [("if-match", "*")];
        world.send(0, who, "POST", &path, None, &any).await
    };
    // Suspended before: one by the provider, one by the reseller.
    let provider = world.provider.clone();
    set_account(&provider, "held", "suspend").await.expect(200);
    set_account(&own, "late", "suspend").await.expect(200);
    assert_eq!(off(&world).await, set(&["held", "late"]));

    suspend(&world, &id, false).await;
    assert_eq!(off(&world).await, set(&["held", "late"]), "it alone");
    let control = &world.instances[0].control;
    let before = update_after(control, 0).await.unwrap().version;
    let told = suspend(&world, &id, true).await;
    assert_eq!(told.text("/state"), "suspended_with_customers");
    suspend(&world, &id, true).await;
    let all = set(&["mill", "barn", "held", "late"]);
    assert_eq!(off(&world).await, all);
    // An edge that knew all of that before hears of each.
    let news = update_after(control, before).await.unwrap();
    let heard: BTreeSet<String> = news.routes.into_iter().map(|it| it.host).collect();
    assert!(!news.whole && heard == all, "{heard:?}");
    servers_hear(&node, &all).await;
    let with = in_state(&world, "suspended_with_reseller").await;
    assert_eq!(with, set(&["mill", "barn"]));
    assert_eq!(in_state(&world, "suspended").await, set(&["held", "late"]));

    // Meanwhile: no new sites, no end for one of them alone; what is done to one stays.
    let wish = json!({"domain": "m2.localhost", "account": ids["mill"], "runtime": "php"});
    let refused = world.post("/v1/sites", wish).await.expect(409);
    assert_eq!(refused.text("/type"), "account-suspended");
    let refused = set_account(&provider, "mill", "unsuspend")
        .await
        .expect(409);
    assert_eq!(refused.text("/type"), "reseller-suspended");
    set_account(&provider, "barn", "suspend").await.expect(200);
    let ended = set_account(&provider, "late", "unsuspend").await;
    assert_eq!(ended.expect(200).text("/state"), "suspended_with_reseller");
    assert_eq!(off(&world).await, all);

    let told = unsuspend(&world, &id).await;
    assert_eq!(told.text("/state"), "active");
    unsuspend(&world, &id).await;
    assert_eq!(off(&world).await, set(&["barn", "held"]));
    servers_hear(&node, &set(&["barn", "held"])).await;

    // Whoever gets another seller meanwhile is served at once; whoever comes is not.
    suspend(&world, &id, true).await;
    for (name, plan) in [("mill", "standard"), ("bakery", "north-small")] {
        let path = format!("/v1/accounts/{}", ids[name]);
        let moved = world.change("PATCH", &path, Some(json!({"plan": plan})));
        moved.await.expect(200);
    }
    assert_eq!(off(&world).await, set(&["barn", "held", "late", "bakery"]));
    // From with its customers to it alone.
    suspend(&world, &id, false).await;
    assert_eq!(off(&world).await, set(&["barn", "held"]));
    servers_hear(&node, &set(&["barn", "held"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_that_were_suspended_with_it_come_back_and_no_others() {
    exactly_they_come_back(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_others_come_back_on_postgres() {
    let database = TestDatabase::new();
    exactly_they_come_back(World::on(Some(database.url().to_owned())).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_provider_s_owners_and_operators_suspend_a_reseller() {
    let world = World::new().await;
    let (id, own) = north(&world, "north").await;
    let (_, southern) = north(&world, "south").await;
    let mill = account(&world, "mill", "north-small").await;
    let of_mill = token_of(&world, &world.provider, &mill).await;
    let look = json!({"name": "r", "role": "provider", "scopes": ["read"]});
    let look = world.post("/v1/tokens", look).await.expect(201);
    let path = format!("/v1/resellers/{id}");
    let any = [("if-match", "*")];
    for act in ["suspend", "unsuspend"] {
        let path = format!("{path}/{act}");
        for token in [&own, &southern, &of_mill, &look.text("/secret")] {
            let body = Some(json!({"with_customers": true}));
            let refused = world.send(0, token, "POST", &path, body, &any).await;
            assert_eq!(refused.status, 403, "{act}: {refused:?}");
        }
        let stale = [("if-match", "\"77\"")];
        let body = Some(json!({}));
        let refused = world.send(0, &world.provider, "POST", &path, body, &stale);
        assert_eq!(refused.await.status, 412);
        let nobody = format!("/v1/resellers/{NO_ID}/{act}");
        world.post(&nobody, json!({})).await.expect(404);
    }

    let mut owner = owner(&world).await;
    let mut nora = seller(&mut owner, &world, &id, "nora@example.com").await;
    let mut miller = customer(&world, &mut owner, &mill, "mill@example.com").await;
    let mut invited = async |role: &str| {
        let link = link_in(&owner.post("/people", &[("role", role)]).await.text);
        let mut browser = Browser::new(&world, 0);
        let email = format!("{role}@example.com");
        assert_eq!(browser.welcome(&link, &email).await.status, 303);
        browser
    };
    let (mut support, mut operator) = (invited("support").await, invited("operator").await);
    let page = format!("/resellers/{id}");
    let with = [("with_customers", "yes")];
    for browser in [&mut nora, &mut miller, &mut support] {
        for act in ["suspend", "unsuspend"] {
            let refused = browser.post(&format!("{page}/{act}"), &with).await;
            assert_eq!(refused.status, 403, "{act}: {refused:?}");
        }
    }
    assert_eq!(world.get(&path).await.text("/state"), "active");
    assert!(operator.get(&page).await.text.contains("Suspend it"));
    let done = operator.post(&format!("{page}/suspend"), &with).await;
    assert_eq!((done.status, done.to.as_str()), (303, page.as_str()));
    let shown = operator.get(&page).await.text;
    assert!(shown.contains("suspended with its customers"), "{shown}");
    assert!(shown.contains("End the suspension") && !shown.contains("Suspend it"));
    let shown = operator.get(&format!("/accounts/{mill}")).await.text;
    assert!(shown.contains("suspended with its reseller"), "{shown}");
    let done = operator.post(&format!("{page}/unsuspend"), &[]).await;
    assert_eq!(done.status, 303);
    assert_eq!(world.get(&path).await.text("/state"), "active");
    let audit = world.get("/v1/audit?reseller=north").await.body.to_string();
    assert!(audit.contains("reseller.suspend") && audit.contains("reseller.unsuspend"));
}
