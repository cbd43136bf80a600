//! The control API from the command's side: one HTTP connection per request over the Unix socket.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::path_segment;
use crate::control;
use crate::failure::{ErrorDocument, Failure};

/// The daemon of one data directory.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    data_dir: PathBuf,
}

impl Client {
    /// Contacts nobody yet.
    pub(crate) fn new(data_dir: &Path) -> Client {
        Client {
            data_dir: data_dir.to_path_buf(),
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        read_json(self.open(Method::GET, path, Bytes::new()).await?).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        read_json(self.post_for_stream(path, body).await?).await
    }

    /// Posts bytes as they are.
    pub(crate) async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        read_json(self.open(Method::POST, path, body).await?).await
    }

    /// Gets a text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Failure> {
        let response = self.open(Method::GET, path, Bytes::new()).await?;
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| broken(&error))?.to_bytes();
        String::from_utf8(body.into())
            .map_err(|_| Failure::internal("the daemon's answer is not text"))
    }

    /// Posts, and gives the answer while it is still being written.
    pub(crate) async fn post_for_stream(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response<Incoming>, Failure> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Failure::internal(format!("cannot write the request: {error}")))?;
        self.open(Method::POST, path, body.into()).await
    }

    /// Sends a request; an answer that is no success is a failure.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = control::connect(&self.data_dir)
            .await
            .map_err(|error| self.no_daemon(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "mielin")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Failure::internal(format!("cannot write the request: {error}")))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| broken(&error))?
            .to_bytes();
        match serde_json::from_slice::<ErrorDocument>(&body) {
            Ok(document) => Err(document.error),
            Err(_) => Err(
                Failure::internal(format!("the daemon answered with status {status}"))
                    .hint("is it of another version? Restart it with this one"),
            ),
        }
    }

    fn no_daemon(&self, error: &io::Error) -> Failure {
        let dir = self.data_dir.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::unreachable(
                format!("no daemon is running for the data directory {dir}"),
            )
            .hint(
                "start one with `mielin mesh start`, `mielin mesh join ADDR` or `mielin daemon`, \
                     or name another directory with --data-dir",
            ),
            io::ErrorKind::PermissionDenied => Failure::refused(format!(
                "the daemon of {dir} belongs to another user"
            ))
            .hint("run the command as that user, or name your own directory with --data-dir"),
            _ => Failure::io(format!("cannot reach the daemon of {dir}"), error),
        }
    }
}

/// The path of an agent, or of something below it.
pub(crate) fn agent_path(agent: &str, below: &str) -> String {
    format!("/v1/agents/{}{below}", path_segment(agent))
}

/// The lines of an answer, each parsed as JSON when it is complete.
pub(crate) struct JsonLines {
    body: Incoming,
    buffer: BytesMut,
}

impl JsonLines {
    pub(crate) fn new(response: Response<Incoming>) -> JsonLines {
        JsonLines {
            body: response.into_body(),
            buffer: BytesMut::new(),
        }
    }

    /// The next line, or `None` at the end.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return parse(&line).map(Some);
            }
            match next_data(&mut self.body).await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None => return Ok(None),
            }
        }
    }
}

/// The next piece of a body, or `None` at its end.
pub(crate) async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

async fn read_json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Failure> {
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| broken(&error))?;
    parse(&body.to_bytes())
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(json).map_err(|error| {
        Failure::internal(format!("cannot understand the daemon's answer: {error}"))
            .hint("is it of another version? Restart it with this one")
    })
}

fn broken(error: &hyper::Error) -> Failure {
    Failure::unreachable(format!("the daemon broke the connection off: {error}"))
        .hint("it may be stopping; `mielin node info` shows whether it runs")
        .hint("it may have been stopped; see what it wrote to its standard error")
}
