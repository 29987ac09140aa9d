//! A certificate authority of the bed's own, and certificates good and bad.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, RevokedCertParams, SerialNumber, date_time_ymd,
};

use crate::scratch::{Scratch, write};
use crate::users::User;

/// A certificate authority. Its certificate is the file `ca`.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its own certificate, readable by all.
    pub ca: PathBuf,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("ca", &self.ca).finish_non_exhaustive()
    }
}

/// A certificate with its key, as files.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The DNS name in its subject alternative name.
    pub san: String,
    /// PEM certificate, readable by all.
    pub cert: PathBuf,
    /// PEM key (PKCS#8), readable by its owner.
    pub key: PathBuf,
    /// DER of the SubjectPublicKeyInfo: what a pinned key is the SHA-256 of.
    pub spki: Vec<u8>,
    /// Its serial number.
    pub serial: u64,
    owner: User,
}

/// The serial number of the next certificate.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1000);

impl Identity {
    /// Puts `fresh` in place of this one, in the same files: the key first, as who is careful does.
    pub fn replace_with(&mut self, fresh: &Self) -> Result<()> {
        write(&self.key, &std::fs::read_to_string(&fresh.key)?, self.owner, 0o600)?;
        self.replace_certificate(fresh)?;
        (self.spki, self.serial) = (fresh.spki.clone(), fresh.serial);
        Ok(())
    }

    /// Puts the certificate of `fresh` in place and leaves the key: half of a rotation.
    pub fn replace_certificate(&self, fresh: &Self) -> Result<()> {
        write(&self.cert, &std::fs::read_to_string(&fresh.cert)?, User::Harness, 0o644)
    }
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Current,
    /// Until 2021.
    Expired,
    /// From 2090 on.
    NotYet,
    /// From 2020 on, for so long from now.
    Ends(Duration),
}

/// What the extended key usage allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// TLS client and server: what a name server needs.
    Both,
    /// TLS client.
    Client,
    /// TLS server.
    Server,
    /// Signing code: good for no end of a TLS connection.
    Code,
}

impl Authority {
    /// Makes an authority called `name`.
    pub fn new(scratch: &Scratch, name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        scratch.dir("pki", User::Harness, 0o755)?;
        let ca =
            scratch.file(&format!("pki/{name}.ca.pem"), &issuer.pem(), User::Harness, 0o644)?;
        Ok(Self { issuer, ca })
    }

    /// A certificate as it should be, for `san`, whose key `owner` can read.
    pub fn issue(&self, scratch: &Scratch, san: &str, owner: User) -> Result<Identity> {
        self.issue_as(scratch, san, san, owner, Validity::Current, Usage::Both)
    }

    /// A certificate with something about it; `file` names its files.
    pub fn issue_as(
        &self,
        scratch: &Scratch,
        file: &str,
        san: &str,
        owner: User,
        validity: Validity,
        usage: Usage,
    ) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![san.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, san);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = match usage {
            Usage::Both => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Code => vec![ExtendedKeyUsagePurpose::CodeSigning],
        };
        (params.not_before, params.not_after) = match validity {
            Validity::Current => (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1)),
            Validity::Expired => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
            Validity::NotYet => (date_time_ymd(2090, 1, 1), date_time_ymd(2099, 1, 1)),
            Validity::Ends(within) => {
                let end = SystemTime::now().duration_since(UNIX_EPOCH)? + within;
                (date_time_ymd(2020, 1, 1), date_time_ymd(1970, 1, 1) + end)
            }
        };
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            san: san.to_owned(),
            cert: scratch.file(&format!("pki/{file}.pem"), &cert.pem(), User::Harness, 0o644)?,
            key: scratch.file(&format!("pki/{file}.key"), &key.serialize_pem(), owner, 0o600)?,
            spki: key.subject_public_key_info(),
            serial,
            owner,
        })
    }

    /// The file of this authority's revocation list, now with these in it.
    pub fn revoke(&self, scratch: &Scratch, file: &str, revoked: &[&Identity]) -> Result<PathBuf> {
        let entry = |identity: &&Identity| RevokedCertParams {
            serial_number: SerialNumber::from(identity.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(NEXT_SERIAL.fetch_add(1, Ordering::Relaxed)),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = list.signed_by(&self.issuer)?.pem()?;
        scratch.file(&format!("pki/{file}.crl"), &pem, User::Harness, 0o644)
    }
}
