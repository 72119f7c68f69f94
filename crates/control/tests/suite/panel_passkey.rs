//! Passkeys in a real Chromium with a virtual authenticator: made, used, used again, and refused.

use serde_json::json;

use crate::panel::{Browser, GOOD, owner};
use crate::panel_browser::{Chromium, owner_link};
use crate::world::World;

/// Passkeys want a host name: an address has none.
async fn at_localhost(world: &World) -> Chromium {
    let mut browser = Chromium::start(world, true).await;
    browser.base = browser.base.replace("127.0.0.1", "localhost");
    let device = json!({
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": true,
        "hasUserVerification": true, "isUserConsenting": true, "isUserVerified": true,
    });
    browser.tell("webauthn/authenticator", device).await;
    browser
}

/// Its script has shown the form: a page is there a moment before its scripts have run.
async fn form(browser: &Chromium) {
    let since = std::time::Instant::now();
    let shown = "return !!document.querySelector('html.passkeys form[data-passkey]')";
    while browser.run(shown).await != true {
        assert!(
            since.elapsed() < std::time::Duration::from_secs(30),
            "no form"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_made_and_logs_in_without_password_and_code() {
    let world = World::new().await;
    let browser = at_localhost(&world).await;
    browser
        .come_in(&owner_link(&world), "ann@example.com")
        .await;
    browser.until("Who serves this panel").await;
    browser.open("/me/passkeys").await;
    form(&browser).await;
    browser.write("main [name=name]", "my laptop").await;
    browser
        .write("main [name=password]", "not my password")
        .await;
    browser.click("main form.tall button").await;
    browser.until("not your password").await;
    form(&browser).await;
    browser.write("main [name=name]", "my laptop").await;
    // Something happens elsewhere: neither the reason nor what was typed goes away.
    world.account("shop").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    browser.until("not your password").await;
    browser.write("main [name=password]", GOOD).await;
    browser.click("main form.tall button").await;
    browser.until("for localhost").await;
    browser.pictures("passkeys").await;
    browser.open("/me/passkeys").await;
    // The same device is not taken twice.
    form(&browser).await;
    browser.write("main [name=name]", "again").await;
    browser.write("main [name=password]", GOOD).await;
    browser.click("main form.tall button").await;
    browser.until("has a passkey here already").await;
    for _ in 0..2 {
        browser.open("/me").await;
        browser.click("nav form button").await;
        form(&browser).await;
        browser.click("form[data-passkey] button").await;
        browser.until("Who serves this panel").await;
    }
    let audit = world.get("/v1/audit").await.body.to_string();
    assert!(audit.contains("person.passkey_made"), "{audit}");
    browser.open("/me/passkeys").await;
    browser.click("main td form button").await;
    browser.until("None yet").await;
    browser.open("/me").await;
    browser.click("nav form button").await;
    form(&browser).await;
    browser.click("form[data-passkey] button").await;
    browser.until("Nobody here has this passkey").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_good_once_and_for_whom_it_was_made() {
    let world = World::new().await;
    let mut owner = owner(&world).await;
    let mut guest = Browser::new(&world, 0);
    let sealed = |page: &str| {
        let after = page.split("name=\"sealed\" value=\"").nth(1).unwrap();
        after.split('"').next().unwrap().to_owned()
    };
    let login = sealed(&guest.get("/login").await.text);
    let person = "AAAAAAAAAAAAAAAAAAAAAA";
    let fields = [("sealed", login.as_str()), ("person", person)];
    let first = guest.bare("/login/passkey", &fields, &[]).await;
    assert_eq!(first.status, 403, "{first:?}");
    assert!(first.text.contains("Nobody here has this passkey"));
    let again = guest.bare("/login/passkey", &fields, &[]).await;
    assert!(again.text.contains("too long"), "{}", again.text);
    // A note to log in makes no passkey, and one to make a passkey logs nobody in.
    let make = sealed(&owner.get("/me/passkeys").await.text);
    let login = sealed(&guest.get("/login").await.text);
    let fields = [
        ("sealed", login.as_str()),
        ("name", "mine"),
        ("password", GOOD),
    ];
    let shown = owner.post("/me/passkeys", &fields).await;
    assert!(shown.text.contains("too long"), "{}", shown.text);
    let fields = [("sealed", make.as_str()), ("person", person)];
    let shown = guest.bare("/login/passkey", &fields, &[]).await;
    assert!(shown.text.contains("too long"), "{}", shown.text);
    assert_eq!(guest.cookie, "");
    let stranger = owner.post("/me/passkeys/remove", &[("id", "x")]).await;
    assert_eq!(stranger.status, 404);
}
