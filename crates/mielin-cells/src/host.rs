//! What a running agent reaches through its host calls: its logs and its post.

use std::sync::Arc;

use mielin_mesh_core::AgentId;
use mielin_wasm::{
    Address, Capability, Level, LogError, LogStream, MessageKind, Receive, SendError, Services,
};

use crate::cell::Tally;
use crate::logs::Logs;
use crate::post::Post;
use crate::report::LogKind;

/// The node as one agent sees it.
pub(crate) struct HostCalls {
    pub(crate) agent: AgentId,
    pub(crate) logs: Arc<Logs>,
    pub(crate) post: Arc<Post>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) log_bytes: u64,
}

impl Services for HostCalls {
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        let kind = match stream {
            LogStream::Stdout => LogKind::Stdout,
            LogStream::Stderr => LogKind::Stderr,
        };
        self.logs
            .write(kind, bytes, self.log_bytes)
            .map_err(|_| LogError::Full)
    }

    fn log(&self, level: Level, message: &str) {
        let level = match level {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        self.logs.note(level, message);
    }

    fn send(&self, to: Address, kind: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        let sequence = self.post.send(AgentId(to.0), kind, payload)?;
        Tally::add(&self.tally.sent, 1);
        Ok(sequence)
    }

    fn receive(&self, max_len: usize) -> Receive {
        self.post.receive(max_len)
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        Tally::add(&self.tally.denied, 1);
        self.logs.note(
            "warn",
            &format!("denied: {call} needs the capability {capability}"),
        );
        tracing::info!(agent = %self.agent, %capability, call, "denied a call");
    }
}
