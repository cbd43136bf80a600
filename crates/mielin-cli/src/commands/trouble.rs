//! What is wrong with the node itself, as `mesh status` and `node info` say it.

use crate::api::{RunningCopy, Trouble};

/// Lines for people; nothing where nothing is wrong.
pub(super) fn text(trouble: &Trouble) -> String {
    trouble.copy.as_ref().map_or_else(String::new, copy)
}

fn copy(copy: &RunningCopy) -> String {
    let RunningCopy {
        address,
        proved,
        gives_way,
    } = copy;
    let what = match (proved, gives_way) {
        (true, true) => format!(
            "this node runs elsewhere already, at {address}: this process keeps out of the mesh until that one is gone"
        ),
        (true, false) => format!(
            "this node runs a second time, at {address}: that process keeps out of the mesh"
        ),
        (false, _) => format!(
            "members say again and again that this node also runs at {address}, where it cannot be found: \
             a copy of it may run, or a member lies"
        ),
    };
    format!(
        "\nWARNING: {what}.\nStop one of the two, and give each node a directory of its own and join it with `mielin mesh join`.\n"
    )
}
