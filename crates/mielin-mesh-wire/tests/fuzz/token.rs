//! Join tokens and the roots in them: what is read is written as the same text.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use mielin_fuzz::{Seed, Target};
use mielin_mesh_core::NodeRole;
use mielin_mesh_wire::{JoinToken, RootCertificate, create_mesh};

pub(crate) const TARGET: Target = Target {
    name: "token",
    mutations: 10_000,
    // What parsing a certificate of any content needs.
    fixed_bytes: 64 << 10,
    bytes_per_byte: 64,
    run,
    seeds,
};

const PREFIX: &str = "mielin1";

/// The input is what a token says: secret, end, role, root. Without the checksum, which a change
/// would never meet.
fn run(bytes: &[u8]) -> bool {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<JoinToken>();
    }
    if let Ok(root) = RootCertificate::from_der(bytes.to_vec()) {
        assert_eq!(root.der(), bytes);
    }
    let sum = blake3::hash(&[PREFIX.as_bytes(), bytes].concat());
    let body = [bytes, &sum.as_bytes()[..4]].concat();
    let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&body));
    let token = text.parse::<JoinToken>();
    if let Ok(token) = &token {
        assert_eq!(token.to_string(), text);
    }
    token.is_ok()
}

fn seeds() -> Vec<Seed> {
    let dir = tempfile::tempdir().unwrap();
    let mesh = create_mesh(dir.path(), "first", NodeRole::Core).unwrap();
    let authority = mesh.authority().unwrap();
    let lifetime = Duration::from_secs(3600);
    let token = authority
        .issue_token(Some(NodeRole::Relay), lifetime)
        .unwrap();
    assert!(token.expires() > SystemTime::now());
    let text = token.to_string();
    let body = BASE64URL_NOPAD
        .decode(&text.as_bytes()[PREFIX.len()..])
        .unwrap();
    let content = body[..body.len() - 4].to_vec();
    let root = content[41..].to_vec();
    let mut unknown_role = content.clone();
    unknown_role[40] = 9;
    let mut without_end = content.clone();
    without_end[32..40].fill(0xff);
    vec![
        Seed::good("relay", content),
        Seed::bad("role-9", unknown_role),
        Seed::bad("ends-after-the-end-of-time", without_end),
        Seed::bad("text", text),
        Seed::bad("only-the-root", root),
    ]
}
