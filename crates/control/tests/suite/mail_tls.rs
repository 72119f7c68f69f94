//! Mail over TLS: the real program and a mail server that speaks it, from `STARTTLS` on or from the
//! first byte, with a certificate that the machine trusts or does not.

use serde_json::{Value, json};
use undine_testkit::smtp::{Catcher, Certificate};

use crate::process::{Cluster, Process};

/// The password is in here, as `AUTH PLAIN` writes it.
const SAID: &str = "AUTH PLAIN AHBhbmVsAGh1bnRlcjIgaHVudGVyMg==";

/// A cluster on a machine that trusts this certificate and no other.
async fn trusting(certificate: &Certificate) -> (Cluster, Process) {
    let cluster = Cluster::new();
    let file = cluster.folder.path().join("trusted.pem");
    std::fs::write(&file, &certificate.pem).unwrap();
    let process = cluster
        .run_with("SSL_CERT_FILE", file.to_str().unwrap())
        .await;
    (cluster, process)
}

/// Sets the mail server and sends a mail by it; answers what came of that.
async fn tried(cluster: &Cluster, catcher: &Catcher, host: &str, encryption: &str) -> (u16, Value) {
    let settings = json!({
        "host": host, "port": catcher.address.port(), "encryption": encryption,
        "from": "Undine <panel@example.com>", "user": "panel", "password": "hunter2 hunter2",
    });
    let (status, said) = cluster.change("PATCH", "/v1/settings/mail", settings).await;
    assert_eq!(status, 200, "{said}");
    let to = json!({"to": "ann@example.com"});
    cluster.change("POST", "/v1/settings/mail/try", to).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_goes_over_tls_and_nothing_but_the_wish_for_it_in_the_clear() {
    undine_link::install_crypto();
    let certificate = Certificate::new("localhost").unwrap();
    let (cluster, _process) = trusting(&certificate).await;
    let asked = Catcher::with_starttls(&certificate).await.unwrap();
    let (status, said) = tried(&cluster, &asked, "localhost", "starttls").await;
    assert_eq!(status, 200, "{said}");
    let mail = asked.wait_for(1).await.remove(0);
    assert_eq!(mail.to, ["ann@example.com"]);
    assert!(mail.text.contains("It can."), "{mail:?}");
    assert!(
        asked.words().contains(&SAID.to_owned()),
        "{:?}",
        asked.words()
    );
    let clear = asked.in_the_clear();
    let words: Vec<_> = clear
        .iter()
        .map(|it| it.split(' ').next().unwrap())
        .collect();
    assert_eq!(words, ["EHLO", "STARTTLS"], "{clear:?}");

    let always = Catcher::with_tls(&certificate).await.unwrap();
    let (status, said) = tried(&cluster, &always, "localhost", "tls").await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(always.wait_for(1).await[0].to, ["ann@example.com"]);
    assert!(
        always.words().contains(&SAID.to_owned()),
        "{:?}",
        always.words()
    );
    assert_eq!(always.in_the_clear(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_is_somebody_else_hears_no_password_and_gets_no_mail() {
    undine_link::install_crypto();
    let (known, other) = ("localhost", Certificate::new("localhost").unwrap());
    let trusted = Certificate::new(known).unwrap();
    let (cluster, _process) = trusting(&trusted).await;
    let asked = Catcher::with_starttls(&other).await.unwrap();
    let always = Catcher::with_tls(&other).await.unwrap();
    let plain = Catcher::start().await.unwrap();
    // Trusted, but for another name than the one that was set.
    let elsewhere = Catcher::with_tls(&trusted).await.unwrap();
    for (catcher, host, encryption) in [
        (&asked, known, "starttls"),
        (&always, known, "tls"),
        (&plain, known, "starttls"),
        (&plain, known, "tls"),
        (&elsewhere, "127.0.0.1", "tls"),
    ] {
        let (status, said) = tried(&cluster, catcher, host, encryption).await;
        assert_eq!(status, 502, "{host} {encryption}: {said}");
        assert_eq!(said["type"], "mail-failed");
        let detail = said["detail"].as_str().unwrap();
        let port = catcher.address.port();
        let named = format!("The mail server {host} at port {port}: ");
        assert!(detail.starts_with(&named), "{detail}");
        assert!(said["remedy"].is_string(), "{said}");
        assert!(catcher.mails().is_empty());
        let words = catcher.words();
        assert!(
            !words
                .iter()
                .any(|it| it.starts_with("AUTH") || it.starts_with("MAIL")),
            "{words:?}"
        );
    }
}
