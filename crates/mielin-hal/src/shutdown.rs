//! How a kernel ends the machine that it runs on.

/// Why a machine is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that was to be done is done.
    Success,
    /// Something went wrong. What watches the machine, such as an emulator, gets to know it where it can be told.
    Failure,
}

/// A way to switch the machine off.
pub trait Shutdown {
    /// Switches the machine off. That it returns at all means that the machine refused.
    fn shut_down(&mut self, outcome: Outcome);
}
