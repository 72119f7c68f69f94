//! What must stand in DNS for a site, and what does.

use std::net::IpAddr;

use undine_model::DomainName;

use super::{answers, choices, requests};

answers! {
    /// Where visitors must be led, and who is asked whether they are.
    pub struct DnsSettings {
        /// The addresses that domains must lead to, when they are not those that the edges listen
        /// on: behind a router, or with an address that moves between edges.
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
        pub addresses: Vec<IpAddr>,
        /// The name servers that are asked, such as `9.9.9.9` or `192.0.2.1:5353`; none: those of
        /// the machine that control runs on.
        pub name_servers: Vec<String>,
        /// What domains must lead to now: the addresses above, or the edges'.
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
        pub wanted: Vec<IpAddr>,
        /// Counts its changes; 0 as long as it was never set.
        pub version: i64,
    }

    /// What must stand in DNS for a site, and what does.
    pub struct SiteDns {
        /// What to put there.
        pub records: Vec<DnsRecord>,
        /// What stands there, by name.
        pub names: Vec<DnsName>,
        /// When it was looked up.
        pub checked_at: i64,
    }

    /// A record to put into DNS.
    pub struct DnsRecord {
        /// Its name.
        pub name: DomainName,
        /// `A` or `AAAA`.
        pub kind: String,
        /// The address.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub value: IpAddr,
    }

    /// What DNS says of a name.
    pub struct DnsName {
        /// The name.
        pub name: DomainName,
        /// Does it lead here?
        pub state: DnsState,
        /// The addresses that stand there.
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
        pub found: Vec<IpAddr>,
        /// Addresses of ours that do not.
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
        pub missing: Vec<IpAddr>,
        /// Why it is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub detail: Option<String>,
    }
}

choices! {
    /// Does a name lead here?
    pub enum DnsState {
        /// It leads here and nowhere else.
        Here,
        /// It leads here and elsewhere: some visitors do not come.
        Partly,
        /// It leads elsewhere.
        Elsewhere,
        /// Nothing stands there.
        Missing,
        /// It could not be looked up, or nobody has said what it must lead to.
        Unknown,
    }
}

requests! {
    /// A change of where visitors must be led, and of who is asked; what is left out stays.
    #[derive(Default)]
    pub struct UpdateDnsSettings {
        /// All the addresses that domains must lead to; an empty list: those of the edges.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
        pub addresses: Option<Vec<IpAddr>>,
        /// All the name servers that are asked; an empty list: those of control's machine.
        #[serde(default)]
        pub name_servers: Option<Vec<String>>,
    }
}
