//! Serves files from memory over UDP: what is written can be read.
//!
//! ```sh
//! cargo run -p mielin-transfer --example serve -- 127.0.0.1:6969 &
//! curl -T Cargo.toml tftp://127.0.0.1:6969/there
//! curl tftp://127.0.0.1:6969/there | cmp - Cargo.toml
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mielin_transfer::{ErrorCode, Files, Refusal, Server, ServerLimits};

#[derive(Default)]
struct Memory(BTreeMap<String, Arc<Vec<u8>>>);

impl Files for Memory {
    type Source = Arc<Vec<u8>>;
    type Sink = (String, Vec<u8>);

    fn open(&mut self, name: &str) -> Result<(Self::Source, u64), Refusal> {
        let found = self.0.get(name).cloned();
        let content = found.ok_or(Refusal::new(ErrorCode::NOT_FOUND, "there is no such file"))?;
        let len = content.len() as u64;
        Ok((content, len))
    }

    fn read(
        &mut self,
        content: &mut Self::Source,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Refusal> {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|offset| content.get(offset..offset + buffer.len()))
            .ok_or(Refusal::new(ErrorCode::UNDEFINED, "the file is shorter"))?;
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn create(&mut self, name: &str, _: Option<u64>) -> Result<Self::Sink, Refusal> {
        Ok((name.to_owned(), Vec::new()))
    }

    fn append(&mut self, (_, content): &mut Self::Sink, data: &[u8]) -> Result<(), Refusal> {
        content.extend_from_slice(data);
        Ok(())
    }

    fn commit(&mut self, (name, content): Self::Sink) -> Result<(), Refusal> {
        self.0.insert(name, Arc::new(content));
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("which address?")?;
    let socket = UdpSocket::bind(address)?;
    let begin = Instant::now();
    let now_ms = || u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (mut server, mut memory) = (Server::new(ServerLimits::default()), Memory::default());
    let mut buffer = [0; 2_048];
    loop {
        // A socket takes no timeout of zero.
        let wait = server
            .poll_timeout()
            .map(|due| due.saturating_sub(now_ms()).max(1));
        socket.set_read_timeout(wait.map(Duration::from_millis))?;
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                let answer = server.handle_datagram(now_ms(), from, &buffer[..len], &mut memory);
                if let Some(answer) = answer {
                    socket.send_to(answer.bytes, answer.to)?;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(again) = server.handle_timeout(now_ms(), &mut memory) {
            socket.send_to(again.bytes, again.to)?;
        }
    }
}
