//! stub
use super::*;
use tokio::net::{TcpListener, UdpSocket};
pub(super) struct Shared {
    catalogue: Arc<Catalogue>,
}
pub(super) struct Open {
    pub dns: Vec<(UdpSocket, TcpListener)>,
    pub xot: Vec<TcpListener>,
    pub api: Vec<TcpListener>,
}
pub(super) async fn open(listen: &config::Listen) -> anyhow::Result<Open> {
    let mut open = Open { dns: Vec::new(), xot: Vec::new(), api: Vec::new() };
    for address in &listen.dns {
        let failed = || format!("listen.dns: {address} can't be listened on");
        let udp = UdpSocket::bind(address).await.with_context(failed)?;
        let tcp = TcpListener::bind(address).await.with_context(failed)?;
        open.dns.push((udp, tcp));
    }
    for (name, addresses, into) in
        [("xot", &listen.xot, &mut open.xot), ("api", &listen.api, &mut open.api)]
    {
        for address in addresses {
            let listener = TcpListener::bind(address).await;
            into.push(
                listener
                    .with_context(|| format!("listen.{name}: {address} can't be listened on"))?,
            );
        }
    }
    Ok(open)
}
impl Shared {
    pub(super) fn new(_: &Prepared, catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue }
    }
    pub(super) fn announce(&self) -> crate::runner::Announce { Box::new(|_| {}) }
    pub(super) fn counters(&self) -> crate::api::Counters {
        Box::new(Vec::new)
    }
    pub(super) fn reload(&self, p: &Prepared) {
        self.catalogue.reload(p.access.clone(), p.peers.clone());
    }
    pub(super) fn serve(
        &self,
        _dns: Vec<(UdpSocket, TcpListener)>,
        _xot: Vec<TcpListener>,
        _r: Arc<Runner>,
        _t: &TaskTracker,
        _s: &CancellationToken,
    ) {
    }
}
