//! Serial lines: a device of the system, or a Unix socket as emulators offer them.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mielin_mesh_core::leaf::{FRAME_BYTES_MAX, FrameDecoder, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// How long to wait before a line that cannot be opened, or that has ended, is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How a Unix socket is written.
const SOCKET: &str = "unix:";

/// One serial line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineSource {
    /// A device, such as `/dev/ttyACM0`: 8 data bits, no parity.
    Device {
        /// Where it is.
        path: PathBuf,
        /// Bits in a second.
        speed: u32,
    },
    /// A Unix socket that somebody listens on, such as an emulator: `unix:PATH`.
    Socket(PathBuf),
}

/// Text that is no serial line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineSourceError {
    /// Nothing stands where the path should.
    #[error("the path is missing: give PATH, PATH@SPEED or unix:PATH")]
    NoPath,
    /// What stands behind the `@` is no speed.
    #[error("{0:?} is no speed in bits per second")]
    Speed(String),
}

/// What a line runs at unless something else is said.
const SPEED: u32 = 115_200;

impl FromStr for LineSource {
    type Err = LineSourceError;

    fn from_str(text: &str) -> Result<Self, LineSourceError> {
        if let Some(path) = text.strip_prefix(SOCKET) {
            return match path {
                "" => Err(LineSourceError::NoPath),
                path => Ok(LineSource::Socket(path.into())),
            };
        }
        let (path, speed) = match text.rsplit_once('@') {
            Some((path, speed)) => {
                let parsed = speed.parse::<u32>().ok().filter(|speed| *speed > 0);
                let wrong = || LineSourceError::Speed(speed.chars().take(32).collect());
                (path, parsed.ok_or_else(wrong)?)
            }
            None => (text, SPEED),
        };
        if path.is_empty() {
            return Err(LineSourceError::NoPath);
        }
        Ok(LineSource::Device {
            path: path.into(),
            speed,
        })
    }
}

impl fmt::Display for LineSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineSource::Device { path, speed } if *speed == SPEED => path.display().fmt(f),
            LineSource::Device { path, speed } => write!(f, "{}@{speed}", path.display()),
            LineSource::Socket(path) => write!(f, "{SOCKET}{}", path.display()),
        }
    }
}

/// Carries packets over a line for as long as both ends of the channels are there, and opens it again whenever it ends.
pub(super) async fn serve(
    source: LineSource,
    index: usize,
    mut leaving: mpsc::Receiver<Vec<u8>>,
    arriving: mpsc::Sender<(usize, Vec<u8>)>,
) {
    let mut reported = false;
    loop {
        let ended = match &source {
            LineSource::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) => {
                    tracing::info!(line = %source, "a line of leaves is open");
                    reported = false;
                    let (read, write) = stream.into_split();
                    carry(read, write, index, &mut leaving, &arriving).await
                }
                Err(error) => Err(error),
            },
            LineSource::Device { path, speed } => match device::open(path, *speed) {
                Ok((read, write)) => {
                    tracing::info!(line = %source, "a line of leaves is open");
                    reported = false;
                    carry(read, write, index, &mut leaving, &arriving).await
                }
                Err(error) => Err(error),
            },
        };
        match ended {
            Ok(Ended::Driver) => return,
            Ok(Ended::Line) => {
                tracing::warn!(line = %source, "a line of leaves has ended; it is opened again when it is there")
            }
            // Once, not at each try.
            Err(error) if !reported => {
                reported = true;
                tracing::warn!(line = %source, %error, "a line of leaves cannot be opened; it is tried again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
        // What was to be sent meanwhile is old.
        while leaving.try_recv().is_ok() {}
    }
}

enum Ended {
    /// Nobody wants packets any more.
    Driver,
    /// The other end is gone.
    Line,
}

async fn carry(
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    index: usize,
    leaving: &mut mpsc::Receiver<Vec<u8>>,
    arriving: &mpsc::Sender<(usize, Vec<u8>)>,
) -> io::Result<Ended> {
    let mut decoder = FrameDecoder::new();
    let mut bytes = [0; 1024];
    let receive = async {
        loop {
            let len = read.read(&mut bytes).await?;
            if len == 0 {
                return Ok(Ended::Line);
            }
            let mut rest = &bytes[..len];
            while let Some(packet) = decoder.next_packet(&mut rest) {
                if arriving.send((index, packet.to_vec())).await.is_err() {
                    return Ok(Ended::Driver);
                }
            }
        }
    };
    let send = async {
        let mut line = [0; FRAME_BYTES_MAX];
        while let Some(packet) = leaving.recv().await {
            write.write_all(frame(&packet, &mut line)).await?;
            write.flush().await?;
        }
        Ok(Ended::Driver)
    };
    tokio::select! {
        ended = receive => ended,
        ended = send => ended,
    }
}

mod device {
    //! Devices for serial lines, as POSIX terminals (POSIX.1-2024, chapter 11).

    use std::fs::OpenOptions;
    use std::io;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    use rustix::fs::OFlags;
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    use tokio::net::unix::pipe::{Receiver, Sender};

    /// Opens one for bytes as they are: nothing is translated, echoed, or taken for a signal. The runtime waits for it as for
    /// the two ends of a pipe, which to it are all that can be polled.
    pub(super) fn open(path: &Path, speed: u32) -> io::Result<(Receiver, Sender)> {
        let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        let mut modes = tcgetattr(&file)?;
        modes.make_raw();
        modes.set_speed(speed)?;
        tcsetattr(&file, OptionalActions::Now, &modes)?;
        let write = Sender::from_file_unchecked(file.try_clone()?)?;
        Ok((Receiver::from_file_unchecked(file)?, write))
    }
}
