//! What a certificate says about its holder.

use undine_api::internal::Role;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// The name that every control instance's certificate carries beside its own.
pub const CONTROL_HOST: &str = "control.undine.internal";

/// A program of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// What it is.
    pub role: Role,
    /// Its id; a guard's is its node's.
    pub id: String,
}

/// The host name under which the CA certifies the holder of this id.
pub fn host_of(role: Role, id: &str) -> String {
    format!("{id}.{}.undine.internal", role.as_str())
}

impl Identity {
    /// As it stands in a certificate.
    pub fn uri(&self) -> String {
        format!("undine://{}/{}", self.role.as_str(), self.id)
    }

    fn from_uri(uri: &str) -> Option<Self> {
        let (role, id) = uri.strip_prefix("undine://")?.split_once('/')?;
        let role = [Role::Control, Role::Node, Role::Guard, Role::Edge]
            .into_iter()
            .find(|candidate| candidate.as_str() == role)?;
        Some(Self {
            role,
            id: id.to_owned(),
        })
    }

    /// The identity in a certificate (DER) whose chain has been verified already.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        certificate
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    names.general_names.iter().find_map(|name| match name {
                        GeneralName::URI(uri) => Self::from_uri(uri),
                        _ => None,
                    })
                }
                _ => None,
            })
    }
}
