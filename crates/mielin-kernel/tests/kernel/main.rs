//! The kernel against its own invariants, a naive model of itself, and hostile programs. `docs/KERNEL.md` says what checks what.

mod arena;
mod cast;
mod invariants;
mod observe;
mod world;

mod mended;
mod random;
mod smoke;
