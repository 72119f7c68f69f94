//! The second step of a log-in: on, asked for, passed once by each code, recovered, taken away.

use std::time::{SystemTime, UNIX_EPOCH};

use totp_rs::{Builder, Secret};

use crate::panel::{Browser, GOOD, Shown, customer, owner};
use crate::world::World;

const STEP_S: u64 = 30;

/// What a phone that has this secret shows, so many steps from now.
fn code(secret: &str, ahead: u64) -> String {
    let secret = Secret::try_from_base32(secret.replace(' ', "")).unwrap();
    let totp = Builder::new().with_secret(secret).build().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    totp.generate(now.as_secs() + ahead * STEP_S).to_string()
}

fn between(text: &str, from: &str, to: &str) -> String {
    let after = text.split(from).nth(1).unwrap_or_else(|| panic!("{text}"));
    after.split(to).next().unwrap().to_owned()
}

/// Switches it on; answers the secret and the recovery codes.
pub async fn switched_on(browser: &mut Browser) -> (String, Vec<String>) {
    let page = browser.get("/me/second").await;
    let secret = between(&page.text, "<code>", "</code>");
    let sealed = between(&page.text, "name=\"sealed\" value=\"", "\"");
    let fields = |code: &str| {
        [
            ("sealed", sealed.clone()),
            ("password", GOOD.to_owned()),
            ("code", code.to_owned()),
        ]
    };
    let wrong = fields("000000");
    let shown = browser.post("/me/second", &words(&wrong)).await;
    assert_eq!(shown.status, 403, "{shown:?}");
    assert!(shown.text.contains(&secret), "the phone has it already");
    assert!(browser.get("/me").await.text.contains("Set it up"));
    let right = fields(&code(&secret, 0));
    let shown = browser.post("/me/second", &words(&right)).await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let codes = between(&shown.text, "aria-label=\"Recovery codes\">", "</pre>");
    (
        secret,
        codes.split_whitespace().map(str::to_owned).collect(),
    )
}

fn words<'a>(fields: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    fields
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

async fn half_in(browser: &mut Browser, email: &str) {
    let fields = [("email", email), ("password", GOOD)];
    let shown = browser.bare("/login", &fields, &[]).await;
    assert_eq!((shown.status, shown.to.as_str()), (303, "/login/second"));
    assert_eq!(browser.cookie, "", "no session yet");
}

async fn passes(browser: &mut Browser, code: &str) -> Shown {
    browser.bare("/login/second", &[("code", code)], &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_alone_is_not_enough_and_no_code_works_twice() {
    let world = World::new().await;
    let mut first = owner(&world).await;
    let (secret, codes) = switched_on(&mut first).await;
    assert_eq!(codes.len(), 10);
    assert_eq!(
        first.get("/cluster").await.status,
        200,
        "this browser stays"
    );

    let mut next = Browser::new(&world, 0);
    half_in(&mut next, "ann@example.com").await;
    assert_eq!(next.get("/cluster").await.to, "/login");
    let used = code(&secret, 0);
    assert_eq!(passes(&mut next, &used).await.status, 403, "it was used");
    assert_eq!(passes(&mut next, "123456").await.status, 403);
    let shown = passes(&mut next, &code(&secret, 1)).await;
    assert_eq!((shown.status, shown.to.as_str()), (303, "/"), "{shown:?}");
    assert_eq!(next.half, "", "the note is gone");
    assert_eq!(next.get("/cluster").await.status, 200);

    let (mut here, mut there) = (Browser::new(&world, 0), Browser::new(&world, 0));
    for browser in [&mut here, &mut there] {
        half_in(browser, "ann@example.com").await;
    }
    let (one, other) = tokio::join!(passes(&mut here, &codes[7]), passes(&mut there, &codes[7]));
    let mut both = [one.status, other.status];
    both.sort_unstable();
    assert_eq!(both, [303, 403], "one code lets one in");

    let mut lost = Browser::new(&world, 0);
    half_in(&mut lost, "ann@example.com").await;
    let shouted = codes[3].to_uppercase();
    assert_eq!(passes(&mut lost, &shouted).await.status, 303);
    assert!(lost.get("/me").await.text.contains(">8</span>"));
    let mut again = Browser::new(&world, 0);
    half_in(&mut again, "ann@example.com").await;
    assert_eq!(passes(&mut again, &codes[3]).await.status, 403, "once");
    assert_eq!(
        Browser::new(&world, 0)
            .bare("/login/second", &[("code", &codes[4])], &[])
            .await
            .status,
        403
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_ends_with_the_password_and_guessing_codes_is_slowed_down() {
    let world = World::new().await;
    let mut first = owner(&world).await;
    let (_, codes) = switched_on(&mut first).await;
    let mut thief = Browser::new(&world, 0);
    half_in(&mut thief, "ann@example.com").await;
    let new = [("old", GOOD), ("password", "sixteen harbours burn slowly")];
    assert_eq!(first.post("/me/password", &new).await.status, 303);
    let shown = passes(&mut thief, &codes[0]).await;
    assert!(shown.text.contains("too long ago"), "{shown:?}");
    assert_eq!(
        first
            .post("/me/password", &[("old", new[1].1), ("password", GOOD)])
            .await
            .status,
        303
    );
    half_in(&mut thief, "ann@example.com").await;
    let mut status = 403;
    for _ in 0..8 {
        status = passes(&mut thief, "111111").await.status;
        if status == 429 {
            break;
        }
    }
    assert_eq!(status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_renewed_switched_off_and_taken_away_by_an_owner_alone() {
    let world = World::new().await;
    let mut provider = owner(&world).await;
    let (account, _) = world.account("bakery").await;
    let mut baker = customer(&world, &mut provider, &account, "baker@example.com").await;
    let link = baker.post("/people", &[("role", "manager")]).await;
    let mut helper = Browser::new(&world, 0);
    helper
        .welcome(&crate::panel::link_in(&link.text), "helper@example.com")
        .await;
    let (_, old) = switched_on(&mut helper).await;
    let wrong = helper
        .post("/me/second/codes", &[("password", "not it at all")])
        .await;
    assert_eq!(wrong.status, 422);
    let fresh = helper.post("/me/second/codes", &[("password", GOOD)]).await;
    assert!(
        !fresh.text.contains(&old[0]) && fresh.status == 200,
        "{fresh:?}"
    );

    let page = baker.get("/people").await.text;
    let before = page.split("/second/off").next().unwrap();
    let id = before.rsplit('/').next().unwrap();
    let path = format!("/people/{id}/second/off");
    assert_eq!(helper.post(&path, &[]).await.status, 403, "no owner");
    assert_eq!(
        provider.post(&path, &[]).await.status,
        404,
        "not the provider's"
    );
    assert_eq!(baker.post(&path, &[]).await.status, 303);
    let page = baker.get("/people").await.text;
    let own = page.split("/remove").next().unwrap();
    let own = format!("/people/{}/second/off", own.rsplit('/').next().unwrap());
    assert_eq!(
        baker.post(&own, &[]).await.status,
        409,
        "not without a password"
    );
    assert_eq!(helper.get("/sites").await.to, "/login", "sessions end");
    let mut again = Browser::new(&world, 0);
    let fields = [("email", "helper@example.com"), ("password", GOOD)];
    assert_eq!(again.bare("/login", &fields, &[]).await.to, "/");
    switched_on(&mut again).await;
    let off = again.post("/me/second/off", &[("password", GOOD)]).await;
    assert_eq!(off.status, 303);
    assert!(again.get("/me").await.text.contains("Set it up"));
}
