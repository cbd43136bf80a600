//! Runs a WASI preview 1 command as it is, with what it prints, and ends as it does:
//! `cargo run -p mielin-wasm --example run_plain -- FILE [ARGUMENTS]`.
//!
//! `cargo xtask test` runs with it the tests of `mielin-tensor` that were compiled to WebAssembly.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use mielin_wasm::{
    Address, Capability, EngineKind, HostState, Level, Limits, LogError, LogStream, MessageKind,
    Outcome, Receive, SendError, Services, THREAD_STACK_BYTES, engine,
};

/// A terminal.
struct Terminal;

impl Services for Terminal {
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        let written = match stream {
            LogStream::Stdout => std::io::stdout().write_all(bytes),
            LogStream::Stderr => std::io::stderr().write_all(bytes),
        };
        written.map_err(|_| LogError::Full)?;
        Ok(bytes.len())
    }

    fn log(&self, level: Level, message: &str) {
        // Without a terminal there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{level:?}: {message}");
    }

    fn send(&self, _: Address, _: MessageKind, _: &[u8]) -> Result<u64, SendError> {
        Err(SendError::Unknown)
    }

    fn receive(&self, _: usize) -> Receive {
        Receive::Empty
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        // As above.
        let _ = writeln!(std::io::stderr(), "{call} needs {capability}");
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = arguments
        .first()
        .ok_or("name a file with a WebAssembly module")?;
    let module = std::fs::read(file)?;
    let grants = ["clock", "random"].iter().map(|text| text.parse());
    let host = HostState::new(Address::default())
        .with_args(arguments.clone())
        .with_grants(grants.collect::<Result<_, _>>()?);
    let run = move || {
        let plain = engine(EngineKind::Wasmtime)?.prepare_plain(&module)?;
        plain.run(host, Arc::new(Terminal), &Limits::default())
    };
    let thread = thread::Builder::new().stack_size(THREAD_STACK_BYTES);
    let outcome = thread.spawn(run)?.join().map_err(|_| "it panicked")??;
    match outcome {
        Outcome::Exited(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        outcome => Err(format!("{outcome:?}").into()),
    }
}
