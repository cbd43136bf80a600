//! The contents of the files in an agent's `/data`: what is there when the move begins goes ahead while the agent runs,
//! what was written since follows when it is frozen.

use super::super::frames::Header;
use super::{Source, SourceInput};

/// Bytes in one frame.
const BATCH: usize = 256 * 1024;

impl Source {
    /// Sends what was added to the stream since the last time; gives how much that was.
    pub(super) async fn send_files(&mut self) -> Result<u64, SourceInput> {
        let before = self.files_sent;
        loop {
            let bytes = self.files.take(BATCH);
            if bytes.is_empty() {
                return Ok(self.files_sent - before);
            }
            self.digest.update(&bytes);
            let header = Header::Files {
                offset: self.files_sent,
            };
            self.files_sent += bytes.len() as u64;
            self.send(header, bytes.into()).await?;
        }
    }
}
