//! The members that a node remembers from one run to the next, one
//! `<node id> <address>` per line in the file `peers`.

use std::net::SocketAddr;

use mielin_mesh_core::NodeId;

use crate::directory::{DataDirectory, DirectoryError};

const PEERS_FILE: &str = "peers";
/// Members that are remembered.
const PEERS_MAX: usize = 256;

/// Reads the remembered members. Lines that say nothing are skipped: the file
/// is a hint, and a node without it still has its bootstrap addresses.
///
/// # Errors
/// The data directory failed.
pub fn remembered_peers(
    directory: &DataDirectory,
) -> Result<Vec<(NodeId, SocketAddr)>, DirectoryError> {
    let content = directory.read(PEERS_FILE)?.unwrap_or_default();
    Ok(parse(&content))
}

pub(crate) fn parse(content: &[u8]) -> Vec<(NodeId, SocketAddr)> {
    let content = String::from_utf8_lossy(content);
    let parse = |line: &str| {
        let (node, address) = line.split_once(' ')?;
        Some((node.parse().ok()?, address.trim().parse().ok()?))
    };
    content.lines().filter_map(parse).take(PEERS_MAX).collect()
}

/// Replaces the remembered members.
///
/// # Errors
/// The data directory failed.
pub fn remember_peers(
    directory: &DataDirectory,
    peers: &[(NodeId, SocketAddr)],
) -> Result<(), DirectoryError> {
    let lines: String = peers
        .iter()
        .take(PEERS_MAX)
        .map(|(node, address)| format!("{node} {address}\n"))
        .collect();
    directory.write(PEERS_FILE, lines.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn peers_come_back_and_damaged_lines_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(dir.path()).unwrap();
        assert_eq!(remembered_peers(&directory).unwrap(), []);
        let peers = [
            (NodeId([1; 32]), "127.0.0.1:9000".parse().unwrap()),
            (NodeId([2; 32]), "[::1]:9001".parse().unwrap()),
        ];
        remember_peers(&directory, &peers).unwrap();
        assert_eq!(remembered_peers(&directory).unwrap(), peers);
        let mut damaged = directory.read(PEERS_FILE).unwrap().unwrap();
        damaged.extend_from_slice(b"\xff\xfe nonsense\n\nabc 1.2.3.4:5\n");
        directory.write(PEERS_FILE, &damaged).unwrap();
        assert_eq!(remembered_peers(&directory).unwrap(), peers);
    }
}
