//! Certificates for tests: a CA, and leaves with something wrong on purpose.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;

use super::{ALPN_DOT, Acceptor, Connector, Material, TlsPaths, WallClock};

/// 2026-01-01: what every test's clock shows.
pub(crate) const NOW: WallClock = WallClock(|| 1_767_225_600);

/// A certificate authority in a directory of its own.
pub(crate) struct Pki {
    pub dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    pub ca_pem: String,
}

/// What a leaf is to be.
pub(crate) struct Leaf<'a> {
    pub name: &'a str,
    pub usages: &'a [ExtendedKeyUsagePurpose],
    pub expired: bool,
}

pub(crate) const BOTH: &[ExtendedKeyUsagePurpose] =
    &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

impl Pki {
    pub(crate) fn new() -> Self {
        Self::named("CA")
    }

    pub(crate) fn named(name: &str) -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new([]).expect("params");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_pem = params.self_signed(&key).expect("ca").pem();
        let dir = TempDir::new().expect("dir");
        fs::write(dir.path().join("ca.pem"), &ca_pem).expect("write");
        Self { dir, issuer: Issuer::new(params, key), ca_pem }
    }

    /// Writes `NAME.pem` and `NAME.key`; `trust` is the CA that the holder trusts.
    pub(crate) fn paths(&self, leaf: &Leaf<'_>, trust: &Self) -> TlsPaths {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new([leaf.name.to_owned()]).expect("params");
        params.distinguished_name.push(DnType::CommonName, leaf.name);
        params.serial_number = Some(serial(leaf.name));
        params.extended_key_usages = leaf.usages.to_vec();
        params.not_before = date_time_ymd(2025, 1, 1);
        params.not_after = date_time_ymd(if leaf.expired { 2025 } else { 2027 }, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).expect("leaf");
        let at = |ending: &str| self.dir.path().join(format!("{}.{ending}", leaf.name));
        let paths = TlsPaths { certificate: at("pem"), key: at("key"), ca: at("ca"), crl: None };
        fs::write(&paths.certificate, certificate.pem()).expect("write");
        fs::write(&paths.key, key.serialize_pem()).expect("write");
        fs::write(&paths.ca, &trust.ca_pem).expect("write");
        set_mode(&paths.key, 0o600);
        paths
    }

    /// A revocation list, made at the beginning of the year `made` and due anew with `next`.
    pub(crate) fn list(&self, revoked: &[&str], made: i32, next: i32) -> String {
        let entry = |name: &&str| RevokedCertParams {
            serial_number: serial(name),
            revocation_time: date_time_ymd(made, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(made, 1, 1),
            next_update: date_time_ymd(next, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("list").pem().expect("pem")
    }

    /// A leaf with everything right.
    pub(crate) fn material(&self, name: &str) -> Material {
        self.odd(&Leaf { name, usages: BOTH, expired: false }, self)
    }

    /// A leaf as described, whose holder trusts the CA `trust`.
    pub(crate) fn odd(&self, leaf: &Leaf<'_>, trust: &Self) -> Material {
        Material::load(&self.paths(leaf, trust)).expect("material")
    }

    pub(crate) fn acceptor(&self, name: &str) -> Acceptor {
        Acceptor::new(self.material(name), NOW, ALPN_DOT).expect("acceptor")
    }

    pub(crate) fn connector(&self, name: &str) -> Connector {
        connector(self.material(name))
    }

    /// A client that trusts this CA and has no certificate to show.
    pub(crate) fn bare_client(&self) -> tokio_rustls::TlsConnector {
        let ca = CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).expect("ca");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca).expect("root");
        let builder = rustls::ClientConfig::builder_with_details(super::provider(), Arc::new(NOW));
        let mut config = builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_DOT.to_vec()];
        Arc::new(config).into()
    }
}

pub(crate) fn connector(material: Material) -> Connector {
    Connector::new(material, NOW, ALPN_DOT).expect("connector")
}

/// The serial number of every leaf of that name.
fn serial(name: &str) -> SerialNumber {
    SerialNumber::from_slice(name.as_bytes())
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
}
