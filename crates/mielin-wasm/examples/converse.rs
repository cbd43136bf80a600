//! Runs an agent, gives it what stands in files as messages, one after the other, and prints its answers; ends when it waits for
//! more: `cargo run -p mielin-wasm --example converse -- AGENT.wasm --allow tensor --message FILE --message FILE`.
//!
//! The agent is made resumable, and stopped after every call of its host. After some calls it goes on from a snapshot under the other
//! engine, wasmtime or wasmi.

use std::collections::VecDeque;
use std::error::Error;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mielin_wasm::{
    Address, Capability, Discarded, EngineKind, Grants, HostState, Level, Limits, LogError,
    LogStream, MessageKind, Outcome, Prepared, Receive, Received, SendError, Services,
    THREAD_STACK_BYTES, engine,
};

/// After so many calls it goes to the other engine.
const CALLS: usize = 300;

/// Files that are to be read, and answers that go to standard output.
#[derive(Default)]
struct Desk {
    files: Mutex<VecDeque<String>>,
    received: Mutex<u64>,
}

const ASKER: Address = Address([1; 16]);

impl Desk {
    /// The number of another message.
    fn next(&self) -> u64 {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        *received += 1;
        *received
    }
}

impl Services for Desk {
    fn write_log(&self, _: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        std::io::stderr()
            .write_all(bytes)
            .map_err(|_| LogError::Full)?;
        Ok(bytes.len())
    }

    fn log(&self, level: Level, message: &str) {
        // Without a terminal there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{level:?}: {message}");
    }

    fn send(&self, _: Address, _: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        std::io::stdout()
            .write_all(payload)
            .map_err(|_| SendError::Closed)?;
        Ok(1)
    }

    fn receive(&self, max_len: usize) -> Receive {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = files.front() else {
            return Receive::Empty;
        };
        let Ok(payload) = std::fs::read(file) else {
            self.log(Level::Error, &format!("cannot read {file}"));
            return Receive::Empty;
        };
        if payload.len() > max_len {
            return Receive::TooLarge { len: payload.len() };
        }
        files.pop_front();
        Receive::Message(Received {
            from: ASKER,
            sequence: self.next(),
            kind: MessageKind::Message,
            payload,
        })
    }

    fn discard(&self, longer_than: usize) -> Option<Discarded> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let len = usize::try_from(std::fs::metadata(files.front()?).ok()?.len()).ok()?;
        (len > longer_than).then(|| {
            files.pop_front();
            Discarded {
                from: ASKER,
                sequence: self.next(),
                kind: MessageKind::Message,
                len,
            }
        })
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        self.log(Level::Error, &format!("{call} needs {capability}"));
    }

    /// After every call that it makes.
    fn called(&self) -> bool {
        true
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let module = std::fs::read(arguments.next().ok_or("name a file with an agent")?)?;
    let (mut grants, mut files) = (Grants::none(), VecDeque::new());
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or(format!("{option} wants a value"))?;
        match option.as_str() {
            "--allow" => drop(grants.grant(value.parse()?)),
            "--message" => files.push_back(value),
            _ => return Err(format!("no option is called {option}").into()),
        }
    }
    let desk = Desk {
        files: Mutex::new(files),
        ..Desk::default()
    };
    let run = move || run(&module, grants, desk).map_err(|error| error.to_string());
    let thread = thread::Builder::new().stack_size(THREAD_STACK_BYTES);
    let outcome = thread.spawn(run)?.join().map_err(|_| "it panicked")??;
    match outcome {
        Outcome::Blocked(_) | Outcome::Exited(0) => Ok(()),
        outcome => Err(format!("{outcome:?}").into()),
    }
}

fn run(module: &[u8], grants: Grants, desk: Desk) -> Result<Outcome, Box<dyn Error>> {
    let module = mielin_safepoint::instrument(module)?;
    let engines = [EngineKind::Wasmtime, EngineKind::Wasmi]
        .map(|kind| engine(kind).and_then(|engine| engine.prepare(&module, None)));
    let [wasmtime, wasmi] = engines;
    let engines: [Arc<dyn Prepared>; 2] = [wasmtime?, wasmi?];
    let desk = Arc::new(desk);
    let host = HostState::new(Address::default()).with_grants(grants);
    let limits = Limits::default();
    let mut instance = engines[0].instantiate(host, Arc::clone(&desk) as _, &limits)?;
    let mut stops = 0;
    loop {
        match instance.run() {
            Outcome::Stopped => {
                stops += 1;
                if stops % CALLS != 0 {
                    continue;
                }
                let snapshot = instance.snapshot();
                let host = HostState::new(Address::default());
                let next = &engines[stops / CALLS % 2];
                instance = next.instantiate(host, Arc::clone(&desk) as _, &limits)?;
                instance.load(&snapshot)?;
            }
            outcome => return Ok(outcome),
        }
    }
}
