//! The machine, as far as figures depend on it.

use mielin_hal::Topology;

/// The processor's name.
pub(crate) fn processor() -> String {
    let model = Topology::detect().model;
    model.map_or_else(|| "unknown".to_owned(), |model| model.as_str().to_owned())
}

/// More bytes than its caches hold: four times the largest, and not less than 128 MiB.
pub(crate) fn beyond_caches() -> u64 {
    let caches = Topology::detect().caches;
    let largest = caches.iter().map(|cache| cache.size_bytes).max();
    (largest.unwrap_or(0) * 4).max(128 << 20)
}

/// What compiled mielin-tensor and this, and how much it optimised.
pub(crate) fn compiler() -> String {
    let (compiler, level) = (env!("COMPILER"), env!("OPTIMISATION"));
    format!("{compiler}, opt-level {level}")
}
