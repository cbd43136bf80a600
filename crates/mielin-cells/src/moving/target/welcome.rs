//! Whether an agent that is offered may come, and within which limits.
//!
//! What the source says of its agent is a claim. Its limits are cut to this node's, as those of a copy are, and what it
//! is already must fit into them: its memory, which the offer names, before anything is allocated for it; its input, logs
//! and module while they come.

use mielin_mesh_core::migration::Offer;
use mielin_wasm::Limits;

use super::super::frames::Identified;
use crate::cell::Identity;
use crate::checkpoint::smaller;
use crate::error::CellsError;

/// Arguments and environment are stored with their lengths, and a program has few other sections that never change.
const SECTIONS_REST_BYTES: usize = 65_536;

/// Who the agent would be on a node with these limits.
pub(super) fn admit(
    offer: &Offer,
    identified: Identified,
    here: &Limits,
) -> Result<Identity, CellsError> {
    let offered = identified.into_identity(offer.agent)?;
    let limits = smaller(&offered.limits, here);
    fits(
        "the agent's memory",
        offer.memory_bytes,
        limits.memory_bytes,
    )?;
    fits("the module", offer.module_bytes, limits.module_bytes as u64)?;
    Ok(Identity { limits, ..offered })
}

/// Refuses what is larger than it may be.
pub(super) fn fits(what: &str, len: u64, max: u64) -> Result<(), CellsError> {
    if len > max {
        return Err(CellsError::TooLarge {
            what: what.to_owned(),
            len,
            max,
        });
    }
    Ok(())
}

/// Refuses sections of the host state that never change, when they are too long to be an input within the limits.
pub(super) fn sections_fit(len: usize, limits: &Limits) -> Result<(), CellsError> {
    let max = limits.input_bytes.saturating_mul(2);
    let max = max.saturating_add(SECTIONS_REST_BYTES);
    fits("the agent's input", len as u64, max as u64)
}
