mod rotation;

use std::fs;
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, duplex};

use super::testing::{BOTH, Leaf, NOW, Pki, connector, set_mode};
use super::*;

const DEADLINE: Duration = Duration::from_secs(5);

fn name(text: &str) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).expect("name")
}

/// One handshake between `client` and a server of `pki` named server.test; what each saw.
async fn shake(
    pki: &Pki,
    client: Connector,
) -> (Result<Identity, HandshakeError>, Result<Identity, HandshakeError>) {
    let acceptor = pki.acceptor("server.test");
    let (near, far) = duplex(1 << 16);
    let accept = tokio::spawn(async move {
        let accepted = acceptor.accept(far, DEADLINE).await?;
        assert!(accepted.alpn);
        Ok(accepted.identity.expect("one is demanded"))
    });
    let connected = client.connect(near, name("server.test"), DEADLINE).await;
    let connected = connected.map(|(mut stream, identity)| {
        // The refusal, if there is one, comes when something is read.
        tokio::spawn(async move { stream.read_u8().await });
        identity
    });
    (connected, accept.await.expect("task"))
}

#[tokio::test]
async fn both_ends_are_proven() {
    let pki = Pki::new();
    let (seen_by_client, seen_by_server) = shake(&pki, pki.connector("client.test")).await;
    assert_eq!(seen_by_client.expect("connected").sans(), ["server.test"]);
    assert_eq!(seen_by_server.expect("accepted").sans(), ["client.test"]);
}

/// Each is refused by the server, and named where it showed a certificate.
#[tokio::test]
async fn clients_are_refused_with_their_identity() {
    let pki = Pki::new();
    let other = Pki::new();
    let leaf = |usages, expired| Leaf { name: "client.test", usages, expired };
    let server_only = &[ExtendedKeyUsagePurpose::ServerAuth];
    for (client, expect) in [
        (pki.odd(&leaf(BOTH, true), &pki), "expired"),
        (other.odd(&leaf(BOTH, false), &pki), "not issued by the configured CA"),
        (pki.odd(&leaf(server_only, false), &pki), "does not allow extended key usage"),
    ] {
        let (_, refused) = shake(&pki, connector(client)).await;
        let text = refused.expect_err("refused").to_string();
        assert!(text.contains(expect), "{text}");
        assert!(text.contains("client.test"), "{text}");
    }
}

/// A connection of a client that has no certificate, its own side done.
async fn come_without(
    pki: &Pki,
    near: tokio::io::DuplexStream,
) -> tokio_rustls::client::TlsStream<tokio::io::DuplexStream> {
    let roots = pki.material("nobody.test").roots.clone();
    let mut config = rustls::ClientConfig::builder_with_details(provider(), Arc::new(NOW))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_DOT.to_vec()];
    let connect = tokio_rustls::TlsConnector::from(Arc::new(config));
    // In TLS 1.3 the client's handshake is done before it is refused.
    connect.connect(name("server.test"), near).await.expect("its side")
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let pki = Pki::new();
    let acceptor = pki.acceptor("server.test");
    let (near, far) = duplex(1 << 16);
    let accept = tokio::spawn(async move { acceptor.accept(far, DEADLINE).await.map(|_| ()) });
    let mut stream = come_without(&pki, near).await;
    let refused = accept.await.expect("task").expect_err("refused");
    assert!(matches!(refused, HandshakeError::CertificateMissing), "{refused}");
    stream.read_u8().await.expect_err("no data");
}

#[tokio::test]
async fn where_none_is_demanded_a_client_may_come_without_and_not_with_a_bad_one() {
    let (pki, other) = (Pki::new(), Pki::new());
    let acceptor = pki.acceptor("server.test").without_demand();
    let (near, far) = duplex(1 << 16);
    let accept = acceptor.accept(far, DEADLINE);
    let (_stream, accepted) = tokio::join!(come_without(&pki, near), accept);
    let accepted = accepted.expect("accepted");
    assert!(accepted.identity.is_none() && accepted.chain.is_empty() && accepted.alpn);
    let leaf = Leaf { name: "client.test", usages: BOTH, expired: false };
    for (client, expect) in [(pki.odd(&leaf, &pki), Ok(())), (other.odd(&leaf, &pki), Err(()))] {
        let (near, far) = duplex(1 << 16);
        let client = connector(client);
        let connect = client.connect(near, name("server.test"), DEADLINE);
        let (_stream, accepted) = tokio::join!(connect, acceptor.accept(far, DEADLINE));
        let found = accepted.map(|accepted| assert!(accepted.identity.is_some()));
        assert_eq!(found.map_err(|_| ()), expect);
    }
}

#[tokio::test]
async fn servers_are_refused_with_their_identity() {
    let pki = Pki::new();
    let other = Pki::new();
    let client_only = &[ExtendedKeyUsagePurpose::ClientAuth];
    for (server, expect) in [
        (pki.odd(&Leaf { name: "server.test", usages: BOTH, expired: true }, &pki), "expired"),
        (pki.odd(&Leaf { name: "other.test", usages: BOTH, expired: false }, &pki), "other.test"),
        (
            other.odd(&Leaf { name: "server.test", usages: BOTH, expired: false }, &pki),
            "not issued",
        ),
        (
            pki.odd(&Leaf { name: "server.test", usages: client_only, expired: false }, &pki),
            "extended key usage",
        ),
    ] {
        let acceptor = Acceptor::new(server, NOW, ALPN_DOT).expect("acceptor");
        let (near, far) = duplex(1 << 16);
        tokio::spawn(async move { acceptor.accept(far, DEADLINE).await.map(|_| ()) });
        let client = pki.connector("client.test");
        let refused = client.connect(near, name("server.test"), DEADLINE).await;
        let text = refused.expect_err("refused").to_string();
        assert!(text.contains(expect) && text.contains("spki_sha256="), "{text}");
    }
}

#[tokio::test]
async fn a_silent_client_is_dropped() {
    let acceptor = Pki::new().acceptor("server.test");
    let (_near, far) = duplex(1 << 16);
    let refused = acceptor.accept(far, Duration::from_millis(20)).await.expect_err("deadline");
    assert!(matches!(refused, HandshakeError::Deadline(_)), "{refused}");
}

#[test]
fn files_are_refused_by_name() {
    let pki = Pki::new();
    let paths = pki.paths(&Leaf { name: "a.test", usages: BOTH, expired: false }, &pki);
    let other = pki.paths(&Leaf { name: "b.test", usages: BOTH, expired: false }, &pki);
    let check = |paths: &TlsPaths, expect: &str| {
        let text = Material::load(paths).expect_err("refused").to_string();
        assert!(text.contains(expect), "{text}, expected {expect}");
    };
    let material = Material::load(&paths).expect("good");
    assert_eq!(material.identity().sans(), ["a.test"]);
    assert_eq!(material.not_after_s(), 1_830_211_200);
    check(
        &TlsPaths { certificate: "/nowhere".into(), ..paths.clone() },
        "/nowhere: cannot be read",
    );
    check(&TlsPaths { certificate: paths.key.clone(), ..paths.clone() }, "no certificate in it");
    check(&TlsPaths { key: other.key.clone(), ..paths.clone() }, "does not serve");
    set_mode(&paths.key, 0o644);
    check(&paths, "mode 0644");
    set_mode(&paths.key, 0o640);
    Material::load(&paths).expect("a group may read");
    fs::write(&paths.key, "nonsense").expect("write");
    check(&paths, "expected a private key in PEM form");
}
