//! MielinOS: agents that move between machines while they run.
//!
//! An agent is a WebAssembly program. It runs in a sandbox, may do only what it was granted, has an
//! address that works from anywhere in the mesh, and can be frozen in the middle of a loop, moved
//! to another node, and continued there with nothing lost. This crate is the door to all of it: it
//! holds no logic, only the floors below under one name, and a [`prelude`] with what most programs
//! use.
//!
//! | module | what it is |
//! |---|---|
//! | [`hal`] | which machine is this |
//! | [`tensor`] | numeric kernels over shaped arrays |
//! | [`safepoint`] | a module in, a resumable module out |
//! | [`wasm`] | engines, capabilities and host functions |
//! | [`mesh_core`] | the mesh's protocols as deterministic cores, and its ids |
//! | [`mesh`] | nodes that find, know and reach each other |
//! | [`cells`] | agents: lifecycle, messages, live migration |
//!
//! # A first program
//!
//! ```
//! use mielin::prelude::*;
//! fn main() {
//!     let arch = detect_architecture();
//!     println!("Running on: {:?}", arch);
//!     let agent_id = AgentId::new();
//!     println!("Agent ID: {}", agent_id);
//!     let tensor = Tensor::zeros(&[2, 3]);
//!     println!("Tensor shape: {:?}", tensor.shape());
//! }
//! ```
//!
//! `examples/mesh-cluster` in the repository is the next one: three nodes, and two programs that
//! move between them while they work.

// The first program is printed whole, as a user would write it to a file.
#![allow(clippy::needless_doctest_main)]

pub use mielin_cells as cells;
pub use mielin_hal as hal;
pub use mielin_mesh as mesh;
pub use mielin_mesh_core as mesh_core;
pub use mielin_safepoint as safepoint;
pub use mielin_tensor as tensor;
pub use mielin_wasm as wasm;

pub mod prelude;
