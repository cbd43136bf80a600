//! What a server asks for files.

use alloc::borrow::Cow;

use crate::error::ErrorCode;

/// Files that can be read and written by name.
///
/// A server asks within the call that handles a datagram. If what is asked takes long, the client repeats itself meanwhile,
/// which does no harm.
pub trait Files {
    /// A file that is read.
    type Source;
    /// A file that is written; dropped without [`commit`](Files::commit) if the transfer breaks.
    type Sink;

    /// Opens a file to be read, and says how many bytes it has.
    ///
    /// # Errors
    /// Goes to the client, as those of all other functions here do.
    fn open(&mut self, name: &str) -> Result<(Self::Source, u64), Refusal>;

    /// Fills a buffer with what is at an offset; both are within the length that [`open`](Files::open) has said, and
    /// offsets follow each other.
    ///
    /// # Errors
    /// The transfer ends.
    fn read(
        &mut self,
        source: &mut Self::Source,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Refusal>;

    /// A file that was read goes: all of it is acknowledged, or the transfer was broken.
    fn close(&mut self, source: Self::Source, ending: Ending) {
        let _ = (source, ending);
    }

    /// Opens a file to be written, of so many bytes if the client has said so. It need not be true, but it is
    /// at most the server's limit.
    ///
    /// # Errors
    /// The file is not written.
    fn create(&mut self, name: &str, announced_bytes: Option<u64>) -> Result<Self::Sink, Refusal>;

    /// What comes next, in order. All together is at most the server's limit.
    ///
    /// # Errors
    /// The transfer ends.
    fn append(&mut self, sink: &mut Self::Sink, data: &[u8]) -> Result<(), Refusal>;

    /// Everything has come. The client learns that it has been taken only when this succeeds.
    ///
    /// # Errors
    /// The content is refused: an error takes the place of the last acknowledgement.
    fn commit(&mut self, sink: Self::Sink) -> Result<(), Refusal>;
}

/// How the reading of a file has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client has acknowledged every block.
    Whole,
    /// It went away, said that it has an error, or began anew; it may have received everything all the same.
    Broken,
}

/// Why something is not done, for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of error.
    pub code: ErrorCode,
    /// For a person; what is beyond 400 bytes is cut off.
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with this message.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Refusal {
        let message = message.into();
        Refusal { code, message }
    }
}
