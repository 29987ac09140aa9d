//! Asks the daemon's API: HTTP/1.1, one request a connection.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Reach;
use crate::api::problem::Problem;
use crate::clock::now_s;
use crate::tls::{ALPN_HTTP, Connector, Material, TlsPaths, WallClock};

/// Connecting may take this long.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// An answer may take this long; the daemon's own bound on a request is lower by default.
const ANSWER_MAX: Duration = Duration::from_secs(900);
/// An answer that is not an export: 200,000 zones of 1 KB each.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A request's body: most have none.
pub(super) type Content = BoxBody<Bytes, std::io::Error>;
/// A request as it was built.
pub(super) type Wanted = Result<Request<Content>, hyper::http::Error>;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The arguments don't fit.
    #[error("{0}")]
    Usage(String),
    /// No daemon there, or it does not take us.
    #[error("the daemon can't be reached at {at}: {problem}\n  hint: {hint}")]
    Unreachable { at: String, problem: String, hint: &'static str },
    /// The daemon said no.
    #[error("{}: {} ({})", .0.title, .0.detail, .0.status)]
    Refused(Problem),
    /// The answer broke off or is not one.
    #[error("the daemon's answer broke off: {0}")]
    Broken(String),
}

/// The way to a daemon.
pub(super) struct Client {
    way: Way,
}

enum Way {
    Unix(PathBuf),
    Https { host: String, port: u16, name: ServerName<'static>, connector: Box<Connector> },
}

impl Client {
    pub(super) fn new(reach: Reach) -> Result<Self, ClientError> {
        let (Some(url), Some(certificate), Some(key), Some(ca)) =
            (reach.url, reach.cert, reach.cert_key, reach.ca)
        else {
            return Ok(Self { way: Way::Unix(reach.socket) });
        };
        let usage = |text: String| ClientError::Usage(text);
        let uri: Uri = url.parse().map_err(|e| usage(format!("--url {url:?}: {e}")))?;
        let host = uri.host().map(|host| host.trim_matches(['[', ']']).to_owned());
        let (Some("https"), Some(host)) = (uri.scheme_str(), host) else {
            return Err(usage(format!("--url {url:?}; expected https://HOST:PORT")));
        };
        let material = Material::load(&TlsPaths { certificate, key, ca, crl: None })
            .map_err(|error| usage(error.to_string()))?;
        let connector = Connector::new(material, WallClock(now_s), ALPN_HTTP)
            .map_err(|error| usage(error.to_string()))?;
        let port = uri.port_u16().unwrap_or(443);
        let name = reach.server_name.unwrap_or_else(|| host.clone());
        let name = ServerName::try_from(name.clone())
            .map_err(|error| usage(format!("{name:?} is not a server's name: {error}")))?;
        Ok(Self { way: Way::Https { host, port, name, connector: Box::new(connector) } })
    }

    fn at(&self) -> String {
        match &self.way {
            Way::Unix(path) => path.display().to_string(),
            Way::Https { host, port, .. } => format!("https://{host}:{port}"),
        }
    }

    fn unreachable(&self, problem: impl std::fmt::Display) -> ClientError {
        let hint = match self.way {
            Way::Unix(_) => {
                "is countersignd running, and are you root, its user, or in its group? \
                 another socket is named with --socket"
            }
            Way::Https { .. } => {
                "is the address right, and is your certificate's identity listed under [api_client]?"
            }
        };
        ClientError::Unreachable { at: self.at(), problem: problem.to_string(), hint }
    }

    /// One request; the whole body of its answer.
    pub(super) async fn fetch(&self, method: &str, path: &str) -> Result<Bytes, ClientError> {
        let request = Request::builder().method(method).uri(path).body(nothing());
        let answer = self.request(request).await?;
        collect(answer.into_body()).await
    }

    /// One request whose answer is written as it comes.
    pub(super) async fn stream(
        &self,
        path: &str,
        out: &mut (dyn Write + Send),
    ) -> Result<(), super::Stop> {
        let answer = self.request(Request::get(path).body(nothing())).await?;
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ClientError::Broken(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                out.write_all(&data)?;
            }
        }
        out.flush()?;
        Ok(())
    }

    async fn request(&self, request: Wanted) -> Result<Response<Incoming>, ClientError> {
        self.request_within(ANSWER_MAX, request).await
    }

    /// One request, and the head of its answer, which may come before the request's body is sent.
    pub(super) async fn request_within(
        &self,
        answer_max: Duration,
        request: Wanted,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = request.map_err(|error| ClientError::Usage(error.to_string()))?;
        let host = HeaderValue::from_static("countersignd");
        request.headers_mut().insert(hyper::header::HOST, host);
        let asked = async {
            match &self.way {
                Way::Unix(socket) => {
                    let stream = tokio::time::timeout(CONNECT_MAX, UnixStream::connect(socket))
                        .await
                        .map_err(|_| self.unreachable("no answer in time"))?
                        .map_err(|error| self.unreachable(error))?;
                    self.converse(stream, request).await
                }
                Way::Https { host, port, name, connector } => {
                    let connected = tokio::time::timeout(
                        CONNECT_MAX,
                        TcpStream::connect((host.as_str(), *port)),
                    );
                    let stream = connected
                        .await
                        .map_err(|_| self.unreachable("no answer in time"))?
                        .map_err(|error| self.unreachable(error))?;
                    let (stream, _) = connector
                        .connect(stream, name.clone(), CONNECT_MAX)
                        .await
                        .map_err(|error| self.unreachable(error))?;
                    self.converse(stream, request).await
                }
            }
        };
        let answer = tokio::time::timeout(answer_max, asked)
            .await
            .map_err(|_| ClientError::Broken("not done in time".to_owned()))??;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = collect(answer.into_body()).await?;
        Err(match serde_json::from_slice(&body) {
            Ok(problem) => ClientError::Refused(problem),
            Err(_) => ClientError::Broken(format!("HTTP status {status}")),
        })
    }

    async fn converse<S>(
        &self,
        stream: S,
        request: Request<Content>,
    ) -> Result<Response<Incoming>, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // In TLS 1.3 a refused client certificate shows with the first read, not in connecting.
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error))?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|error| {
            self.unreachable(format!("it closed the connection without an answer ({error})"))
        })
    }
}

/// No body.
fn nothing() -> Content {
    Empty::new().map_err(|never| match never {}).boxed()
}

async fn collect(body: Incoming) -> Result<Bytes, ClientError> {
    let collected = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    Ok(collected.map_err(|error| ClientError::Broken(error.to_string()))?.to_bytes())
}

/// Percent-encodes a zone's name for a path or a query.
pub(super) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    // A lone dot would be taken for the folder that it is in.
    if escaped == "." { "%2E".to_owned() } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths() {
        assert_eq!(escape("example."), "example.");
        assert_eq!(escape("."), "%2E");
        assert_eq!(escape("a\\/b?"), "a%5C%2Fb%3F");
    }
}
