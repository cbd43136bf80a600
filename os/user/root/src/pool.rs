//! The machine's memory: pieces of it for programs, and what the first program needs for itself.

use mielin_user::objects::Untyped;
use mielin_user::{Error, Information, ObjectKind, Supplies};

use crate::Failure;

/// Memory that is not given away.
pub(crate) struct Pool {
    /// Of the first program itself; objects that stay for ever are made of it.
    pub(crate) supplies: Supplies,
    /// The largest piece, for agents.
    largest: Option<(Untyped, u8)>,
}

impl Pool {
    pub(crate) fn of(information: Information) -> Result<Self, Failure> {
        let memory = || information.untypeds().filter(|untyped| !untyped.device);
        let largest = memory().max_by_key(|one| one.bits).ok_or(Failure::Memory)?;
        let others = memory().filter(|one| one.untyped != largest.untyped);
        let own = others.max_by_key(|one| one.bits).ok_or(Failure::Memory)?;
        Ok(Self {
            supplies: Supplies::of_first_thread(information).with_memory(own.untyped),
            largest: Some((largest.untyped, largest.bits)),
        })
    }

    /// All memory that programs have together.
    pub(crate) fn bytes(&self, information: Information) -> u64 {
        let memory = information.untypeds().filter(|untyped| !untyped.device);
        memory.map(|untyped| 1 << untyped.bits).sum()
    }

    /// A piece of 2^bits bytes.
    pub(crate) fn piece(&mut self, bits: u8) -> Result<Untyped, Error> {
        self.supplies.object(ObjectKind::Untyped, bits).map(Untyped)
    }

    /// The largest piece, once.
    pub(crate) fn largest(&mut self) -> Result<(Untyped, u8), Failure> {
        self.largest.take().ok_or(Failure::Memory)
    }
}
