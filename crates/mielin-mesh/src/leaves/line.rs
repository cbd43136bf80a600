//! Serial lines: a device of the system, or a Unix socket as emulators offer them.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mielin_mesh_core::leaf::{FRAME_BYTES_MAX, FrameDecoder, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::way::Arrival;

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
    arriving: mpsc::Sender<(usize, Arrival)>,
) {
    let mut reported = false;
    loop {
        let arriving = Arriving {
            line: &source,
            index,
            driver: &arriving,
        };
        let ended = match &source {
            LineSource::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) => {
                    let (read, write) = stream.into_split();
                    carry(read, write, &mut leaving, &arriving).await
                }
                Err(error) => Ended::Unopened(error),
            },
            LineSource::Device { path, speed } => match device::open(path, *speed) {
                Ok((read, write)) => carry(read, write, &mut leaving, &arriving).await,
                Err(error) => Ended::Unopened(error),
            },
        };
        let why = match ended {
            Ended::Driver => return,
            Ended::Line(why) => {
                reported = false;
                tracing::warn!(line = %source, %why, "a line of leaves has ended; it is opened again when it is there");
                why
            }
            Ended::Unopened(error) => {
                // Once, not at each try.
                if !reported {
                    tracing::warn!(line = %source, %error, "a line of leaves cannot be opened; it is tried again");
                }
                reported = true;
                error.to_string()
            }
        };
        if arriving.say(Arrival::Closed(why)).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY).await;
        // What was to be sent meanwhile is old.
        while leaving.try_recv().is_ok() {}
    }
}

/// What a line says, to the driver.
struct Arriving<'s> {
    line: &'s LineSource,
    index: usize,
    driver: &'s mpsc::Sender<(usize, Arrival)>,
}

impl Arriving<'_> {
    /// # Errors
    /// It wants nothing any more.
    async fn say(&self, arrival: Arrival) -> Result<(), Ended> {
        let said = self.driver.send((self.index, arrival)).await;
        said.map_err(|_| Ended::Driver)
    }
}

/// Why a line is not carried on.
enum Ended {
    /// Nobody wants packets any more.
    Driver,
    /// The other end is gone.
    Line(String),
    /// It is not there.
    Unopened(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Line(error.to_string())
    }
}

async fn carry(
    read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    leaving: &mut mpsc::Receiver<Vec<u8>>,
    arriving: &Arriving<'_>,
) -> Ended {
    let send = async {
        let mut line = [0; FRAME_BYTES_MAX];
        while let Some(packet) = leaving.recv().await {
            write.write_all(frame(&packet, &mut line)).await?;
            write.flush().await?;
        }
        Err::<Infallible, _>(Ended::Driver)
    };
    let ended = tokio::select! {
        ended = receive(read, arriving) => ended,
        ended = send => ended,
    };
    match ended {
        Err(ended) => ended,
    }
}

/// Takes in what comes on the line, until it ends.
async fn receive(
    mut read: impl AsyncRead + Unpin,
    arriving: &Arriving<'_>,
) -> Result<Infallible, Ended> {
    tracing::info!(line = %arriving.line, "a line of leaves is open");
    arriving.say(Arrival::Opened).await?;
    let mut decoder = FrameDecoder::new();
    let mut bytes = [0; 1024];
    loop {
        let len = read.read(&mut bytes).await?;
        if len == 0 {
            return Err(Ended::Line("the other end has closed it".to_owned()));
        }
        let mut rest = &bytes[..len];
        loop {
            let before = decoder.damaged();
            let packet = decoder.next_packet(&mut rest).map(<[u8]>::to_vec);
            let noise = decoder.damaged().saturating_sub(before);
            if noise > 0 {
                arriving.say(Arrival::Noise(noise)).await?;
            }
            let Some(packet) = packet else { break };
            arriving.say(Arrival::Packet(packet)).await?;
        }
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
