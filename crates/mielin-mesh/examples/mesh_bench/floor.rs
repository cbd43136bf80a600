//! The floor: plain TCP and TLS 1.3 over TCP, with blocking calls.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use rustls::{ClientConnection, ServerConnection, StreamOwned};

use crate::work::{BUFFER_BYTES, BULK_BYTES, HEADER_BYTES, Kind, RoundTrips, SMALL_BYTES, Work};

pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Serves plain TCP on a thread for each connection.
pub(crate) fn serve_tcp() -> Result<SocketAddr> {
    listen(answer)
}

/// Serves TLS on a thread for each connection.
pub(crate) fn serve_tls(config: Arc<rustls::ServerConfig>) -> Result<SocketAddr> {
    listen(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config))?;
        answer(StreamOwned::new(connection, stream))
    })
}

fn listen(serve: impl Fn(TcpStream) -> Result<()> + Clone + Send + 'static) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            let _ = stream.set_nodelay(true);
            // A connection ends with an error when its client goes away.
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

fn answer(mut stream: impl Read + Write) -> Result<()> {
    let mut buffer = vec![0; 4 * BUFFER_BYTES];
    loop {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header)?;
        let work = Work::parse(header);
        if work.kind == Kind::RoundTrip {
            for _ in 0..work.count {
                stream.read_exact(&mut buffer[..SMALL_BYTES])?;
                stream.write_all(&buffer[..SMALL_BYTES])?;
                stream.flush()?;
            }
            continue;
        }
        let mut left = work.bytes();
        while left > 0 {
            let room = buffer.len().min(usize::try_from(left)?);
            let read = stream.read(&mut buffer[..room])?;
            anyhow::ensure!(read > 0, "the client went away");
            left -= read as u64;
        }
        stream.write_all(&[1])?;
        stream.flush()?;
    }
}

pub(crate) fn dial_tcp(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) fn dial_tls(
    address: SocketAddr,
    config: &Arc<rustls::ClientConfig>,
) -> Result<TlsStream> {
    let connection = ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?;
    let mut stream = StreamOwned::new(connection, dial_tcp(address)?);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// The client's part of a piece of work.
pub(crate) fn run(stream: &mut (impl Read + Write), work: Work) -> Result<RoundTrips> {
    stream.write_all(&work.header())?;
    let mut answer = [0; SMALL_BYTES];
    match work.kind {
        Kind::Bulk => {
            let payload = vec![7; BULK_BYTES];
            for _ in 0..work.count {
                stream.write_all(&payload)?;
            }
        }
        Kind::Small => {
            let message = [7; SMALL_BYTES];
            let mut buffer = std::io::BufWriter::with_capacity(BUFFER_BYTES, &mut *stream);
            for _ in 0..work.count {
                buffer.write_all(&message)?;
            }
            buffer.flush()?;
        }
        Kind::RoundTrip => {
            let mut times = RoundTrips::new();
            for _ in 0..work.count {
                let begun = Instant::now();
                stream.write_all(&[7; SMALL_BYTES])?;
                stream.flush()?;
                stream.read_exact(&mut answer)?;
                times.push(begun.elapsed());
            }
            return Ok(times);
        }
    }
    stream.flush()?;
    stream.read_exact(&mut answer[..1])?;
    Ok(RoundTrips::new())
}
