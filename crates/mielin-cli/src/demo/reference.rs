//! The digest computed in this process, by the module that was not rewritten, to compare the
//! travelled one with.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mielin_safepoint::instrument;
use mielin_wasm::{
    Address, Capability, EngineKind, HostState, Level, Limits, LogError, LogStream, MessageKind,
    Outcome, Plain, Receive, SendError, Services, THREAD_STACK_BYTES, engine,
};
use tokio::sync::oneshot;

use crate::failure::Failure;

/// How long the digest shall compute on an idle machine: long enough to be moved twice.
const RUN: Duration = Duration::from_secs(4);
/// Room for each time that a node has to compile a module before it can take it in.
const COMPILATIONS: u32 = 8;
/// Rounds of the run that measures how fast this machine is.
const MEASURED_ROUNDS: u64 = 400_000;

/// No machine computes that many rounds in less; it bounds what a disturbed measurement can do.
const FASTEST: Duration = Duration::from_millis(20);

/// The plain digest module, compiled, with its input and the rounds that take this machine long
/// enough.
pub(super) struct Reference {
    module: Arc<dyn Plain>,
    input: Arc<[u8]>,
    rounds: u64,
}

impl Reference {
    /// Compiles the module and, unless the rounds are given, measures how fast it runs here.
    pub(super) fn prepare(
        module: &[u8],
        input: &[u8],
        rounds: Option<u64>,
    ) -> Result<Reference, Failure> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::internal(format!("the digest agent is damaged: {error}"))
        };
        let engine =
            engine(EngineKind::Wasmtime).map_err(|error| Failure::internal(error.to_string()))?;
        // What each node does with the module before it can run it.
        let began = Instant::now();
        let resumable = instrument(module).map_err(|error| wrong(&error))?;
        engine
            .prepare(&resumable, None)
            .map_err(|error| wrong(&error))?;
        let compilation = began.elapsed();
        let plain = engine
            .prepare_plain(module)
            .map_err(|error| wrong(&error))?;
        let mut reference = Reference {
            module: plain,
            input: input.into(),
            rounds: rounds.unwrap_or(1),
        };
        if rounds.is_some() {
            return Ok(reference);
        }
        // Reading a large input takes long as well, but the moves shall meet the agent in its rounds.
        let reading = reference.timed_compute()?;
        reference.rounds = MEASURED_ROUNDS;
        let rounds = reference.timed_compute()?.saturating_sub(reading);
        let per_round = rounds.max(FASTEST).as_secs_f64() / MEASURED_ROUNDS as f64;
        let run = RUN + compilation * COMPILATIONS;
        // Rounded, because people read the number.
        reference.rounds =
            ((run.as_secs_f64() / per_round) as u64).div_ceil(MEASURED_ROUNDS) * MEASURED_ROUNDS;
        Ok(reference)
    }

    fn timed_compute(&self) -> Result<Duration, Failure> {
        let began = Instant::now();
        self.compute()?;
        Ok(began.elapsed())
    }

    pub(super) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// For when they took less time than the moves.
    pub(super) fn lengthen(&mut self) {
        self.rounds = self.rounds.saturating_mul(4);
    }

    /// Computes on a thread of its own; gives what the agent prints.
    pub(super) async fn run(self) -> Result<Vec<u8>, Failure> {
        let (done, printed) = oneshot::channel();
        thread::spawn(move || {
            // Nobody waits any more if the demo was interrupted.
            let _ = done.send(self.compute());
        });
        printed
            .await
            .unwrap_or_else(|_| Err(Failure::internal("the reference run broke off")))
    }

    fn compute(&self) -> Result<Vec<u8>, Failure> {
        let printed = Arc::new(Printed::default());
        let host = HostState::new(Address::default())
            .with_args(["digest".to_owned(), self.rounds.to_string()])
            .with_stdin(Arc::clone(&self.input));
        let services: Arc<dyn Services> = Arc::clone(&printed) as _;
        let module = Arc::clone(&self.module);
        let run = thread::Builder::new()
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || module.run(host, services, &Limits::default()));
        let outcome = run
            .map_err(|error| Failure::io("cannot start a thread", &error))?
            .join()
            .map_err(|_| Failure::internal("the reference run panicked"))?
            .map_err(|error| Failure::internal(format!("cannot run the digest here: {error}")))?;
        match outcome {
            Outcome::Exited(0) => Ok(std::mem::take(&mut *printed.lock())),
            other => Err(Failure::internal(format!(
                "the reference run ended as {other:?}"
            ))),
        }
    }
}

/// A node that offers nothing but a standard output.
#[derive(Default)]
struct Printed(Mutex<Vec<u8>>);

impl Printed {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Services for Printed {
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        if stream == LogStream::Stdout {
            self.lock().extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn log(&self, _level: Level, _message: &str) {}

    fn send(&self, _to: Address, _kind: MessageKind, _payload: &[u8]) -> Result<u64, SendError> {
        Err(SendError::Unknown)
    }

    fn receive(&self, _max_len: usize) -> Receive {
        Receive::Empty
    }

    fn denied(&self, _capability: &Capability, _call: &'static str) {}
}

#[cfg(test)]
mod tests;
