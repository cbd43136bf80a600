//! What is wrong with the node itself, as `mesh status` and `node info` say it.

use crate::api::{OwnRevocation, RunningCopy, Trouble};

/// Lines for people; nothing where nothing is wrong.
pub(super) fn text(trouble: &Trouble) -> String {
    let copy = trouble.copy.as_ref().map(copy);
    let revoked = trouble.revoked.as_ref().map(revoked);
    [revoked, copy].into_iter().flatten().collect()
}

fn revoked(own: &OwnRevocation) -> String {
    let reason = match own.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    format!(
        "\nWARNING: this node was revoked{reason}: it is no member of the mesh any more.\n\
         Make a new one with another --data-dir and join it with `mielin mesh join`.\n"
    )
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
