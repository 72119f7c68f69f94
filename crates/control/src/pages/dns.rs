//! What to put into DNS for a site and whether it stands there, as people read it.

use std::time::Duration;

use undine_api::public::{DnsName, DnsState, Site, SiteDns};

use super::words::ago;
use crate::app::dns;
use crate::control::Control;

/// The first time somebody looks, the page waits for so long; without scripts they see it at once
/// then.
const PATIENCE: Duration = Duration::from_millis(300);

/// The card on a site's page.
pub struct Dns {
    /// It is being looked up.
    pub pending: bool,
    /// What to put there: name, kind, value.
    pub records: Vec<(String, String, String)>,
    /// What stands there.
    pub names: Vec<Name>,
    /// When it was looked up.
    pub when: String,
}

/// What stands there for a name.
pub struct Name {
    /// The name.
    pub name: String,
    /// The state's shape and colour.
    pub class: &'static str,
    /// The state.
    pub state: &'static str,
    /// More about it.
    pub note: String,
}

/// What is known of a site.
pub async fn of(control: &Control, site: &Site) -> Dns {
    dns::glance(control, site, PATIENCE).await.map_or_else(
        || Dns {
            pending: true,
            records: Vec::new(),
            names: Vec::new(),
            when: String::new(),
        },
        shown,
    )
}

fn shown(dns: SiteDns) -> Dns {
    let record = |it: &undine_api::public::DnsRecord| {
        (it.name.to_string(), it.kind.clone(), it.value.to_string())
    };
    Dns {
        pending: false,
        records: dns.records.iter().map(record).collect(),
        names: dns.names.into_iter().map(name).collect(),
        when: ago(dns.checked_at),
    }
}

fn list<T: ToString>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join(", ")
}

fn name(it: DnsName) -> Name {
    let (class, state) = match it.state {
        DnsState::Here if it.missing.is_empty() => ("", "leads here"),
        DnsState::Here => ("warn", "leads here, in part"),
        DnsState::Partly => ("bad", "leads elsewhere too"),
        DnsState::Elsewhere => ("bad", "leads elsewhere"),
        DnsState::Missing => ("bad", "nothing stands there"),
        DnsState::Unknown => ("off", "not known"),
    };
    let note = match it.state {
        DnsState::Here if it.missing.is_empty() => String::new(),
        DnsState::Here => format!("{} would be good to have too.", list(&it.missing)),
        DnsState::Partly | DnsState::Elsewhere => format!("It says {}.", list(&it.found)),
        DnsState::Missing => "Put the records there; it may take a while to be seen.".to_owned(),
        DnsState::Unknown => it.detail.unwrap_or_default(),
    };
    Name {
        name: it.name.to_string(),
        class,
        state,
        note,
    }
}
