//! The panel, at its one address, in a real browser: a new customer's way from the log-in to a
//! site of their own that answers.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use thirtyfour::prelude::*;
use undine_e2e::{Browser, Summary, Undine, target};

const PASSWORD: &str = "seven quiet otters row";
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Somebody before a browser, whose clicks are counted.
struct Person {
    browser: Browser,
    clicks: usize,
}

impl Person {
    async fn open(&self, address: &str) -> Result<()> {
        Ok(self.browser.driver.goto(address).await?)
    }

    async fn find(&self, css: &str) -> Result<WebElement> {
        let found = self.browser.driver.query(By::Css(css)).wait(PATIENCE, LOOK);
        let found = found.and_clickable().first().await;
        found.with_context(|| format!("nothing to click or to fill: {css}"))
    }

    async fn write(&self, css: &str, text: &str) -> Result<()> {
        Ok(self.find(css).await?.send_keys(text).await?)
    }

    async fn click(&mut self, css: &str) -> Result<()> {
        self.find(css).await?.click().await?;
        self.clicks += 1;
        Ok(())
    }

    async fn sees(&self, text: &str) -> Result<String> {
        let begun = Instant::now();
        loop {
            // A page that is just being left has no text.
            let page = self.browser.driver.find(By::Tag("body")).await;
            let page = match page {
                Ok(body) => body.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            if page.contains(text) {
                return Ok(page);
            }
            ensure!(begun.elapsed() < PATIENCE, "no `{text}` on: {page}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Comes in by a one-time link, and chooses a password.
    async fn come_in(&mut self, link: &str, email: &str) -> Result<()> {
        self.open(link).await?;
        self.write("[name=email]", email).await?;
        self.write("[name=name]", "Ann Lee").await?;
        self.write("[name=password]", PASSWORD).await?;
        self.click("form .primary").await
    }

    async fn leave(&mut self) -> Result<()> {
        self.click("nav form button").await?;
        self.sees("Log in").await.map(drop)
    }
}

fn owner_link(summary: &Summary) -> Result<String> {
    let state = summary.token_file.parent().context("a state folder")?;
    let made = Command::new(target().join("debug/undine-control"))
        .args(["owner-link", "--state-dir"])
        .arg(state)
        .output()?;
    ensure!(made.status.success(), "{made:?}");
    Ok(String::from_utf8(made.stdout)?)
}

/// The link among the words of a page or an answer, at the panel's own address.
fn link_in(text: &str, summary: &Summary) -> Result<String> {
    let word = text
        .split_whitespace()
        .find_map(|word| word.split_once("/welcome/"));
    let (_, secret) = word.with_context(|| format!("no link in: {text}"))?;
    Ok(format!("{}welcome/{secret}", summary.panel))
}

#[tokio::test]
async fn a_new_customer_comes_from_the_log_in_to_a_site_that_answers() -> Result<()> {
    let summary = Summary::read()?;
    let mut person = Person {
        browser: Browser::start("journey").await?,
        clicks: 0,
    };
    let outcome = journey(&mut person, &summary).await;
    person.browser.picture("journey").await?;
    person.browser.quit().await?;
    outcome
}

async fn journey(person: &mut Person, summary: &Summary) -> Result<()> {
    let name = format!("journey-{}", std::process::id());
    let provider = Undine::provider(summary);
    let account = provider.run(&["account", "create", &name, "--plan", "standard"])?;
    let account = account["id"].as_str().context("an id")?.to_owned();

    let link = link_in(&owner_link(summary)?, summary)?;
    let owner = format!("owner-{name}@example.com");
    person.come_in(&link, &owner).await?;
    person.sees("Nodes").await?;
    let page = format!("{}accounts/{account}", summary.panel);
    person.open(&page).await?;
    person.click("form[action$=invite] button").await?;
    let link = link_in(&person.sees("/welcome/").await?, summary)?;
    person.leave().await?;
    let customer = format!("{name}@example.com");
    person.come_in(&link, &customer).await?;
    person.sees("No sites yet").await?;
    person.leave().await?;

    // From here on it is what a customer does who comes back with a password.
    person.write("[name=email]", &customer).await?;
    person.write("[name=password]", PASSWORD).await?;
    let begun = Instant::now();
    person.clicks = 0;
    person.click("form .primary").await?;
    person.sees("No sites yet").await?;
    person.click("main .primary").await?;
    let host = format!("{name}.localhost");
    person.write("[name=domain]", &host).await?;
    person.click("[name=runtime][value=php]").await?;
    person.click("main form .primary").await?;
    person.sees("answers\nOpen it").await?;
    let told_s = begun.elapsed().as_secs_f64();
    person.click("a.button.primary[rel=noreferrer]").await?;
    person.sees("This site is ready").await?;
    let seen = person.browser.driver.current_url().await?;
    ensure!(seen.host_str() == Some(&host), "the browser is at {seen}");
    let (clicks, seen_s) = (person.clicks, begun.elapsed().as_secs_f64());
    println!(
        "log-in to own site: {clicks} clicks; it answers after {told_s:.1} s, seen at {seen_s:.1} s"
    );
    let told = serde_json::json!({"clicks": clicks, "answers_s": told_s, "seen_s": seen_s});
    let kept = target().join("bench");
    std::fs::create_dir_all(&kept)?;
    std::fs::write(kept.join("journey.json"), told.to_string())?;
    ensure!(clicks <= 6, "{clicks} clicks are too many");
    Ok(())
}
