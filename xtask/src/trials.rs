//! What is built and then tried out under an emulator: the one while the other goes on.

use std::collections::VecDeque;
use std::thread::{self, ScopedJoinHandle};

use anyhow::Result;

/// Emulators that run at once. Each has one thread, and compilers take what is left of the machine.
const RUNNING_MAX: usize = 2;

/// Builds something, one thing at a time, and gives what runs it, which starts no compiler: that would wait for the one which builds the next.
pub(crate) type Trial<'workspace> = Box<dyn FnOnce() -> Result<Trying<'workspace>> + 'workspace>;
/// Runs what was built.
pub(crate) type Trying<'workspace> = Box<dyn FnOnce() -> Result<()> + Send + 'workspace>;

/// Builds and runs all of them, in this order, several at a time.
///
/// # Errors
/// The first that fails; those that run then are still awaited.
pub(crate) fn run<'workspace>(trials: impl IntoIterator<Item = Trial<'workspace>>) -> Result<()> {
    thread::scope(|scope| {
        let mut running: VecDeque<ScopedJoinHandle<'_, Result<()>>> = VecDeque::new();
        for trial in trials {
            let run = trial()?;
            if running.len() >= RUNNING_MAX {
                running.pop_front().map_or(Ok(()), end)?;
            }
            running.push_back(scope.spawn(run));
        }
        running.into_iter().try_for_each(end)
    })
}

fn end(running: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    running
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use anyhow::bail;

    use super::*;

    #[test]
    fn what_is_built_is_run_and_a_failure_ends_it() {
        let seen = Mutex::new(Vec::new());
        let note = |what: String| seen.lock().expect("nobody panics").push(what);
        let trial = |number: u32, fails: bool| -> Trial<'_> {
            Box::new(move || {
                note(format!("build {number}"));
                Ok(Box::new(move || {
                    note(format!("run {number}"));
                    if fails {
                        bail!("{number} fails");
                    }
                    Ok(())
                }))
            })
        };
        assert!(run((0..4).map(|number| trial(number, false))).is_ok());
        let all = std::mem::take(&mut *seen.lock().expect("nobody panics"));
        for number in 0..4 {
            let place = |what| {
                all.iter()
                    .position(|seen| *seen == format!("{what} {number}"))
            };
            assert!(place("build") < place("run"), "{all:?}");
        }
        let failed = run((0..5).map(|number| trial(number, number == 0)));
        assert_eq!(
            failed.map_err(|error| error.to_string()),
            Err("0 fails".to_owned())
        );
        assert!(
            !seen
                .lock()
                .expect("nobody panics")
                .contains(&"run 4".to_owned())
        );
    }
}
