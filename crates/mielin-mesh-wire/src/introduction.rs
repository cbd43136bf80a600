//! The introduction: a joiner without a token learns the mesh root's
//! certificate over plain TCP, on the port number of the QUIC endpoint.
//!
//! Nothing secret is said and nothing is proved: the joiner trusts the root on
//! first use after its user has compared the fingerprint. The joiner sends
//! `mielin?1`; the answer is `mielin!1`, the certificate's length (u16 BE) and
//! the certificate.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::buckets::network;
use crate::certificate::{CertificateError, DER_BYTES_MAX, RootCertificate};

const QUESTION: [u8; 8] = *b"mielin?1";
const ANSWER: [u8; 8] = *b"mielin!1";
/// Introductions at once; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 32;
/// Introductions of one host at once: for a further one the oldest is given up, so that nobody who only connects keeps
/// others from being introduced, not even those who come from the same address.
const HOST_CONNECTIONS_MAX: usize = 4;
/// One introduction, from accept to close.
const INTRODUCTION_LIMIT: Duration = Duration::from_secs(5);
/// Pause after the system refused an accept, so that it is not asked in a loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why no introduction took place.
#[derive(Debug, thiserror::Error)]
pub enum IntroductionError {
    /// Nobody listens there, or it was lost.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Who was asked.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// No answer in time.
    #[error("{address} did not introduce itself within {limit:?}")]
    Timeout {
        /// Who was asked.
        address: SocketAddr,
        /// How long was waited.
        limit: Duration,
    },
    /// Something else than a mielin node answered.
    #[error("{address} is not a mielin node")]
    Foreign {
        /// Who was asked.
        address: SocketAddr,
    },
    /// What came as the root is none.
    #[error("{address} offered an unusable mesh root: {source}")]
    Root {
        /// Who was asked.
        address: SocketAddr,
        /// What is wrong with it.
        source: CertificateError,
    },
}

/// Answers introductions until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, root: RootCertificate) {
    let der: Arc<[u8]> = root.der().into();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut hosts = Hosts::default();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                let der = Arc::clone(&der);
                let task = tokio::spawn(async move {
                    let _place = place;
                    match timeout(INTRODUCTION_LIMIT, introduce(stream, &der)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%from, %error, "introduction failed"),
                        Err(_) => tracing::debug!(%from, "introduction took too long"),
                    }
                });
                hosts.begin(from.ip(), task.abort_handle());
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept introductions");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The introductions that are under way, by host.
#[derive(Default)]
struct Hosts(HashMap<IpAddr, VecDeque<AbortHandle>>);

impl Hosts {
    fn begin(&mut self, host: IpAddr, task: AbortHandle) {
        self.0.retain(|_, tasks| {
            tasks.retain(|task| !task.is_finished());
            !tasks.is_empty()
        });
        let tasks = self.0.entry(network(host)).or_default();
        tasks.push_back(task);
        if tasks.len() > HOST_CONNECTIONS_MAX
            && let Some(oldest) = tasks.pop_front()
        {
            oldest.abort();
        }
    }
}

/// Asks the node at `address` for the root of its mesh.
pub(crate) async fn ask(
    address: SocketAddr,
    limit: Duration,
) -> Result<RootCertificate, IntroductionError> {
    timeout(limit, question(address))
        .await
        .map_err(|_| IntroductionError::Timeout { address, limit })?
}

async fn introduce(mut stream: impl AsyncRead + AsyncWrite + Unpin, der: &[u8]) -> io::Result<()> {
    let mut question = [0; QUESTION.len()];
    stream.read_exact(&mut question).await?;
    if question != QUESTION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let len = u16::try_from(der.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream
        .write_all(&[&ANSWER[..], &len.to_be_bytes(), der].concat())
        .await?;
    stream.shutdown().await
}

async fn question(address: SocketAddr) -> Result<RootCertificate, IntroductionError> {
    let unreachable = |source| IntroductionError::Unreachable { address, source };
    let mut stream = TcpStream::connect(address).await.map_err(unreachable)?;
    stream.write_all(&QUESTION).await.map_err(unreachable)?;
    answer(stream, address).await
}

async fn answer(
    mut stream: impl AsyncRead + Unpin,
    address: SocketAddr,
) -> Result<RootCertificate, IntroductionError> {
    let foreign = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => IntroductionError::Foreign { address },
        _ => IntroductionError::Unreachable { address, source },
    };
    let mut start = [0; ANSWER.len() + 2];
    stream.read_exact(&mut start).await.map_err(foreign)?;
    let [magic @ .., high, low] = start;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if magic != ANSWER || len > DER_BYTES_MAX {
        return Err(IntroductionError::Foreign { address });
    }
    let mut der = vec![0; len];
    stream.read_exact(&mut der).await.map_err(foreign)?;
    RootCertificate::from_der(der).map_err(|source| IntroductionError::Root { address, source })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use mielin_fuzz::{Seed, Target};

    use super::*;
    use crate::certificate::make_root;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn served() -> (SocketAddr, RootCertificate, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, root) = make_root().unwrap();
        let task = tokio::spawn(serve(listener, root.clone()));
        (address, root, task)
    }

    #[tokio::test]
    async fn hostile_questions_get_no_answer_and_do_no_harm() {
        let (address, root, task) = served().await;
        for hostile in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"mielin?2", &[0xff; 4096]] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The node may close while we still write.
            let _ = stream.write_all(hostile).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(answer.is_empty());
        }
        // Silent connections, more than there are places, do not keep anybody from being introduced.
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(ask(address, Duration::from_secs(60)).await.unwrap(), root);
        task.abort();
    }

    #[tokio::test]
    async fn a_host_gives_up_its_own_oldest_introduction_for_a_new_one() {
        let mut hosts = Hosts::default();
        let mut begin = |host: &str| {
            let task = tokio::spawn(std::future::pending::<()>());
            hosts.begin(host.parse().unwrap(), task.abort_handle());
            task
        };
        let other = begin("192.0.2.9");
        let mut tasks: Vec<_> = (0..HOST_CONNECTIONS_MAX + 2)
            .map(|_| begin("192.0.2.1"))
            .collect();
        for oldest in tasks.drain(..2) {
            let ended = timeout(LIMIT, oldest).await.unwrap();
            assert!(ended.unwrap_err().is_cancelled());
        }
        tasks.push(other);
        assert!(tasks.iter().all(|task| !task.is_finished()));
        // Those that are over do not count.
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            let _ = task.await;
        }
        let task = tokio::spawn(async {});
        hosts.begin("192.0.2.2".parse().unwrap(), task.abort_handle());
        assert_eq!(hosts.0.len(), 1);
    }

    #[tokio::test]
    async fn hostile_answers_are_typed_errors() {
        let oversized = [&ANSWER[..], &[0xff, 0xff], &[0; 100]].concat();
        let garbage = [&ANSWER[..], &[0, 4], &[1, 2, 3, 4]].concat();
        let cases = [
            b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
            b"mie".to_vec(),
            oversized,
            garbage,
        ];
        for (index, answer) in cases.into_iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut question = [0; QUESTION.len()];
                stream.read_exact(&mut question).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            });
            let error = ask(address, LIMIT).await.unwrap_err();
            let expected = match index {
                3 => matches!(error, IntroductionError::Root { .. }),
                _ => matches!(error, IntroductionError::Foreign { .. }),
            };
            assert!(expected, "case {index}: {error}");
            server.await.unwrap();
        }
    }

    /// What a joiner says to a member, and a member to it, over a TCP connection that proves nothing.
    const INTRODUCTION: Target = Target {
        name: "introduction",
        mutations: 20_000,
        fixed_bytes: DER_BYTES_MAX + (64 << 10),
        bytes_per_byte: 64,
        run: |bytes| {
            let address = ([127, 0, 0, 1], 9).into();
            let root = at_once(answer(bytes, address));
            if let Ok(root) = &root {
                assert!(bytes.starts_with(&told(root.der())));
            }
            let mut said = Vec::new();
            let der = [7; 100];
            let asked = at_once(introduce(tokio::io::join(bytes, &mut said), &der));
            assert_eq!(asked.is_ok(), bytes.starts_with(&QUESTION));
            assert_eq!(said, if asked.is_ok() { told(&der) } else { vec![] });
            root.is_ok() || asked.is_ok()
        },
        seeds: || {
            let (_, root) = make_root().unwrap();
            let told = told(root.der());
            vec![
                Seed::good("question", QUESTION),
                Seed::bad("question-cut-off", &QUESTION[..7]),
                Seed::bad("root-cut-off", &told[..told.len() - 1]),
                Seed::bad("claims-65535-bytes", [&ANSWER[..], &[0xff; 3]].concat()),
                Seed::bad("no-certificate", [&ANSWER[..], &[0, 1, 7]].concat()),
                Seed::good("root", told),
            ]
        },
    };

    /// What is said of a root.
    fn told(der: &[u8]) -> Vec<u8> {
        let len = u16::try_from(der.len()).unwrap();
        [&ANSWER[..], &len.to_be_bytes(), der].concat()
    }

    /// What comes of a future that waits for nothing.
    fn at_once<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("all bytes are there"),
        }
    }

    #[test]
    fn introduction() {
        INTRODUCTION.replay();
    }
}
