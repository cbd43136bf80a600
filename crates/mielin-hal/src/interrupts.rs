//! What an interrupt controller is to a kernel: lines that can be switched on, and which of them is being served.

/// A controller, from the processor that uses it. What a line's number means is the controller's own: each says it.
pub trait InterruptController {
    /// Lets the line interrupt this processor. Lines that there are not are ignored.
    fn enable(&mut self, line: u32);

    /// Lets it no longer.
    fn disable(&mut self, line: u32);

    /// In a handler: the line that is to be served now. `None` if there is none (any more).
    fn claim(&mut self) -> Option<u32>;

    /// After [`InterruptController::claim`], when the device asks for nothing more: the line may interrupt again.
    fn complete(&mut self, line: u32);
}

/// When a line interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// Each time that it becomes active.
    Edge,
    /// As long as it is.
    Level,
}

/// At which level a line is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Polarity {
    /// When it is high.
    High,
    /// When it is low.
    Low,
}
