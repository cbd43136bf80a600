//! The kernel against its own invariants, a naive model of itself, and hostile programs. `docs/KERNEL.md` says what checks what.

mod arena;
mod carried;
mod cast;
mod invariants;
mod model;
mod observe;
mod world;

mod cspace;
mod explore;
mod hostile;
mod mended;
mod random;
mod smoke;
mod spaces;
mod time;
