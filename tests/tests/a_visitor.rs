//! What visitors of the demo sites see, through every edge.

use anyhow::Result;
use undine_e2e::{Browser, Page, Summary, Visitor};

#[tokio::test]
async fn every_site_answers_through_every_edge() -> Result<()> {
    let summary = Summary::read()?;
    for edge in &summary.edges {
        let visitor = Visitor::at(&edge.address)?;
        for site in &summary.sites {
            let page = visitor.get(&site.host, "/").await?;
            assert_eq!(page.status, 200, "{} at {}", site.host, edge.address);
            assert!(
                page.body.contains(&site.expect),
                "{}: {}",
                site.host,
                page.body
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn pages_are_kept_for_those_who_send_no_cookie_where_the_site_wants_it() -> Result<()> {
    let summary = Summary::read()?;
    let visitor = Visitor::at(&summary.edges[0].address)?;
    let (blog, shop) = (summary.site("blog")?, summary.site("shop")?);
    let mark = |page: &Page| {
        let mark = page.headers.get("x-undine-page")?;
        mark.to_str().ok().map(str::to_owned)
    };
    visitor.get(&blog.host, "/").await?;
    let again = visitor.get(&blog.host, "/").await?;
    let kept = mark(&again).unwrap_or_default();
    assert!(
        ["HIT", "STALE", "UPDATING"].contains(&kept.as_str()),
        "{kept}"
    );
    assert!(again.body.contains(&blog.expect));
    for (path, name, value) in [
        ("/", "cookie", "who=me"),
        ("/", "authorization", "Basic bWU6c2VjcmV0"),
        ("/?s=word", "cookie", ""),
    ] {
        let own = visitor.get_by(&blog.host, path, name, value).await?;
        assert_eq!(mark(&own).as_deref(), Some("BYPASS"), "{path} {name}");
    }
    // A program that nobody said this of makes each page anew.
    let own = visitor.get(&shop.host, "/").await?;
    assert_eq!(mark(&own).as_deref(), Some("BYPASS"));
    Ok(())
}

#[tokio::test]
async fn an_unknown_name_gets_a_friendly_page() -> Result<()> {
    let summary = Summary::read()?;
    let page = Visitor::at(&summary.edges[0].address)?
        .get("nobody.localhost", "/")
        .await?;
    assert_eq!(page.status, 404);
    assert!(page.body.contains("<html"), "{}", page.body);
    Ok(())
}

#[tokio::test]
async fn a_session_counts_the_visits_of_one_visitor_through_both_edges() -> Result<()> {
    let summary = Summary::read()?;
    let shop = summary.site("shop")?;
    let first = Visitor::at(&summary.edges[0].address)?
        .get(&shop.host, "/")
        .await?;
    assert!(
        first.body.contains(r#"<strong id="visits">1</strong>"#),
        "{}",
        first.body
    );
    let last = summary.edges.last().expect("an edge");
    let second = Visitor::at(&last.address)?
        .get_with(&shop.host, "/", &first.cookies)
        .await?;
    assert!(
        second.body.contains(r#"<strong id="visits">2</strong>"#),
        "{}",
        second.body
    );
    Ok(())
}

#[tokio::test]
async fn requests_of_one_session_at_the_same_time_are_all_counted() -> Result<()> {
    const AT_ONCE: usize = 8;
    let summary = Summary::read()?;
    let shop = summary.site("shop")?;
    let visitor = Visitor::at(&summary.edges[0].address)?;
    let first = visitor.get(&shop.host, "/").await?;
    let visits = (0..AT_ONCE).map(|_| visitor.get_with(&shop.host, "/", &first.cookies));
    let pages = futures_util::future::try_join_all(visits).await?;
    assert!(pages.iter().all(|page| page.status == 200));
    let last = visitor.get_with(&shop.host, "/", &first.cookies).await?;
    let wanted = format!(r#"<strong id="visits">{}</strong>"#, AT_ONCE + 2);
    assert!(last.body.contains(&wanted), "{}", last.body);
    Ok(())
}

#[tokio::test]
async fn an_owner_logs_in_to_wordpress_in_a_browser() -> Result<()> {
    let summary = Summary::read()?;
    let credentials = std::fs::read_to_string(&summary.credentials_file)?;
    let line = credentials
        .lines()
        .rfind(|line| line.starts_with("wordpress "))
        .expect("a password");
    let words: Vec<&str> = line.split(' ').collect();
    let browser = Browser::start("wordpress").await?;
    let outcome = log_in(&browser, &summary.site("blog")?.url, words[2], words[3]).await;
    browser.picture("wordpress-dashboard").await?;
    browser.quit().await?;
    outcome
}

async fn log_in(browser: &Browser, site: &str, user: &str, password: &str) -> Result<()> {
    use thirtyfour::prelude::*;
    let driver = &browser.driver;
    driver.goto(format!("{site}wp-login.php")).await?;
    // The page moves the focus to the name a moment after it has loaded, as WordPress does.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    for (field, text) in [("user_login", user), ("user_pass", password)] {
        let field = driver.find(By::Id(field)).await?;
        field.clear().await?;
        field.send_keys(text).await?;
    }
    driver.find(By::Id("wp-submit")).await?.click().await?;
    let patience = std::time::Duration::from_secs(120);
    let every = std::time::Duration::from_millis(500);
    driver
        .query(By::Id("wpadminbar"))
        .wait(patience, every)
        .exists()
        .await?;
    let title = driver.title().await?;
    anyhow::ensure!(title.contains("Dashboard"), "the page is {title}");
    Ok(())
}
