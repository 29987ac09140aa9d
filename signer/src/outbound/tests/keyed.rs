//! Peers with TSIG keys, and listeners of both kinds.

use super::*;
use crate::config::Transport as Between;
use crate::peers::{Peer, PeerTable};
use crate::published::{Catalogue, ZoneAccess};
use crate::tsig::{Algorithm, Key};

fn key(name: &str, secret: u8) -> Arc<Key> {
    let key = Key::new(name.parse().expect("name"), Algorithm::HmacSha256, &[secret; 32]);
    Arc::new(key.expect("key"))
}

fn peers(secret: u8) -> PeerTable {
    let peer = |name: &str, san: bool, transport| Peer {
        name: name.into(),
        identity: san.then(|| IdentityRule::san(&format!("{name}.test"))),
        key: Some(key(&format!("{name}.key."), secret)),
        transport,
        addresses: vec![],
    };
    PeerTable::new([
        peer("tcp", false, Between::Tcp),
        peer("tls", false, Between::Tls),
        peer("both", true, Between::Tls),
        peer("other", false, Between::Tcp),
    ])
    .expect("distinct")
}

fn access() -> Vec<ZoneAccess> {
    let secondaries = ["tcp", "tls", "both"].map(Into::into).to_vec();
    vec![ZoneAccess { zone: zone_name("a.test"), primaries: vec![], secondaries }]
}

struct Bed {
    pki: Pki,
    xot: Arc<Xot>,
    over_tls: SocketAddr,
    over_tcp: SocketAddr,
}

async fn bed(hosts: u32) -> Bed {
    let pki = Pki::new();
    let counters = Arc::<Counters>::default();
    let inbox = Inbox::new(Duration::from_secs(1), counters.clone());
    let catalogue = Arc::new(Catalogue::new(access(), peers(1)));
    catalogue.publish(version("a.test", 5, hosts)).expect("newer");
    let front = Front::new(catalogue, inbox, counters);
    let acceptor = pki.acceptor("signer.test").without_demand();
    let xot = Xot::new(acceptor, front.clone(), Limits::default());
    let (tls, tcp) = (listener().await, listener().await);
    let address = |listener: &TcpListener| listener.local_addr().expect("address");
    let (over_tls, over_tcp) = (address(&tls), address(&tcp));
    tokio::spawn(serve_xot(tls, xot.clone(), CancellationToken::new()));
    tokio::spawn(serve_tcp(tcp, front, ClearLimits::default(), CancellationToken::new()));
    Bed { pki, xot, over_tls, over_tcp }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("bind")
}

impl Bed {
    async fn fetch(&self, source: Source, client: Option<&Connector>) -> Result<u32, String> {
        let (limits, counters) = (inbound::Limits::default(), Counters::default());
        let (zone, have) = (zone_name("a.test"), Some(1));
        let got = inbound::fetch(client, &source, &zone, have, None, BOUNDS, &limits, &counters);
        match got.await.map_err(|error| error.to_string())? {
            Fetched::Zone { serial, .. } | Fetched::UpToDate { serial } => Ok(serial),
        }
    }

    async fn over_tcp(&self, key: Arc<Key>) -> Result<u32, String> {
        self.fetch(Source::by_key_over_tcp("s".into(), self.over_tcp, key), None).await
    }

    /// With a certificate of this name.
    async fn over_tls(&self, san: &str, key: Arc<Key>) -> Result<u32, String> {
        let source = Source::by_key_over_tls("s".into(), self.over_tls, "signer.test", key);
        let client = self.pki.connector(san);
        self.fetch(source.expect("source"), Some(&client)).await
    }

    /// Without a certificate: asks for the zone, and reads until its end.
    async fn bare(&self, key: Option<Arc<Key>>) -> Result<u32, String> {
        let tcp = TcpStream::connect(self.over_tls).await.expect("connect");
        let name = ServerName::try_from("signer.test").expect("name");
        let client = self.pki.bare_client();
        let mut stream = client.connect(name, tcp).await.expect("handshake");
        let mut query = axfr("a.test");
        let mut chain =
            key.map(|key| crate::tsig::sign_request(&key, &mut query, crate::clock::now_s()));
        write_message(&mut stream, &query).await.expect("sent");
        let (mut deframer, mut soas) = (Deframer::new(), 0);
        while soas < 2 {
            while !deframer.ready() {
                if deframer.fill(&mut stream).await.map_err(|e| e.to_string())? == 0 {
                    return Err("closed".into());
                }
            }
            let octets = deframer.take().expect("ready").to_vec();
            let octets = match &mut chain {
                Some(chain) => {
                    let taken = chain.take(&octets, crate::clock::now_s());
                    taken.map_err(|e| e.to_string())?.into_owned()
                }
                None => octets,
            };
            let message = Message::parse(&octets).expect("message");
            if message.header().flags.rcode() != rcode::NOERROR {
                return Err(rcode::text(message.header().flags.rcode()));
            }
            soas += message.section(Section::Answer).filter(|r| r.rtype == 6).count();
        }
        chain.map_or(Ok(()), crate::tsig::Answers::finish).map_err(|e| e.to_string())?;
        Ok(5)
    }
}

fn refused(found: &Result<u32, String>, text: &str) {
    let error = found.as_ref().expect_err("refused");
    assert!(error.contains(text), "{error}, expected {text}");
}

#[tokio::test]
async fn over_tcp_with_the_right_key_of_a_peer_for_tcp() {
    let bed = bed(2_000).await;
    assert_eq!(bed.over_tcp(key("tcp.key.", 1)).await, Ok(5));
    refused(&bed.over_tcp(key("tcp.key.", 2)).await, "BADSIG");
    refused(&bed.over_tcp(key("nobody.key.", 1)).await, "BADKEY");
    refused(&bed.over_tcp(key("tls.key.", 1)).await, "REFUSED");
    refused(&bed.over_tcp(key("both.key.", 1)).await, "REFUSED");
    refused(&bed.over_tcp(key("other.key.", 1)).await, "REFUSED");
    assert_eq!(bed.xot.counters().tsig_refused.read(), 2);
    assert_eq!(bed.xot.counters().transfers_out.read(), 1);
    // Unsigned: one refusal.
    let mut stream = TcpStream::connect(bed.over_tcp).await.expect("connect");
    write_message(&mut stream, &axfr("a.test")).await.expect("sent");
    let mut deframer = Deframer::new();
    while deframer.fill(&mut stream).await.expect("read") > 0 {}
    let answer = Message::parse(deframer.take().expect("answer")).expect("message");
    assert_eq!(answer.header().flags.rcode(), rcode::REFUSED);
    assert_eq!(deframer.pending(), 0);
}

#[tokio::test]
async fn over_tls_all_that_the_entry_has_must_be_shown() {
    let bed = bed(10).await;
    assert_eq!(bed.over_tls("both.test", key("both.key.", 1)).await, Ok(5));
    refused(&bed.over_tls("both.test", key("both.key.", 2)).await, "BADSIG");
    refused(&bed.over_tls("both.test", key("tls.key.", 1)).await, "REFUSED");
    assert_eq!(bed.bare(Some(key("tls.key.", 1))).await, Ok(5));
    refused(&bed.bare(Some(key("tls.key.", 2))).await, "BADSIG");
    refused(&bed.bare(Some(key("both.key.", 1))).await, "REFUSED");
    refused(&bed.bare(None).await, "REFUSED");
    let unsigned =
        Source::new("s".into(), bed.over_tls, IdentityRule::san("signer.test"), "signer.test");
    let with_certificate = bed.pki.connector("both.test");
    let found = bed.fetch(unsigned.expect("source"), Some(&with_certificate)).await;
    refused(&found, "REFUSED");
}

#[tokio::test]
async fn a_key_that_is_replaced_opens_nothing_any_more() {
    let bed = bed(10).await;
    let catalogue = bed.xot.desk.front.catalogue().clone();
    // A reload that reads the same secret changes nothing.
    catalogue.reload(access(), peers(1));
    assert_eq!(bed.over_tcp(key("tcp.key.", 1)).await, Ok(5));
    catalogue.reload(access(), peers(2));
    refused(&bed.over_tcp(key("tcp.key.", 1)).await, "BADSIG");
    assert_eq!(bed.over_tcp(key("tcp.key.", 2)).await, Ok(5));
}

#[tokio::test]
async fn a_reload_ends_a_signed_transfer_under_way() {
    let bed = bed(200_000).await;
    let mut stream = TcpStream::connect(bed.over_tcp).await.expect("connect");
    let mut query = axfr("a.test");
    crate::tsig::sign_request(&key("tcp.key.", 1), &mut query, crate::clock::now_s());
    write_message(&mut stream, &query).await.expect("sent");
    let mut deframer = Deframer::new();
    while !deframer.ready() {
        assert!(deframer.fill(&mut stream).await.expect("read") > 0);
    }
    bed.xot.desk.front.catalogue().reload(access(), peers(2));
    let cut = async {
        while !matches!(deframer.fill(&mut stream).await, Ok(0) | Err(_)) {
            while deframer.take().is_some() {}
        }
    };
    timeout(DEADLINE, cut).await.expect("ends");
    let counters = bed.xot.counters();
    until(|| counters.transfers_out_failed.read() == 1).await;
}

/// Who has recorded one signed query must not hold a peer's place with it.
#[tokio::test]
async fn a_connection_that_stops_signing_is_over() {
    let bed = bed(10).await;
    for unproven in [None, Some(key("tcp.key.", 2))] {
        let mut stream = TcpStream::connect(bed.over_tcp).await.expect("connect");
        let mut recorded = axfr("a.test");
        crate::tsig::sign_request(&key("tcp.key.", 1), &mut recorded, crate::clock::now_s());
        let mut other = axfr("a.test");
        if let Some(key) = unproven {
            crate::tsig::sign_request(&key, &mut other, crate::clock::now_s());
        }
        for query in [&recorded, &other] {
            write_message(&mut stream, query).await.expect("sent");
        }
        let mut deframer = Deframer::new();
        let closed = async {
            while deframer.fill(&mut stream).await.is_ok_and(|octets| octets > 0) {
                while deframer.take().is_some() {}
            }
        };
        timeout(Duration::from_secs(5), closed).await.expect("closed");
    }
}
