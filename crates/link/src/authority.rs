//! The certificate authority: the cluster's own, and the local one for sites' certificates.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use undine_api::internal::Role;

use crate::identity::{CONTROL_HOST, Identity, host_of};

/// How long a program's certificate lasts; it is renewed after a third of it, so that a month
/// without control hurts nobody.
const PROGRAM_DAYS: i64 = 90;
const SITE_DAYS: i64 = 365;
const AUTHORITY_DAYS: i64 = 3650;
/// Clocks may differ by this much.
const BACKDATE: Duration = Duration::hours(1);

/// The request or a key could not be read, or signing failed.
#[derive(Debug, thiserror::Error)]
#[error("the certificate authority could not {action}")]
pub struct AuthorityError {
    action: &'static str,
    #[source]
    source: rcgen::Error,
}

fn failed(action: &'static str) -> impl Fn(rcgen::Error) -> AuthorityError {
    move |source| AuthorityError { action, source }
}

/// A certificate authority with its key.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, made at once.
pub struct Issued {
    /// The certificate and its authority, PEM.
    pub chain: String,
    /// The private key, PEM.
    pub key: String,
    /// When it ends, seconds since 1970.
    pub expires_unix_s: i64,
}

impl Authority {
    /// A new authority with this common name; answers it with its private key (PEM), which the
    /// caller keeps secret.
    pub fn create(name: &str, now: OffsetDateTime) -> Result<(Self, String), AuthorityError> {
        let key = KeyPair::generate().map_err(failed("make a key"))?;
        let key_pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, now, AUTHORITY_DAYS);
        let certificate = params.self_signed(&key).map_err(failed("sign itself"))?;
        Ok((
            Self {
                certificate_pem: certificate.pem(),
                issuer: Issuer::new(params, key),
            },
            key_pem,
        ))
    }

    /// An authority from where it was kept.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(failed("read its key"))?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)
            .map_err(failed("read its certificate"))?;
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            issuer,
        })
    }

    /// Its certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Signs a program's request. Of the request only the key counts (its signature is checked);
    /// what the certificate says is decided here.
    pub fn issue(
        &self,
        csr_pem: &str,
        identity: &Identity,
        now: OffsetDateTime,
    ) -> Result<String, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(failed("read the certificate request"))?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, identity.uri());
        params.subject_alt_names = names(identity)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        valid(&mut params, now, PROGRAM_DAYS);
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(failed("sign the certificate"))?;
        Ok(certificate.pem())
    }

    /// A certificate for visitors of these host names.
    pub fn issue_site(
        &self,
        hosts: &[&str],
        now: OffsetDateTime,
    ) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate().map_err(failed("make a key"))?;
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).map_err(failed("name the site"))?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let expires = valid(&mut params, now, SITE_DAYS);
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(failed("sign the certificate"))?;
        Ok(Issued {
            chain: certificate.pem() + &self.certificate_pem,
            key: key.serialize_pem(),
            expires_unix_s: expires.unix_timestamp(),
        })
    }
}

fn valid(params: &mut CertificateParams, now: OffsetDateTime, days: i64) -> OffsetDateTime {
    params.not_before = now - BACKDATE;
    params.not_after = now + Duration::days(days);
    params.not_after
}

fn names(identity: &Identity) -> Result<Vec<SanType>, AuthorityError> {
    let name = |text: String| text.try_into().map_err(failed("name the program"));
    let mut names = vec![
        SanType::URI(name(identity.uri())?),
        SanType::DnsName(name(host_of(identity.role, &identity.id))?),
    ];
    if identity.role == Role::Control {
        names.push(SanType::DnsName(name(CONTROL_HOST.to_owned())?));
    }
    Ok(names)
}
