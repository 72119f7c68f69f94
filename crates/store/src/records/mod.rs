//! The records, by theme. Each has an id, a version, and the times it was made and changed.

pub mod cluster;
pub mod mail;
pub mod operation;
pub mod people;
pub mod server;
pub mod site;
pub mod tenancy;

macro_rules! plain {
    ($($record:ty),* $(,)?) => {$(impl crate::record::Plain for $record {})*};
}
plain!(
    cluster::Instance,
    cluster::Node,
    cluster::Edge,
    cluster::JoinToken,
    people::Person,
    people::Membership,
    people::Login,
    people::Link,
    people::Failures,
    mail::Mail,
    tenancy::Reseller,
    tenancy::Plan,
    tenancy::Account,
    tenancy::Token,
    tenancy::Audit,
    server::Profile,
    server::Image,
    server::Server,
    server::Replica,
    server::Removal,
    server::Doubt,
    site::Database,
    site::Release,
    site::SiteCertificate,
);
