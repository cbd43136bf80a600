//! An agent does not go on before the move that brought it is over.

use std::sync::Arc;
use std::time::Duration;

use mielin_mesh_core::limits::RELEASE_TIMEOUT;

use crate::cell::Cell;
use crate::error::CellsError;
use crate::node::Node;

/// How long a move waits for the end of the one before, which comes by itself after [`RELEASE_TIMEOUT`], and is then
/// written down.
const PATIENCE: Duration = RELEASE_TIMEOUT.saturating_add(Duration::from_secs(5));

/// Waits until the source of an agent that has come is known to have let go of it, or it is written down what that source
/// is told. If the agent went on before that and this node crashed, its source would be told that it was never here.
pub(crate) async fn until_settled(node: &Arc<Node>, cell: &Arc<Cell>) -> Result<(), CellsError> {
    let mut ended = node.watch_moves();
    let settled = async {
        loop {
            ended.borrow_and_update();
            if !cell.post.is_withheld() {
                return;
            }
            if ended.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let settled = tokio::time::timeout(PATIENCE, settled).await;
    settled.map_err(|_| CellsError::Busy {
        agent: cell.id(),
        doing: "it has just come, and its source has not let go of it".to_owned(),
    })
}
