//! How many files the daemon may have open.
//!
//! What a shell gives its programs, 1,024 in most, is for those that still use `select`. A node may take what the system
//! lets it have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Files besides those of agents: database, logs of the busiest, sockets, and descriptors of the engine.
const OTHERS: u64 = 512;
/// Those of an agent that has its instance: its two logs.
const EACH_LIVE: u64 = 2;

/// Raises the limit as far as that is allowed, and says when it is low for a node that keeps so many instances.
pub(super) fn raise_limit(live_instances_max: usize) {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    // `None` is no limit.
    let now = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => before.maximum,
        Err(error) => {
            warn!("the number of files that may be open could not be raised: {error}");
            before.current
        }
    };
    let Some(now) = now else { return };
    let enough = OTHERS + EACH_LIVE * live_instances_max as u64;
    if now < enough {
        warn!(
            "at most {now} files may be open, which is few for this node: let it have {enough}, with `ulimit -n` or \
             LimitNOFILE=, or keep fewer agents ready with --live-instances-max"
        );
    } else if before.current != Some(now) {
        info!("at most {now} files may be open");
    }
}
