//! The second process, what it has used, and the certificate that TLS and raw
//! quinn share.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use mielin_mesh_core::NodeId;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, BufReader};

/// A self-signed certificate that is its own trust anchor.
pub(crate) struct Tls {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    pub(crate) fn make() -> Result<Tls> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let certificate = made.cert.der().to_vec();
        let key = made.signing_key.serialize_der();
        Ok(Tls { certificate, key })
    }

    pub(crate) fn parse(certificate: &str, key: &str) -> Result<Tls> {
        Ok(Tls {
            certificate: HEXLOWER.decode(certificate.as_bytes())?,
            key: HEXLOWER.decode(key.as_bytes())?,
        })
    }

    pub(crate) fn server(&self) -> Result<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(self.key.clone()).map_err(anyhow::Error::msg)?;
        Ok(rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(self.certificate.clone())], key)?)
    }

    pub(crate) fn client(&self) -> Result<rustls::ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(self.certificate.clone()))?;
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

/// The process that answers.
pub(crate) struct Server {
    child: Child,
    pub(crate) addresses: Vec<SocketAddr>,
    /// The member whose endpoint answers, and the node with the mailbox.
    pub(crate) nodes: [NodeId; 2],
}

impl Server {
    /// Starts this program again as the server; gives up when it says nothing.
    pub(crate) async fn start(path: &Path, home: &str, tokens: &str, tls: &Tls) -> Result<Server> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.as_mut().context("the input is piped")?;
        let (certificate, key) = (HEXLOWER.encode(&tls.certificate), HEXLOWER.encode(&tls.key));
        writeln!(
            input,
            "{}\n{home}\n{tokens}\n{certificate}\n{key}",
            path.display()
        )?;
        let output = child.stdout.take().context("the output is piped")?;
        let output = tokio::process::ChildStdout::from_std(output)?;
        // The server joins while we wait: the founder is in this process.
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await?;
        let mut words = line.split_whitespace();
        let addresses = words.by_ref().take(6).map(str::parse);
        let addresses = addresses.collect::<Result<Vec<SocketAddr>, _>>()?;
        let mut node = || {
            let word = words.next().context("the server did not start")?;
            word.parse::<NodeId>().ok().context("no node id")
        };
        let nodes = [node()?, node()?];
        Ok(Server {
            child,
            addresses,
            nodes,
        })
    }

    /// Seconds on a processor, of all threads of both processes.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let (own, other) = (std::process::id(), self.child.id());
        let nanoseconds = threads_ns(own)? + threads_ns(other)?;
        Ok(nanoseconds as f64 / 1e9)
    }

    /// Resident memory of the server.
    pub(crate) fn memory_kib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no VmRSS")?.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn threads_ns(process: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().context("no time")?;
        sum += first.parse::<u64>()?;
    }
    Ok(sum)
}
