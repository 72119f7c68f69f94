//! A real Chromium, driven over WebDriver, headless, with a profile of its own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use thirtyfour::prelude::*;

use crate::summary::target;
use crate::visit::eventually;

/// A browser and its driver; both end with the value.
pub struct Browser {
    /// Drives it.
    pub driver: WebDriver,
    chromedriver: Child,
    profile: PathBuf,
}

const FLAGS: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

impl Browser {
    /// Starts one; its pages and pictures go below `target/browser`.
    pub async fn start(name: &str) -> Result<Self> {
        // A second call finds it installed: that is what was wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let profile = target().join("browser").join(format!("{name}-profile"));
        let _ = std::fs::remove_dir_all(&profile);
        std::fs::create_dir_all(&profile)?;
        let chromedriver = Command::new("/usr/bin/chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("chromedriver is not installed: apt-get install chromium-driver")?;
        let mut browser = Starting {
            chromedriver: Some(chromedriver),
        };
        let mut wanted = DesiredCapabilities::chrome();
        for flag in FLAGS {
            wanted.add_arg(flag)?;
        }
        wanted.add_arg("--window-size=1280,900")?;
        wanted.add_arg(&format!("--user-data-dir={}", profile.display()))?;
        wanted.set_binary("/usr/bin/chromium")?;
        let address = format!("http://127.0.0.1:{port}");
        let driver = eventually(Duration::from_secs(30), || {
            let (address, wanted) = (address.clone(), wanted.clone());
            async move { Ok(WebDriver::new(address, wanted).await?) }
        })
        .await?;
        driver
            .set_page_load_timeout(Duration::from_secs(120))
            .await?;
        let chromedriver = browser.chromedriver.take().context("just started")?;
        Ok(Self {
            driver,
            chromedriver,
            profile,
        })
    }

    /// Keeps a picture of the page.
    pub async fn picture(&self, name: &str) -> Result<()> {
        let path = target().join("browser").join(format!("{name}.png"));
        Ok(self.driver.screenshot(&path).await?)
    }

    /// Ends it.
    pub async fn quit(mut self) -> Result<()> {
        let quit = self.driver.clone().quit().await;
        let _ = self.chromedriver.kill();
        let _ = self.chromedriver.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
        Ok(quit?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.chromedriver.kill();
        let _ = self.chromedriver.wait();
    }
}

/// Ends the driver when the start fails half-way.
struct Starting {
    chromedriver: Option<Child>,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.chromedriver {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
