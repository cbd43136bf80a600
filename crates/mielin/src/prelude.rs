//! What most programs use: `use mielin::prelude::*;`.

pub use mielin_cells::{
    AgentEnd, AgentReport, Cells, CellsConfig, CellsError, LogKind, MoveOptions, MoveReport,
    SpawnRequest,
};
pub use mielin_hal::{Architecture, HardwareCapabilities, detect_architecture};
pub use mielin_mesh::{
    MeshConfig, MeshError, MeshEvent, MeshService, NodeCredentials, create_mesh,
};
pub use mielin_mesh_core::{
    AgentId, AgentRegistry, AgentState, MemberState, MigrationCoordinator, MigrationMetrics,
    MigrationPhase, MigrationStrategy, NodeId, NodeRole,
};
pub use mielin_tensor::{ShapeError, Tensor, TensorOps};
pub use mielin_wasm::{Capability, EngineKind, Grants, Limits};
