//! Resellers and roles: who sells what to whom, within which limits, and what nobody else sees.

use serde_json::{Value, json};
use undine_control::pages::{TABLE, Who};
use undine_model::Bytes;

use crate::panel::{Browser, customer, link_in, owner};
use crate::world::World;

pub fn limits(sites: u32, memory_mib: u64) -> Value {
    json!({"sites": sites, "databases": 2, "site": {
        "cpu": 500, "memory": memory_mib << 20, "processes": 50, "io_bytes_per_s": 1 << 20,
        "iops": 100, "disk": 64 << 20, "inodes": 1000,
    }})
}

/// A reseller with this much, and its token: both secrets.
pub async fn reseller(world: &World, name: &str, accounts: u32, sites: u32) -> (String, String) {
    let mut most = limits(sites, 128);
    most["accounts"] = json!(accounts);
    let made = world
        .post("/v1/resellers", json!({"name": name, "limits": most}))
        .await;
    let id = made.expect(201).text("/id");
    let wish = json!({"name": "own", "role": "reseller", "reseller": name});
    let token = world.post("/v1/tokens", wish).await.expect(201);
    (id, token.text("/secret"))
}

/// The form's fields for limits.
fn form(sites: &'static str, memory: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![
        ("sites", sites),
        ("databases", "2"),
        ("memory", memory),
        ("disk", "64"),
        ("inodes", "1000"),
        ("cpu", "500"),
        ("processes", "50"),
        ("io", "1"),
        ("iops", "100"),
    ]
}

/// Somebody of a reseller, logged in.
pub async fn seller(owner: &mut Browser, world: &World, id: &str, email: &str) -> Browser {
    let shown = owner.post(&format!("/resellers/{id}/invite"), &[]).await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let mut browser = Browser::new(world, 0);
    let shown = browser.welcome(&link_in(&shown.text), email).await;
    assert_eq!(shown.status, 303, "{shown:?}");
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reseller_s_plans_accounts_and_sites_stay_within_its_limits() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (_, token) = reseller(&world, "north", 2, 2).await;
    let ask = async |method: &str, path: &str, body: Value| {
        let headers = [("if-match", "*")];
        world
            .send(0, &token, method, path, Some(body), &headers)
            .await
    };
    let large = json!({"name": "large", "limits": limits(3, 128)});
    let refused = ask("POST", "/v1/plans", large).await.expect(422);
    assert_eq!(refused.text("/field"), "limits.sites");
    let fat = json!({"name": "fat", "limits": limits(2, 256)});
    let refused = ask("POST", "/v1/plans", fat).await.expect(422);
    assert_eq!(refused.text("/field"), "limits.site.memory");
    let small = json!({"name": "small", "limits": limits(2, 64)});
    let plan = ask("POST", "/v1/plans", small).await.expect(201);
    assert!(!plan.body["reseller"].is_null());
    let foreign = json!({"name": "a", "plan": "standard"});
    ask("POST", "/v1/accounts", foreign).await.expect(422);
    let mut accounts = Vec::new();
    for name in ["one", "two"] {
        let made = ask(
            "POST",
            "/v1/accounts",
            json!({"name": name, "plan": "small"}),
        )
        .await;
        accounts.push(made.expect(201).text("/id"));
    }
    let third = json!({"name": "three", "plan": "small"});
    let refused = ask("POST", "/v1/accounts", third).await.expect(409);
    assert_eq!(refused.text("/type"), "reseller-exceeded");
    // Each account may have two sites by its plan; the reseller may have two in all.
    for (n, account) in [(1, &accounts[0]), (2, &accounts[1])] {
        world
            .site(&format!("s{n}.localhost"), account, "web-1", "php")
            .await;
    }
    let wish = json!({"domain": "s3.localhost", "account": accounts[0], "runtime": "php"});
    let refused = world.post("/v1/sites", wish).await.expect(409);
    assert_eq!(refused.text("/type"), "reseller-exceeded");
    let id = world.get("/v1/resellers").await.text("/items/0/id");
    let mut less = limits(1, 128);
    less["accounts"] = json!(2);
    let path = format!("/v1/resellers/{id}");
    let any = [("if-match", "*")];
    let lower = json!({"limits": less});
    let refused = world
        .send(0, &world.provider, "PATCH", &path, Some(lower), &any)
        .await
        .expect(409);
    assert_eq!(refused.text("/field"), "limits.sites");
    // The provider takes an account over by putting it on a plan of its own.
    let path = format!("/v1/accounts/{}", accounts[1]);
    let wish = json!({"plan": "standard"});
    ask("PATCH", &path, wish.clone()).await.expect(422);
    let moved = world
        .send(0, &world.provider, "PATCH", &path, Some(wish), &any)
        .await
        .expect(200);
    assert!(moved.body["reseller"].is_null());
    ask("GET", &path, Value::Null).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_than_a_reseller_may_have_is_not_made_by_asking_twice_at_once() {
    let world = World::new().await;
    let (_, token) = reseller(&world, "north", 1, 5).await;
    let small = json!({"name": "small", "limits": limits(2, 64)});
    let made = world
        .send(0, &token, "POST", "/v1/plans", Some(small), &[])
        .await;
    made.expect(201);
    let tries = ["one", "two", "three", "four"].map(|name| {
        let wish = json!({"name": name, "plan": "small"});
        world.send(0, &token, "POST", "/v1/accounts", Some(wish), &[])
    });
    let done = futures_util::future::join_all(tries).await;
    let made = done.iter().filter(|reply| reply.status == 201).count();
    assert_eq!(made, 1, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reseller_works_by_its_own_pages_and_reaches_nobody_else() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (victim, _) = world.account("victim").await;
    let site = world.site("one.localhost", &victim, "web-1", "php").await;
    let operation = world.get("/v1/operations").await.text("/items/0/id");
    let standard = world.get("/v1/plans").await.text("/items/0/id");
    let (north, _) = reseller(&world, "north", 5, 5).await;
    let (south, _) = reseller(&world, "south", 5, 5).await;
    let mut owner = owner(&world).await;
    let mut nora = seller(&mut owner, &world, &north, "nora@example.com").await;
    let mut saul = seller(&mut owner, &world, &south, "saul@example.com").await;
    assert_eq!(nora.get("/").await.to, "/accounts");
    let mut fields = form("3", "64");
    fields.push(("name", "north-small"));
    assert_eq!(nora.post("/plans", &fields).await.status, 303);
    let made = nora
        .post("/accounts", &[("name", "mill"), ("plan", "north-small")])
        .await;
    assert_eq!(made.status, 303, "{made:?}");
    let page = made.to;
    let mill = page.rsplit('/').next().unwrap().to_owned();
    let shown = nora.get(&page).await;
    assert!(shown.text.contains("0 of 3"), "{}", shown.text);
    let mut miller = customer(&world, &mut nora, &mill, "mill@example.com").await;
    assert!(miller.get("/plan").await.text.contains("north-small"));

    // What is the provider's or another reseller's is refused or not there, on every page.
    let own_plan = world.get("/v1/plans").await;
    let own_plan = own_plan.body["items"].as_array().unwrap().iter();
    let own_plan = own_plan.clone().find(|it| it["name"] == "north-small");
    let own_plan = own_plan.unwrap()["id"].as_str().unwrap().to_owned();
    for it in TABLE.iter().filter(|it| it.who != Who::Anybody) {
        let others = it.path.contains("{id}");
        if it.who != Who::Provider && !others {
            continue;
        }
        for (browser, account, plan) in [
            (&mut nora, &victim, &standard),
            (&mut saul, &mill, &own_plan),
        ] {
            let id = match it.path {
                path if path.starts_with("/accounts") => account,
                path if path.starts_with("/plans") => plan,
                path if path.starts_with("/operations") => &operation,
                _ => &site,
            };
            let path = it.path.replace("{id}", id);
            let mut fields = form("1", "64");
            fields.extend([("confirm", "victim"), ("name", "x"), ("version", "1")]);
            fields.push(("plan", "north-small"));
            let shown = match it.method.as_str() {
                "GET" => browser.get(&path).await,
                _ => browser.post(&path, &fields).await,
            };
            let wanted = if it.who == Who::Provider { 403 } else { 404 };
            assert_eq!(
                shown.status, wanted,
                "{} {}: {}",
                it.method, it.path, shown.text
            );
        }
    }
    for list in [
        "/accounts",
        "/plans",
        "/people",
        "/tokens",
        "/sites",
        "/audit",
    ] {
        let shown = saul.get(list).await;
        assert_eq!(shown.status, 200, "{list}");
        for hidden in ["mill", "north", "victim", "standard", "one.localhost"] {
            assert!(!shown.text.contains(hidden), "{list} shows {hidden}");
        }
    }
    for account in [&mill, &victim] {
        let acted = saul.post("/act", &[("account", account)]).await;
        assert_eq!(acted.status, 404);
    }
    // Acting for a customer is said to whoever acts and written down for the customer.
    assert_eq!(nora.post("/act", &[("account", &mill)]).await.status, 303);
    assert!(
        nora.get("/sites")
            .await
            .text
            .contains("You act for <b>mill</b>")
    );
    assert_eq!(nora.get("/accounts").await.status, 403);
    assert!(miller.get("/audit").await.text.contains("account.act_for"));
    // The provider takes the account away: whoever acted for it is out at the next click.
    let path = format!("/accounts/{mill}/plan");
    assert_eq!(owner.post(&path, &[("plan", "standard")]).await.status, 303);
    assert!(!nora.get("/accounts").await.text.contains("mill"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_by_the_provider_is_not_ended_by_the_reseller() {
    let world = World::new().await;
    let (_, token) = reseller(&world, "north", 5, 5).await;
    let any = [("if-match", "*")];
    let small = json!({"name": "small", "limits": limits(2, 64)});
    world
        .send(0, &token, "POST", "/v1/plans", Some(small), &[])
        .await
        .expect(201);
    let wish = json!({"name": "mill", "plan": "small"});
    let made = world
        .send(0, &token, "POST", "/v1/accounts", Some(wish), &[])
        .await;
    let path = format!("/v1/accounts/{}", made.expect(201).text("/id"));
    for (who, act, status, state) in [
        (&token, "suspend", 200, "suspended"),
        (&token, "unsuspend", 200, "active"),
        (&world.provider, "suspend", 200, "suspended"),
        (&token, "unsuspend", 403, "suspended"),
        (&token, "suspend", 403, "suspended"),
        (&world.provider, "unsuspend", 200, "active"),
    ] {
        let done = world
            .send(0, who, "POST", &format!("{path}/{act}"), None, &any)
            .await;
        assert_eq!(done.status, status, "{act}: {done:?}");
        assert_eq!(world.get(&path).await.text("/state"), state);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_of_one_site_sees_that_one_and_billing_sees_the_plan_alone() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    let one = world.site("one.localhost", &account, "web-1", "php").await;
    let two = world.site("two.localhost", &account, "web-1", "php").await;
    let operation = world.get("/v1/operations").await.text("/items/0/id");
    let mut owner = owner(&world).await;
    let mut baker = customer(&world, &mut owner, &account, "baker@example.com").await;
    let narrow = |sites| {
        [
            ("name", "ci"),
            ("may", "deploy"),
            ("days", "1"),
            ("sites", sites),
        ]
    };
    let shown = baker.post("/tokens", &narrow("One.localhost")).await;
    assert!(
        shown.text.contains("look and deploy, of one site"),
        "{}",
        shown.text
    );
    let refused = baker.post("/tokens", &narrow("other.example")).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    let mut invited = async |role: &str, sites: &str, email: &str| {
        let shown = baker
            .post("/people", &[("role", role), ("sites", sites)])
            .await;
        assert_eq!(shown.status, 200, "{shown:?}");
        let mut browser = Browser::new(&world, 0);
        let entered = browser.welcome(&link_in(&shown.text), email).await;
        assert_eq!(entered.status, 303);
        browser
    };
    let mut helper = invited("manager", "one.localhost", "helper@example.com").await;
    let mut clerk = invited("billing", "", "clerk@example.com").await;
    let wrong = [("role", "manager"), ("sites", "other.example")];
    assert_eq!(baker.post("/people", &wrong).await.status, 422);
    let wrong = [("role", "owner"), ("sites", "one.localhost")];
    assert_eq!(baker.post("/people", &wrong).await.status, 422);

    let list = helper.get("/sites").await.text;
    assert!(list.contains("one.localhost") && !list.contains("two.localhost"));
    assert_eq!(helper.get(&format!("/sites/{one}")).await.status, 200);
    let database = [("name", "shop")];
    let path = format!("/sites/{one}/databases");
    assert_eq!(helper.post(&path, &database).await.status, 200);
    for it in TABLE.iter().filter(|it| it.path.starts_with("/sites/{id}")) {
        let path = it.path.replace("{id}", &two);
        let fields = [
            ("confirm", "two.localhost"),
            ("name", "x"),
            ("release", one.as_str()),
        ];
        let shown = match it.method.as_str() {
            "GET" => helper.get(&path).await,
            _ => helper.post(&path, &fields).await,
        };
        assert_eq!(shown.status, 404, "{} {}", it.method, it.path);
    }
    for list in ["/operations", "/people", "/audit", "/tokens", "/me"] {
        let text = helper.get(list).await.text;
        assert!(
            !text.contains("two.localhost") && !text.contains("baker@"),
            "{list}"
        );
    }
    let path = format!("/operations/{operation}");
    assert_eq!(
        helper.get(&path).await.status,
        404,
        "it is of the other site"
    );
    let more = [("domain", "more.localhost"), ("runtime", "php")];
    assert_eq!(helper.post("/sites/new", &more).await.status, 403);
    let token = [("name", "t"), ("may", "all"), ("days", "1")];
    assert_eq!(helper.post("/tokens", &token).await.status, 403);
    assert_eq!(
        helper.post("/people", &[("role", "owner")]).await.status,
        403
    );

    assert_eq!(clerk.get("/").await.to, "/plan");
    assert!(clerk.get("/plan").await.text.contains("2 of 100"));
    assert_eq!(clerk.get("/me").await.status, 200);
    for it in TABLE.iter().filter(|it| it.who == Who::Person) {
        if it.scope == undine_api::public::Scope::Billing {
            continue;
        }
        let path = it.path.replace("{id}", &one);
        let shown = match it.method.as_str() {
            "GET" => clerk.get(&path).await,
            _ => clerk.post(&path, &[]).await,
        };
        assert_eq!(shown.status, 403, "{} {}", it.method, it.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reseller_s_audit_is_about_its_own_customers_and_shows_nothing_of_others() {
    let world = World::new().await;
    let any = [("if-match", "*")];
    let (north, northern) = reseller(&world, "north", 5, 5).await;
    let (south, southern) = reseller(&world, "south", 5, 5).await;
    let (victim, _) = world.account("victim").await;
    let mut accounts = Vec::new();
    for (token, name) in [(&northern, "mill"), (&southern, "mine")] {
        let plan = json!({"name": format!("{name}-plan"), "limits": limits(2, 64)});
        let made = world
            .send(0, token, "POST", "/v1/plans", Some(plan), &[])
            .await;
        let plan = made.expect(201).text("/id");
        let wish = json!({"name": name, "plan": format!("{name}-plan")});
        let made = world
            .send(0, token, "POST", "/v1/accounts", Some(wish), &[])
            .await;
        let account = made.expect(201).text("/id");
        let path = format!("/v1/accounts/{account}/suspend");
        world
            .send(0, token, "POST", &path, None, &any)
            .await
            .expect(200);
        accounts.push((account, plan));
    }
    let ((mill, small), (mine, other_plan)) = (accounts[0].clone(), accounts[1].clone());
    // Asking for what is another's is in the provider's audit alone.
    let path = format!("/v1/accounts/{mine}");
    let refused = world.send(0, &northern, "GET", &path, None, &[]).await;
    refused.expect(404);
    let rows = async |token: &str, query: &str| {
        let path = format!("/v1/audit?limit=500{query}");
        let page = world.send(0, token, "GET", &path, None, &[]).await;
        let Value::Array(rows) = page.expect(200).body["items"].take() else {
            panic!("no rows")
        };
        rows
    };
    let own = rows(&northern, "").await;
    assert!(
        own.iter().all(|row| row["reseller"] == north.as_str()),
        "{own:?}"
    );
    let acts: Vec<_> = own
        .iter()
        .filter_map(|row| row["action"].as_str())
        .collect();
    for act in [
        "plan.create",
        "account.create",
        "account.suspend",
        "token.create",
    ] {
        assert!(acts.contains(&act), "{act}: {acts:?}");
    }
    let text = serde_json::to_string(&own).unwrap();
    assert!(text.contains(&mill) && text.contains(&small));
    for hidden in [&mine, &other_plan, &victim, &south] {
        assert!(!text.contains(hidden.as_str()), "{text}");
    }
    assert_eq!(rows(&world.provider, "&reseller=north").await, own);
    assert_eq!(
        rows(&world.provider, &format!("&reseller={north}")).await,
        own
    );
    assert_eq!(rows(&northern, "&reseller=north").await, own);
    let path = "/v1/audit?reseller=south";
    let refused = world.send(0, &northern, "GET", path, None, &[]).await;
    refused.expect(404);
    assert_eq!(rows(&northern, "&action=plan.create").await.len(), 1);

    let mut owner = owner(&world).await;
    let mut nora = seller(&mut owner, &world, &north, "nora@example.com").await;
    let page = nora.get("/audit").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("account.suspend") && page.text.contains(&mill));
    assert!(nora.get("/accounts").await.text.contains("href=\"/audit\""));
    for hidden in [&mine, &other_plan, &victim, &south] {
        assert!(!page.text.contains(hidden.as_str()), "{}", page.text);
    }
    assert_eq!(nora.get("/audit?reseller=south").await.status, 404);
    let page = owner.get("/audit?reseller=south").await.text;
    assert!(page.contains(&mine) && !page.contains(&mill), "{page}");

    // The provider takes the account over: its seller reads that it left, and nothing after that.
    let path = format!("/v1/accounts/{mill}");
    let wish = json!({"plan": "standard"});
    let moved = world.change("PATCH", &path, Some(wish)).await;
    moved.expect(200);
    let before = rows(&northern, "").await;
    assert_eq!(before[0]["action"], "account.leave", "{before:?}");
    let end = format!("{path}/unsuspend");
    world.change("POST", &end, None).await.expect(200);
    assert_eq!(rows(&northern, "").await, before);
}
