//! UDP in clear, for listed addresses and for peers that sign.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::Front;

/// A query with every option that exists is far smaller; what is longer is cut and then refused.
const UDP_REQUEST_BYTES_MAX: usize = 4096;
/// After an error of accept or receive (out of descriptors, say) this long is waited.
pub(crate) const SOCKET_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Answers datagrams, one after the other, until shutdown. No answer waits for anything.
pub async fn serve_udp(socket: UdpSocket, front: Arc<Front>, shutdown: CancellationToken) {
    let mut buffer = vec![0; UDP_REQUEST_BYTES_MAX];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = shutdown.cancelled() => return,
        };
        let (len, from) = match received {
            Ok(received) => received,
            // An ICMP error to an earlier answer: no reason to stop, nor to wait.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot receive on the UDP socket");
                tokio::time::sleep(SOCKET_ERROR_PAUSE).await;
                continue;
            }
        };
        let Some(octets) = buffer.get(..len) else { continue };
        if let Some(answer) = front.datagram(octets, from).await
            && let Err(error) = socket.send_to(&answer, from).await
        {
            tracing::debug!(%from, %error, "answer not sent");
        }
    }
}
