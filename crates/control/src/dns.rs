//! DNS as visitors meet it: what names must lead to, who is asked, and what that means.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use serde::{Deserialize, Serialize};
use undine_api::public::{DnsName, DnsState};
use undine_model::DomainName;
use undine_store::{Db, EdgeFilter};

use crate::refusal::Result;

/// A name server answers within this time, or is asked once more.
const ANSWER: Duration = Duration::from_secs(2);
/// No look-up takes longer.
const WHOLE: Duration = Duration::from_secs(6);
/// The port of name servers.
pub const PORT: u16 = 53;

/// Where visitors must be led, and who is asked whether they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsPolicy {
    /// Instead of the addresses that the edges listen on.
    pub addresses: Vec<IpAddr>,
    /// Instead of the machine's own.
    pub name_servers: Vec<SocketAddr>,
}

impl DnsPolicy {
    /// The setting that holds it.
    pub const KEY: &'static str = "dns";

    /// As it is set.
    pub async fn of(db: &impl Db) -> Result<Self> {
        Ok(db.settings().get(Self::KEY).await?.unwrap_or_default())
    }

    /// What names must lead to.
    pub async fn wanted(&self, db: &impl Db) -> Result<BTreeSet<IpAddr>> {
        if !self.addresses.is_empty() {
            return Ok(self.addresses.iter().copied().collect());
        }
        let edges = db.edges().all(&EdgeFilter::default()).await?;
        let all = edges.iter().flat_map(|edge| &edge.addresses);
        let all = all.filter_map(|text| text.parse::<SocketAddr>().ok());
        // An edge that listens on all addresses does not know which are its public ones.
        Ok(all
            .map(|address| address.ip())
            .filter(|ip| !ip.is_unspecified())
            .collect())
    }

    /// Who is asked, anew each time: what was changed counts at once.
    pub fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = if self.name_servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.name_servers.iter().map(server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = ANSWER;
        options.attempts = 1;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = 0;
        // What this machine alone believes says nothing about visitors.
        options.use_hosts_file = ResolveHosts::Never;
        builder.build()
    }
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let both = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, both)
}

/// The addresses that stand there for a name; none when nothing does.
pub async fn look_up(
    resolver: &TokioResolver,
    name: &DomainName,
) -> Result<BTreeSet<IpAddr>, String> {
    // The last dot: nothing is added to the name.
    let asked = resolver.lookup_ip(format!("{name}."));
    match tokio::time::timeout(WHOLE, asked).await {
        Ok(Ok(found)) => Ok(found.iter().collect()),
        Ok(Err(error)) if error.is_nx_domain() || error.is_no_records_found() => {
            Ok(BTreeSet::new())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no name server answered in time".to_owned()),
    }
}

/// What it means.
pub fn judge(
    name: &DomainName,
    wanted: &BTreeSet<IpAddr>,
    found: Result<BTreeSet<IpAddr>, String>,
) -> DnsName {
    let (found, mut detail) = match found {
        Ok(found) => (found, None),
        Err(why) => (BTreeSet::new(), Some(crate::refusal::capital(&why))),
    };
    let ours = found.intersection(wanted).count();
    let state = if detail.is_some() {
        DnsState::Unknown
    } else if wanted.is_empty() {
        detail = Some("No edge has told its public address yet.".to_owned());
        DnsState::Unknown
    } else if found.is_empty() {
        DnsState::Missing
    } else if ours == found.len() {
        DnsState::Here
    } else if ours > 0 {
        DnsState::Partly
    } else {
        DnsState::Elsewhere
    };
    let missing = match state {
        DnsState::Unknown => Vec::new(),
        _ => wanted.difference(&found).copied().collect(),
    };
    DnsName {
        name: name.clone(),
        state,
        found: found.into_iter().collect(),
        missing,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(all: &[&str]) -> BTreeSet<IpAddr> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_name_leads_here_when_it_leads_nowhere_else() {
        let name: DomainName = "www.example.com".parse().unwrap();
        let wanted = set(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        let state = |found: &[&str]| judge(&name, &wanted, Ok(set(found))).state;
        assert_eq!(
            state(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
            DnsState::Here
        );
        assert_eq!(state(&["192.0.2.2"]), DnsState::Here);
        assert_eq!(state(&["192.0.2.2", "198.51.100.7"]), DnsState::Partly);
        // A forgotten IPv6 address leads most visitors away.
        assert_eq!(state(&["192.0.2.1", "2001:db8::bad"]), DnsState::Partly);
        assert_eq!(state(&["198.51.100.7"]), DnsState::Elsewhere);
        assert_eq!(state(&[]), DnsState::Missing);
        let one = judge(&name, &wanted, Ok(set(&["192.0.2.2"])));
        assert_eq!(one.missing.len(), 2);
    }

    #[test]
    fn what_is_not_known_is_not_called_missing() {
        let name: DomainName = "www.example.com".parse().unwrap();
        let silent = judge(&name, &set(&["192.0.2.1"]), Err("it timed out".to_owned()));
        assert_eq!(silent.state, DnsState::Unknown);
        assert_eq!(silent.detail.as_deref(), Some("It timed out."));
        let nobody = judge(&name, &set(&[]), Ok(set(&["192.0.2.1"])));
        assert_eq!(nobody.state, DnsState::Unknown);
    }
}
