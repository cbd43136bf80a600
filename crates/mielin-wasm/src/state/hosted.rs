//! Host state on the operating system below this process.

use mielin_safepoint::HostSection;

use super::{HostState, StateError};
use crate::{Address, Hosted};

impl HostState {
    /// A program with this address, without arguments, environment, input or grants.
    pub fn new(address: Address) -> Self {
        Self::on(&Hosted, address)
    }

    /// Reads what [`to_sections`](Self::to_sections) wrote; sections of others are skipped. The
    /// clock goes on from the time that it was written at.
    ///
    /// # Errors
    /// The sections are damaged, hostile or of another version.
    pub fn from_sections(sections: &[HostSection]) -> Result<Self, StateError> {
        Self::from_sections_on(&Hosted, sections)
    }
}
