//! A hidden primary with one small zone, over TLS with client certificates.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use countersign_signer::clock::now_s;
use countersign_signer::tls::{ALPN_DOT, Acceptor, Material, TlsPaths, WallClock};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

const APEX: &[u8] = b"\x07example\x00";

/// A CA and what it issues, as files.
pub struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

impl Pki {
    pub fn new(dir: &Path) -> Self {
        let mut params = CertificateParams::new(vec![]).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("ca");
        std::fs::write(dir.join("ca.pem"), ca.pem()).expect("written");
        Self { ca, dir: dir.to_owned() }
    }

    pub fn issue(&self, name: &str) -> Material {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("params");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.ca).expect("signed");
        let paths = TlsPaths {
            certificate: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}.key")),
            ca: self.dir.join("ca.pem"),
            crl: None,
        };
        std::fs::write(&paths.certificate, certificate.pem()).expect("written");
        std::fs::write(&paths.key, key.serialize_pem()).expect("written");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&paths.key, private).expect("private");
        Material::load(&paths).expect("material")
    }
}

pub struct Primary {
    pub address: SocketAddr,
    pub serial: Arc<AtomicU32>,
    /// Whether there is a delegation with a DS.
    pub child: Arc<AtomicBool>,
    /// Told of each transfer that is asked for, and how many more are answered.
    pub asked: Arc<Notify>,
    pub answers: Arc<Semaphore>,
    task: tokio::task::JoinHandle<()>,
}

impl Primary {
    pub async fn start(pki: &Pki, serial: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let acceptor = Acceptor::new(pki.issue("primary.test"), WallClock(now_s), ALPN_DOT);
        let acceptor = acceptor.expect("acceptor");
        let serial = Arc::new(AtomicU32::new(serial));
        let child = Arc::<AtomicBool>::default();
        let (asked, answers) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(1_000)));
        let shared = (serial.clone(), child.clone());
        let held = (asked.clone(), answers.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, (serial, child)) = (acceptor.clone(), shared.clone());
                let held = held.clone();
                tokio::spawn(async move {
                    if let Ok(accepted) = acceptor.accept(stream, Duration::from_secs(5)).await {
                        serve(accepted.stream, &serial, &child, &held).await;
                    }
                });
            }
        });
        Self { address, serial, child, asked, answers, task }
    }

    pub fn raise_serial(&self) {
        self.serial.fetch_add(1, Ordering::SeqCst);
    }

    pub fn go_away(self) {
        self.task.abort();
    }
}

/// A DS of nobody's key.
const DS: [u8; 36] = {
    let mut rdata = [7; 36];
    (rdata[2], rdata[3]) = (15, 2);
    rdata
};

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    serial: &AtomicU32,
    child: &AtomicBool,
    (asked, answers): &(Arc<Notify>, Arc<Semaphore>),
) {
    while let Ok(len) = stream.read_u16().await {
        let mut query = vec![0; len.into()];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let question_end = 12 + APEX.len() + 4;
        // IXFR (251) is answered with the whole zone (RFC 1995 §4).
        let qtype = &query[12 + APEX.len()..12 + APEX.len() + 2];
        let transfer = matches!(qtype, [0, 251 | 252]);
        let soa = soa(serial.load(Ordering::SeqCst));
        let mut records: Vec<(&[u8], u16, &[u8])> = vec![(APEX, 6, &soa)];
        if transfer {
            asked.notify_one();
            answers.acquire().await.expect("open").forget();
            records.extend([
                (APEX, 2, &b"\x02ns\x07example\x00"[..]),
                (b"\x02ns\x07example\x00", 1, &[192, 0, 2, 1]),
                (b"\x01*\x03www\x07example\x00", 1, &[192, 0, 2, 2]),
            ]);
            if child.load(Ordering::SeqCst) {
                records.push((b"\x03kid\x07example\x00", 2, b"\x02ns\x04test\x00"));
                records.push((b"\x03kid\x07example\x00", 43, &DS));
            }
            records.push((APEX, 6, &soa));
        }
        let mut answer = query[..2].to_vec();
        answer.extend([0x84, 0, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        answer.extend(&query[12..question_end]);
        for (owner, rtype, rdata) in records {
            answer.extend(owner);
            answer.extend(rtype.to_be_bytes());
            answer.extend([0, 1, 0, 0, 0, 60]);
            answer.extend((rdata.len() as u16).to_be_bytes());
            answer.extend(rdata);
        }
        let framed = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
        if stream.write_all(&framed).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

fn soa(serial: u32) -> Vec<u8> {
    let mut rdata = b"\x02ns\x07example\x00\x01h\x07example\x00".to_vec();
    for number in [serial, 3_600, 600, 3_600, 60] {
        rdata.extend(number.to_be_bytes());
    }
    rdata
}
