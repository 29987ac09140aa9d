//! The UDP sockets that NOTIFY goes out by: one for each address family, however many secondaries are
//! waited for. Answers are told apart by whom they are from and by their id.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UdpSocket;
use tokio::sync::{OnceCell, mpsc};
use tokio_util::sync::CancellationToken;

/// Answers to one NOTIFY that are not looked at yet. There is one, unless someone forges more.
const ANSWERS_MAX: usize = 4;
/// An answer to NOTIFY has a question, maybe a SOA, an OPT and a TSIG.
const ANSWER_BYTES_MAX: usize = 4096;

type Waiting = Mutex<HashMap<(SocketAddr, u16), mpsc::Sender<Vec<u8>>>>;

/// Both sockets, each made when it is first needed.
#[derive(Debug)]
pub(super) struct Post {
    v4: OnceCell<Arc<UdpSocket>>,
    v6: OnceCell<Arc<UdpSocket>>,
    waiting: Arc<Waiting>,
    shutdown: CancellationToken,
}

/// Someone's wait for an answer; given up when dropped.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    waiting: &'a Waiting,
    key: (SocketAddr, u16),
    receiver: mpsc::Receiver<Vec<u8>>,
}

impl Post {
    pub(super) fn new(shutdown: CancellationToken) -> Self {
        Self { v4: OnceCell::new(), v6: OnceCell::new(), waiting: Arc::default(), shutdown }
    }

    /// Sends a message with this id; answers that come from `address` with that id are the caller's.
    /// An error if another of that id is under way there.
    pub(super) async fn send(
        &self,
        address: SocketAddr,
        id: u16,
        message: &[u8],
    ) -> io::Result<Answers<'_>> {
        let socket = self.socket(address).await?;
        let key = (SocketAddr::new(address.ip().to_canonical(), address.port()), id);
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        match lock(&self.waiting).entry(key) {
            Entry::Vacant(free) => drop(free.insert(sender)),
            Entry::Occupied(_) => {
                return Err(io::Error::other("another NOTIFY of this id is under way"));
            }
        }
        let answers = Answers { waiting: &self.waiting, key, receiver };
        socket.send_to(message, address).await?;
        Ok(answers)
    }

    async fn socket(&self, to: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let (cell, any) = match to {
            SocketAddr::V4(_) => (&self.v4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            SocketAddr::V6(_) => (&self.v6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        let made = cell.get_or_try_init(|| async {
            let socket = Arc::new(UdpSocket::bind((any, 0)).await?);
            tokio::spawn(sort(socket.clone(), self.waiting.clone(), self.shutdown.clone()));
            Ok::<_, io::Error>(socket)
        });
        made.await.cloned()
    }
}

impl Answers<'_> {
    /// The next answer.
    pub(super) async fn next(&mut self) -> Vec<u8> {
        match self.receiver.recv().await {
            Some(answer) => answer,
            // Nobody but this wait takes the sender out.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.key);
    }
}

/// Hands answers to those who wait for them, until shutdown. What nobody waits for is dropped.
async fn sort(socket: Arc<UdpSocket>, waiting: Arc<Waiting>, shutdown: CancellationToken) {
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = shutdown.cancelled() => return,
        };
        let Ok((len, from)) = received else {
            tokio::time::sleep(crate::query::SOCKET_ERROR_PAUSE).await;
            continue;
        };
        let Some(octets @ [a, b, ..]) = buffer.get(..len) else { continue };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if let Some(sender) = lock(&waiting).get(&(from, u16::from_be_bytes([*a, *b]))) {
            let _ = sender.try_send(octets.to_vec());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
