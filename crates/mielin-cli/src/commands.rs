//! What each command does with its arguments.

pub(crate) mod agent;
mod copies;
mod leaves;
pub(crate) mod mesh;
pub(crate) mod node;
mod reach;
mod top;
mod trouble;
pub(crate) mod wasm;

use crate::failure::Failure;

/// Bytes that nobody can guess.
fn random<const COUNT: usize>() -> Result<[u8; COUNT], Failure> {
    let mut random = [0; COUNT];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::internal(format!("the system gave no random bytes: {error}")))?;
    Ok(random)
}
