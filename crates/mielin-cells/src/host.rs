//! What a running agent reaches through its host calls: its logs and its post.

use std::sync::Arc;

use mielin_mesh_core::AgentId;
use mielin_wasm::{
    Actuated, Address, Capability, Discarded, Level, LogError, LogStream, MessageKind, Receive,
    SendError, Sensed, Services,
};

use crate::logs::Logs;
use crate::post::Post;
use crate::report::LogKind;
use crate::tally::Tally;

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
        let allowed = &bytes[..self.tally.may_write(bytes.len())];
        if allowed.is_empty() && !bytes.is_empty() {
            return Err(LogError::Full);
        }
        let written = self.logs.write(kind, allowed, self.log_bytes);
        let written = written.map_err(|_| LogError::Full)?;
        self.tally.wrote(written);
        Ok(written)
    }

    fn log(&self, level: Level, message: &str) {
        let level = match level {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        if self.tally.may_write(message.len()) == message.len() {
            self.logs.note(level, message);
            self.tally.wrote(message.len());
        }
    }

    fn send(&self, to: Address, kind: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        if !self.tally.may_send() {
            return Err(SendError::Full);
        }
        let taken = || self.tally.sent();
        self.post.send(AgentId(to.0), kind, payload, taken)
    }

    fn receive(&self, max_len: usize) -> Receive {
        self.post.receive(max_len)
    }

    fn discard(&self, longer_than: usize) -> Option<Discarded> {
        self.post.discard(longer_than)
    }

    fn sense(&self, sensor: u8, after: u64) -> Sensed {
        let Some(node) = self.post.node() else {
            return Sensed::Absent;
        };
        node.lodgings.sense(&node, self.agent, sensor, after)
    }

    fn actuate(&self, actuator: u8, value: i64) -> Actuated {
        let Some(node) = self.post.node() else {
            return Actuated::Absent;
        };
        node.lodgings.actuate(&node, self.agent, actuator, value)
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        Tally::add(&self.tally.denied, 1);
        self.logs.note(
            "warn",
            &format!("denied: {call} needs the capability {capability}"),
        );
        tracing::info!(agent = %self.agent, %capability, call, "denied a call");
    }

    fn called(&self) -> bool {
        self.tally.called()
    }
}
