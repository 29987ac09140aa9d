//! A client that holds a connection over TLS open, as name servers do that fetch often: dig asks
//! once and goes.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::pki::Identity;
use crate::wait::SOON;

const TYPE_SOA: u16 = 6;

/// An open connection to the daemon.
#[derive(Debug)]
pub struct Held {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Held {
    /// Connects with a certificate. Whether it was accepted shows at the first question.
    pub fn connect(
        port: u16,
        identity: &Identity,
        server_ca: &Path,
        server_name: &str,
    ) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for ca in CertificateDer::pem_file_iter(server_ca)? {
            roots.add(ca?)?;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&identity.cert)?],
                PrivateKeyDer::from_pem_file(&identity.key)?,
            )?;
        config.alpn_protocols = vec![b"dot".to_vec()];
        let name = ServerName::try_from(server_name.to_owned())?;
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        tcp.set_read_timeout(Some(SOON))?;
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).context("the TLS handshake")?;
        }
        Ok(Self { stream })
    }

    /// Whether the server's certificate is this one.
    pub fn is_with(&self, identity: &Identity) -> Result<bool> {
        let shown = self.stream.conn.peer_certificates().and_then(|chain| chain.first());
        Ok(shown == Some(&CertificateDer::from_pem_file(&identity.cert)?))
    }

    /// The octets that answer a question for the SOA of `zone`; an error once it is closed.
    pub fn ask_soa(&mut self, zone: &str) -> Result<Vec<u8>> {
        let mut query = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in zone.split('.').filter(|label| !label.is_empty()) {
            query.push(u8::try_from(label.len())?);
            query.extend(label.bytes());
        }
        query.push(0);
        query.extend(TYPE_SOA.to_be_bytes());
        query.extend([0, 1]);
        self.stream.write_all(&u16::try_from(query.len())?.to_be_bytes())?;
        self.stream.write_all(&query)?;
        self.stream.flush()?;
        let mut length = [0; 2];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        self.stream.read_exact(&mut answer)?;
        let (code, answers) = (answer[3] & 0x0f, u16::from_be_bytes([answer[6], answer[7]]));
        ensure!(code == 0 && answers > 0, "rcode {code}, {answers} answers");
        Ok(answer)
    }
}
