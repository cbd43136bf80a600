//! The host functions, written once for every engine.
//!
//! A host function gets a [`Call`]: the program's memory as a slice, its [`HostState`] and the
//! node's services. It knows no engine. [`table`] lists all of them with their names and types;
//! each engine links that list.

pub(crate) mod device;
pub(crate) mod errno;
mod guest;
pub(crate) mod mielin;
mod patience;
pub(crate) mod table;
#[cfg(feature = "tensor")]
pub(crate) mod tensor;
#[cfg(test)]
mod tests;
pub(crate) mod wasi;

use alloc::sync::Arc;

use crate::services::Services;
use crate::state::Pending;
use crate::{Capability, HostState, Limits, StopHandle, Wait};
use errno::Errno;
use guest::Guest;

/// What an engine keeps with a program's store.
pub(crate) struct Context {
    pub(crate) host: HostState,
    pub(crate) services: Arc<dyn Services>,
    pub(crate) limits: Limits,
    /// What the program waits for, if its last host call suspended it.
    pub(crate) waiting: Option<Wait>,
    /// The poll word of a program that can be suspended; a plain one waits inside its calls.
    pub(crate) stop: Option<StopHandle>,
}

/// One host call under way.
pub(crate) struct Call<'a> {
    pub(crate) memory: Guest<'a>,
    pub(crate) state: &'a mut HostState,
    pub(crate) services: &'a dyn Services,
    pub(crate) limits: &'a Limits,
    stop: Option<&'a StopHandle>,
    suspend: Option<Wait>,
    /// Whether the program is suspended though it waits for nothing.
    yields: bool,
}

/// A host call that does not return to the program. Engines carry it through the program's native
/// stack as an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Exit {
    #[error("exit with code {0}")]
    Process(i32),
    #[error("{}", crate::TrapKind::EndlessWait)]
    EndlessWait,
}

/// What a host function may give back, as what the program gets.
pub(crate) trait Reply {
    type Wasm;
    fn reply(self) -> Result<Self::Wasm, Exit>;
}

impl Reply for Result<(), Errno> {
    type Wasm = u32;
    fn reply(self) -> Result<u32, Exit> {
        Ok(match self {
            Ok(()) => 0,
            Err(errno) => errno as u32,
        })
    }
}

impl Reply for u32 {
    type Wasm = u32;
    fn reply(self) -> Result<u32, Exit> {
        Ok(self)
    }
}

impl Reply for Exit {
    type Wasm = ();
    fn reply(self) -> Result<(), Exit> {
        Err(self)
    }
}

impl Context {
    /// A program that has made no call. It is a plain one until it gets a poll word.
    pub(crate) fn new(host: HostState, services: Arc<dyn Services>, limits: &Limits) -> Self {
        Self {
            host,
            services,
            limits: limits.clone(),
            waiting: None,
            stop: None,
        }
    }

    /// Performs a host call. If the flag says that the program must unwind, its poll word says so
    /// already, and the engine sets the mode.
    pub(crate) fn call<R: Reply>(
        &mut self,
        memory: &mut [u8],
        body: impl Fn(&mut Call<'_>) -> R,
    ) -> (Result<R::Wasm, Exit>, bool) {
        let again = self.host.pending.is_some();
        let performed = self.perform(memory, body);
        if !again
            && self.services.called()
            && let Some(stop) = &self.stop
        {
            stop.request();
        }
        performed
    }

    fn perform<R: Reply>(
        &mut self,
        memory: &mut [u8],
        body: impl Fn(&mut Call<'_>) -> R,
    ) -> (Result<R::Wasm, Exit>, bool) {
        loop {
            let mut call = Call {
                memory: Guest::new(memory),
                state: &mut self.host,
                services: &*self.services,
                limits: &self.limits,
                stop: self.stop.as_ref(),
                suspend: None,
                yields: false,
            };
            let reply = body(&mut call).reply();
            let yields = call.yields;
            self.waiting = call.suspend;
            if let (true, Some(stop)) = (yields, &self.stop) {
                stop.unwind();
                return (reply, true);
            }
            let Some(wait) = self.waiting else {
                return (reply, false);
            };
            if let Some(stop) = &self.stop {
                stop.unwind();
                return (reply, true);
            }
            // It may wake early: then the call finds that it has to wait again.
            match wait.deadline_ns {
                Some(deadline) => {
                    self.host.platform.sleep(self.host.until(deadline));
                }
                None => return (Err(Exit::EndlessWait), false),
            }
        }
    }
}

impl Call<'_> {
    /// Refuses the call unless the program holds the capability.
    fn require(&self, capability: Capability, call: &'static str) -> Result<(), Errno> {
        if self.state.grants.allows(&capability) {
            return Ok(());
        }
        self.services.denied(&capability, call);
        Err(Errno::Notcapable)
    }

    /// Whether the program is asked to stop.
    #[cfg_attr(
        not(feature = "tensor"),
        expect(dead_code, reason = "for calls that take long")
    )]
    fn is_interrupted(&self) -> bool {
        self.stop.is_some_and(StopHandle::is_requested)
    }

    /// Lets a program stop that is asked to, in the middle of this call, which it issues again when it goes on.
    #[cfg_attr(
        not(feature = "tensor"),
        expect(dead_code, reason = "for calls that take long")
    )]
    fn yield_with(&mut self, pending: Pending) {
        self.state.pending = Some(pending);
        self.yields = true;
    }

    /// Suspends the program; when it goes on it issues this call again, with the same arguments,
    /// and finds `pending` in its state. Nothing may have been done yet that must not be repeated.
    fn block(&mut self, pending: Pending, wait: Wait) -> Result<(), Errno> {
        self.state.pending = Some(pending);
        self.suspend = Some(wait);
        Ok(())
    }
}
