//! The shipped profiles and applications, rendered: goldens, and no way out of a place.
#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use undine_manifest::load::{self, Files};
use undine_manifest::render::{AppView, Facts, Renderer, app};
use undine_manifest::{Caps, DatabaseSpec, Profile, SiteSettings, SiteSpec};
use undine_model::{AccountId, Bytes, DatabaseId, MilliCpu, SiteId};

fn folder(name: &str) -> Files {
    fn walk(root: &Path, folder: &Path, files: &mut Files) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, files);
            } else {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                files.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name);
    let mut files = Files::new();
    walk(&root, &root, &mut files);
    files
}

fn web_php() -> Profile {
    load::profile("web-php", &folder("profiles")).unwrap()
}

fn site(runtime: &str, settings: SiteSettings) -> SiteSpec {
    SiteSpec {
        id: SiteId::from_parts(1, [0; 10]),
        account: AccountId::from_parts(1, [0; 10]),
        uid: 20_001,
        domain: "shop.example.com".parse().unwrap(),
        aliases: vec!["www.shop.example.com".parse().unwrap()],
        runtime: runtime.parse().unwrap(),
        settings,
        caps: Caps {
            cpu: MilliCpu(500),
            memory: Bytes::mib(256),
            processes: 40,
            io_bytes_per_s: Bytes::mib(10),
            iops: 200,
            disk: Bytes::gib(1),
            inodes: 10_000,
        },
        suspended: false,
        release: None,
    }
}

fn pair(key: &str, value: &str) -> BTreeMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

#[test]
fn every_shipped_profile_and_application_can_be_read() {
    let names = |profiles: Vec<Profile>| -> Vec<String> {
        profiles.into_iter().map(|p| p.name.to_string()).collect()
    };
    assert_eq!(
        names(load::profiles(&folder("profiles")).unwrap()),
        ["static", "web-php"]
    );
    let apps = load::apps(&folder("apps")).unwrap();
    assert_eq!(apps[0].name.as_str(), "wordpress");
    assert!(apps[0].files["wp-config.php"].contains("DB_PASSWORD"));
}

#[test]
fn a_php_site_gets_a_pool_with_its_own_limits() {
    let profile = web_php();
    let renderer = Renderer::new(&profile, &Facts::default()).unwrap();
    let settings = SiteSettings {
        php: pair("memory_limit", "128M"),
        env: pair("APP_KEY", "a;b\"$c"),
        ..SiteSettings::default()
    };
    let rendered = renderer.site(&site("php", settings), "").unwrap();
    assert_eq!(rendered.unit, "undine-php@20001.socket");
    assert_eq!(rendered.worker, "undine-php@20001.service");
    let pool = &rendered.files["/run/undine/php.d/20001.conf"];
    for line in [
        "pm.max_children = 5",
        "php_value[memory_limit] = '128M'",
        "env[APP_KEY] = 'a;b\"$c'",
        "php_admin_value[open_basedir] = /srv/sites/20001/:/usr/share/php/:/run/undine/php-lib/",
        "php_admin_value[session.save_path] = /srv/sites/20001/sessions",
    ] {
        assert!(
            pool.lines().any(|l| l == line),
            "{line} is missing in\n{pool}"
        );
    }
    assert!(rendered.files.contains_key("/srv/sites/20001/runtime-php"));
    assert_eq!(rendered.vhost, None);
}

#[test]
fn only_settings_that_the_shared_block_cannot_serve_bring_a_block_of_their_own() {
    let profile = web_php();
    let renderer = Renderer::new(&profile, &Facts::default()).unwrap();
    let settings = SiteSettings {
        document_root: "public".into(),
        ..SiteSettings::default()
    };
    assert_eq!(
        renderer.site(&site("static", settings), "").unwrap().vhost,
        None
    );
    let settings = SiteSettings {
        redirects: pair("/old", "https://example.org/new"),
        max_upload: Some(Bytes::mib(200)),
        ..SiteSettings::default()
    };
    assert_eq!(
        renderer
            .site(&site("static", settings), "")
            .unwrap()
            .vhost
            .unwrap(),
        "# shop.example.com: settings that the shared block cannot serve.\n\
         server {\n    listen 80;\n    listen [::]:80;\n    \
         server_name shop.example.com www.shop.example.com;\n    \
         client_max_body_size 209715200;\n    \
         location ^~ \"/old\" {\n        return 301 \"https://example.org/new\";\n    }\n    \
         include /etc/nginx/undine-site.conf;\n}\n"
    );
}

#[test]
fn only_the_edges_may_say_who_a_visitor_is() {
    let profile = web_php();
    let facts = Facts {
        edges: vec!["10.214.0.2".parse().unwrap(), "fd5e::2".parse().unwrap()],
        ..Facts::default()
    };
    let renderer = Renderer::new(&profile, &facts).unwrap();
    let files = renderer
        .service(&profile.services[0], "/candidate")
        .unwrap();
    let text = &files["/etc/nginx/nginx.conf"];
    assert!(text.contains("    set_real_ip_from 10.214.0.2;\n    set_real_ip_from fd5e::2;\n"));
    assert!(text.contains("include /candidate/run/undine/vhosts/*.conf;"));
    let check = renderer
        .service_check(&profile.services[0], "/candidate")
        .unwrap();
    assert_eq!(check.last().unwrap(), "/candidate/etc/nginx/nginx.conf");
}

#[test]
fn an_unknown_runtime_and_a_broken_setting_are_named() {
    let profile = web_php();
    let renderer = Renderer::new(&profile, &Facts::default()).unwrap();
    let error = renderer
        .site(&site("cobol", SiteSettings::default()), "")
        .unwrap_err();
    assert!(error.to_string().contains("no runtime `cobol`"));
    let settings = SiteSettings {
        php: pair("open_basedir", "/"),
        ..SiteSettings::default()
    };
    let error = renderer.site(&site("php", settings), "").unwrap_err();
    assert!(error.to_string().contains("settings.php.open_basedir"));
}

#[test]
fn an_applications_secrets_stay_in_their_quotes() {
    let apps = load::apps(&folder("apps")).unwrap();
    let site = site("php", SiteSettings::default());
    let database = DatabaseSpec {
        id: DatabaseId::from_parts(1, [0; 10]),
        site: site.id,
        name: "shop".into(),
        user: "shop".into(),
        password: "it's; $x <?php".into(),
    };
    let secrets: Vec<String> = (0..16).map(|n| format!("secret{n}")).collect();
    let rendered = app(
        &apps[0],
        &AppView {
            site: &site,
            database: Some(&database),
            answers: &BTreeMap::new(),
            secrets: &secrets,
            release: "/r",
            work: "/w",
        },
    )
    .unwrap();
    let config = &rendered.files["wp-config.php"];
    assert!(
        config.contains("define('DB_PASSWORD', 'it\\'s; $x <?php');"),
        "{config}"
    );
    assert!(config.contains("['shop.example.com', 'www.shop.example.com']"));
    assert_eq!(rendered.install.last().unwrap(), "/r");
}

/// The shape of an nginx file: every word outside quotes, quoted ones as one mark.
fn nginx_shape(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                word.push('\u{1}');
            }
            '#' if word.is_empty() => while chars.next().is_some_and(|c| c != '\n') {},
            '{' | '}' | ';' => {
                words.push(std::mem::take(&mut word));
                words.push(c.to_string());
            }
            c if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The keys of a PHP-FPM file; fails on anything that is not one key, one value.
fn ini_keys(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(';'))
        .map(|line| match line.split_once(" = ") {
            None => {
                assert!(line == "[global]" || line == "[www]", "{line:?}");
                line.to_owned()
            }
            Some((key, value)) => {
                if let Some(mark @ ('\'' | '"')) = value.chars().next() {
                    assert!(value.len() >= 2 && value.ends_with(mark), "{line:?}");
                    assert!(!value[1..value.len() - 1].contains(mark), "{line:?}");
                }
                key.to_owned()
            }
        })
        .collect()
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z/;{}\"'$\\\\\n\r=\\[\\] .]{0,40}",
        Just("x\n[global]\nerror_log = /etc/passwd".to_owned()),
        Just("\"; } server { root /; } #".to_owned()),
        "/[a-z]{1,8}",
        "https://[a-z]{1,8}\\.example/[a-z]{0,8}",
        "[A-Z_]{1,8}",
    ]
}

proptest! {
    #[test]
    fn no_setting_breaks_out_of_its_place(
        document_root in hostile(),
        php in (hostile(), hostile()),
        env in (hostile(), hostile()),
        redirect in (hostile(), hostile()),
    ) {
        let profile = web_php();
        let renderer = Renderer::new(&profile, &Facts::default()).unwrap();
        let given = SiteSettings {
            document_root,
            php: pair(&php.0, &php.1),
            env: pair(&env.0, &env.1),
            redirects: pair(&redirect.0, &redirect.1),
            ..SiteSettings::default()
        };
        // One at a time, so that one refused setting does not hide the others.
        for settings in [
            SiteSettings { php: given.php.clone(), ..SiteSettings::default() },
            SiteSettings { env: given.env.clone(), ..SiteSettings::default() },
            SiteSettings { redirects: given.redirects.clone(), ..SiteSettings::default() },
            SiteSettings { document_root: given.document_root.clone(), ..SiteSettings::default() },
        ] {
            let Ok(rendered) = renderer.site(&site("php", settings.clone()), "") else {
                continue;
            };
            let plain = renderer.site(&site("php", SiteSettings {
                php: settings.php.keys().map(|k| (k.clone(), "1".to_owned())).collect(),
                env: settings.env.keys().map(|k| (k.clone(), "1".to_owned())).collect(),
                ..SiteSettings::default()
            }), "").unwrap();
            let pool = "/run/undine/php.d/20001.conf";
            prop_assert_eq!(ini_keys(&rendered.files[pool]), ini_keys(&plain.files[pool]));
            if let Some(vhost) = rendered.vhost {
                let harmless = renderer.site(&site("php", SiteSettings {
                    redirects: pair("/a", "/b"),
                    ..SiteSettings::default()
                }), "").unwrap();
                prop_assert_eq!(nginx_shape(&vhost), nginx_shape(&harmless.vhost.unwrap()));
            }
            prop_assert!(!settings.document_root.contains("..") && !settings.document_root.starts_with('/'));
        }
    }
}
