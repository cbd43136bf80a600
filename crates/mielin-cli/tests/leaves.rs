//! `mielin mesh leaf`: what microcontrollers are given, and refused.

mod support;

use mielin_mesh_core::leaf::Admission;
use mielin_page::{PAGE_BYTES, Page};
use support::{Node, run_in};

const HOSTING: [&str; 4] = ["--role", "relay", "--leaf-udp", "127.0.0.1:0"];

#[test]
fn a_leaf_is_admitted_with_a_page_of_its_own_and_removed() {
    let node = Node::found_with("host", &HOSTING);
    let file = node.dir.join("greenhouse.page");
    let path = file.to_str().unwrap();
    let added = node.json(&["mesh", "leaf", "add", "greenhouse", "--page", path]);
    assert_eq!(
        support::keys(&added),
        ["admission", "name", "number", "page"]
    );
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes.len(), PAGE_BYTES);
    let page = Page::decode(&bytes).unwrap();
    assert_eq!(page.name(), "greenhouse");
    let admission: Admission = added["admission"].as_str().unwrap().parse().unwrap();
    assert_eq!(page.admission().to_string(), admission.to_string());
    // Nobody else has its key and its seed, and nobody else can read them.
    let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let other = node.dir.join("other.page");
    node.json(&[
        "mesh",
        "leaf",
        "add",
        "cellar",
        "--page",
        other.to_str().unwrap(),
    ]);
    let cellar = Page::decode(&std::fs::read(&other).unwrap()).unwrap();
    assert_ne!(cellar.key().as_bytes(), page.key().as_bytes());
    assert_ne!(cellar.seed(), page.seed());

    // Without a page its maker makes the key.
    let bare = node.mielin(&["mesh", "leaf", "add", "roof"]);
    assert!(bare.stdout().trim().parse::<Admission>().is_ok());

    let names = |list: &serde_json::Value| -> Vec<String> {
        let leaves = list["leaves"].as_array().unwrap().iter();
        leaves
            .map(|leaf| {
                assert_eq!(leaf["state"], "awaited");
                leaf["name"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let list = node.json(&["mesh", "leaf", "list"]);
    assert_eq!(names(&list), ["greenhouse", "cellar", "roof"]);
    node.json(&["mesh", "leaf", "remove", "cellar"]);
    let list = node.json(&["mesh", "leaf", "list"]);
    assert_eq!(names(&list), ["greenhouse", "roof"]);
    // Who looks for a leaf that does not appear sees what has come.
    let [way] = list["ways"].as_array().unwrap().as_slice() else {
        panic!("{list}");
    };
    assert_eq!(way["kind"], "udp");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .send_to(b"noise", way["way"].as_str().unwrap())
        .unwrap();
    let dropped = support::until("the noise is counted", || {
        let list = node.json(&["mesh", "leaf", "list"]);
        (list["ways"][0]["dropped"] == 1).then_some(list)
    });
    assert_eq!(dropped["ways"][0]["packets"], 0);
    assert!(dropped["ways"][0]["last_dropped"].is_string(), "{dropped}");
    let text = node.mielin(&["mesh", "leaf", "list"]);
    assert!(text.stdout().contains("1 dropped"), "{}", text.stdout());
    node.stop();
}

#[test]
fn nobody_is_admitted_for_whom_no_page_can_be_made() {
    let node = Node::found_with("host", &HOSTING);
    let page = node.dir.join("page");
    let page = page.to_str().unwrap();
    let long = "greenhouse-behind-the-house-of-the-gardener";
    let refused = node.mielin(&["mesh", "leaf", "add", long, "--page", page]);
    assert_eq!(refused.code(), 2, "{}", refused.stderr());
    let refused = node.mielin(&["mesh", "leaf", "add", "a", "--page", "/nowhere/page"]);
    assert_ne!(refused.code(), 0);
    assert!(refused.stderr().contains("/nowhere/page"));
    let list = node.json(&["mesh", "leaf", "list"]);
    assert_eq!(list["leaves"].as_array().map(Vec::len), Some(0));
    // A page is left as it was, whoever wants its place, and a name is given once.
    node.json(&["mesh", "leaf", "add", "shed", "--page", page]);
    let before = std::fs::read(page).unwrap();
    let refused = node.mielin(&["mesh", "leaf", "add", "barn", "--page", page]);
    assert_eq!(refused.code(), 3, "{}", refused.stderr());
    assert_eq!(std::fs::read(page).unwrap(), before);
    let other = format!("{page}-of-another");
    let refused = node.mielin(&["mesh", "leaf", "add", "shed", "--page", &other]);
    assert_eq!(refused.code(), 3, "{}", refused.stderr());
    assert!(!std::path::Path::new(&other).exists());
    node.stop();
}

#[test]
fn a_node_that_hosts_no_leaves_says_how_to() {
    let node = Node::found("plain");
    let refused = node.mielin(&["mesh", "leaf", "add", "shed"]);
    assert_eq!(refused.code(), 3);
    assert!(
        refused.stderr().contains("--leaf-udp"),
        "{}",
        refused.stderr()
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let udp = ["--leaf-udp", "127.0.0.1:0"];
    let edge = [&["mesh", "start", "--role", "edge"], &udp[..]].concat();
    assert_eq!(run_in(&elsewhere.path().join("data"), &edge).code(), 3);
    node.stop();
}
