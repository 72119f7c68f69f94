//! What a spare server runs before it is needed, so that its programs have been read, linked and,
//! under emulation, translated: one site of each runtime, and a database where there may be one.

use undine_model::{AccountId, Bytes, DatabaseId, DomainName, Id, MilliCpu, ServerId, Slug};

use crate::profile::Profile;
use crate::spec::{Caps, DatabaseSpec, FORMAT, Manifest, SiteSettings, SiteSpec};
use crate::validate::LAST_UID;

/// Name, user and password of the database, known to the rehearsed programs as `REHEARSAL`. It
/// listens on no network and is gone before the server is anybody's.
pub const DATABASE: &str = "rehearsal";

/// The manifest of a rehearsal.
pub fn manifest(profile: &Profile) -> Manifest {
    let sites: Vec<SiteSpec> = (0..=u32::MAX)
        .zip(profile.runtimes.keys())
        .filter_map(|(number, runtime)| site(number, runtime))
        .collect();
    let may_have_databases = profile.services.iter().any(|it| it.only_with_databases);
    let owner = sites.iter().find(|_| may_have_databases);
    let databases = owner.map(database).into_iter().collect();
    Manifest {
        format: FORMAT,
        version: 1,
        server: server(),
        profile: profile.clone(),
        sites,
        databases,
    }
}

/// Nobody's server.
pub fn server() -> ServerId {
    Id::from_parts(0, [0; 10])
}

fn site(number: u32, runtime: &Slug) -> Option<SiteSpec> {
    let [.., low] = number.to_be_bytes();
    let mut settings = SiteSettings::default();
    settings.env.insert("REHEARSAL".into(), DATABASE.into());
    Some(SiteSpec {
        id: Id::from_parts(0, [low; 10]),
        account: AccountId::from_parts(0, [0; 10]),
        uid: LAST_UID - number,
        domain: format!("{runtime}.rehearsal.invalid")
            .parse::<DomainName>()
            .ok()?,
        aliases: Vec::new(),
        runtime: runtime.clone(),
        settings,
        caps: Caps {
            cpu: MilliCpu(1000),
            memory: Bytes::mib(256),
            processes: 64,
            io_bytes_per_s: Bytes::gib(1),
            iops: 100_000,
            disk: Bytes::gib(1),
            inodes: 100_000,
        },
        suspended: false,
        release: None,
    })
}

fn database(site: &SiteSpec) -> DatabaseSpec {
    DatabaseSpec {
        id: DatabaseId::from_parts(0, [0; 10]),
        site: site.id,
        name: DATABASE.into(),
        user: DATABASE.into(),
        password: DATABASE.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;
    use crate::render::{Facts, Renderer};
    use crate::validate;

    fn profiles() -> Vec<Profile> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../profiles");
        let mut files = load::Files::new();
        for room in ["common", "static", "web-php"] {
            for entry in std::fs::read_dir(folder.join(room)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                files.insert(
                    format!("{room}/{name}"),
                    std::fs::read_to_string(&path).unwrap(),
                );
            }
        }
        load::profiles(&files).unwrap()
    }

    #[test]
    fn every_runtime_of_every_profile_can_be_rehearsed() {
        for profile in profiles() {
            let manifest = manifest(&profile);
            validate::manifest(&manifest).unwrap();
            assert_eq!(
                manifest.sites.len(),
                profile.runtimes.len(),
                "{}",
                profile.name
            );
            let renderer = Renderer::new(&profile, &Facts::default()).unwrap();
            for site in &manifest.sites {
                renderer.site(site, "").unwrap();
            }
        }
    }

    #[test]
    fn a_database_is_rehearsed_where_there_may_be_one() {
        let databases = |name: &str| {
            let profile = profiles().into_iter().find(|it| it.name.as_str() == name);
            manifest(&profile.unwrap()).databases.len()
        };
        assert_eq!((databases("static"), databases("web-php")), (0, 1));
    }
}
