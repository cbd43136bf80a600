use std::vec;
use std::vec::Vec;

use mielin_fuzz::{Seed, Target};

use super::*;
use crate::features::CpuFeature;

/// Writes a tree.
#[derive(Default)]
struct Writer {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Writer {
    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn pad(&mut self) {
        let len = self.structure.len().next_multiple_of(4);
        self.structure.resize(len, 0);
    }

    fn begin(&mut self, name: &str) -> &mut Self {
        self.word(BEGIN_NODE);
        self.structure.extend(name.bytes().chain([0]));
        self.pad();
        self
    }

    fn end(&mut self) -> &mut Self {
        self.word(END_NODE);
        self
    }

    fn property(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.word(PROPERTY);
        self.word(value.len() as u32);
        self.word(self.strings.len() as u32);
        self.strings.extend(name.bytes().chain([0]));
        self.structure.extend(value);
        self.pad();
        self
    }

    fn cells(&mut self, name: &str, cells: &[u32]) -> &mut Self {
        let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.property(name, &value)
    }

    fn finish(&mut self) -> Vec<u8> {
        self.word(END);
        let structure_at = HEADER_BYTES + 16;
        let strings_at = structure_at + self.structure.len();
        let total = strings_at + self.strings.len();
        let header = [
            MAGIC,
            total as u32,
            structure_at as u32,
            strings_at as u32,
            HEADER_BYTES as u32,
            COMPATIBLE_VERSION,
            16,
            0,
            self.strings.len() as u32,
            self.structure.len() as u32,
        ];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.resize(structure_at, 0);
        bytes.extend(&self.structure);
        bytes.extend(&self.strings);
        bytes
    }
}

/// Two processors, one of which says what it can do in the older way, and two stretches of memory.
fn tree() -> Vec<u8> {
    let mut tree = Writer::default();
    tree.begin("")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2]);
    tree.begin("memory@80000000")
        .property("device_type", b"memory\0")
        .cells("reg", &[0, 0x8000_0000, 0, 0x1000_0000, 1, 0, 0, 0x1000])
        .end();
    tree.begin("cpus")
        .cells("timebase-frequency", &[10_000_000]);
    tree.begin("cpu@0")
        .property("device_type", b"cpu\0")
        .property("riscv,isa", b"rv64imafdc_zba\0")
        .end();
    tree.word(NOP);
    tree.begin("cpu@1")
        .property("device_type", b"cpu\0")
        .property("riscv,isa", b"rv64i\0")
        .property("riscv,isa-base", b"rv64i\0")
        .property("riscv,isa-extensions", b"i\0m\0v\0zvl256b\0zbb\0")
        .begin("interrupt-controller")
        .property("compatible", b"riscv,cpu-intc\0")
        .end()
        .end();
    tree.begin("cpu-map").end().end();
    tree.end().finish()
}

#[test]
fn a_tree_is_read() {
    let bytes = tree();
    let tree = DeviceTree::new(&bytes).expect("a tree");
    let names: Vec<_> = tree.root().children().map(Node::name).collect();
    assert_eq!(names, ["memory@80000000", "cpus"]);
    let memory: Vec<_> = tree.memory().collect();
    assert_eq!(memory, [(0x8000_0000, 0x1000_0000), (1 << 32, 0x1000)]);
    let cpus = tree.find("/cpus").expect("there are some");
    assert_eq!(cpus.number("timebase-frequency"), Some(10_000_000));
    let isas: Vec<_> = tree.processors().filter_map(Node::isa).collect();
    let [old, new] = isas[..] else {
        panic!("two processors: {isas:?}");
    };
    assert!(old.features.contains(CpuFeature::Double) && old.features.contains(CpuFeature::Zba));
    assert!(new.features.contains(CpuFeature::Vector) && new.features.contains(CpuFeature::Zbb));
    assert!(!new.features.contains(CpuFeature::Double));
    assert_eq!(new.vector_bits_min, Some(256));
    let inner = tree
        .find("/cpus/cpu@1/interrupt-controller")
        .expect("below it");
    assert_eq!(inner.text("compatible"), Some("riscv,cpu-intc"));
    assert_eq!(tree.find("/cpus/cpu").map(Node::name), Some("cpu@0"));
    assert!(tree.find("/cpus/gpu").is_none());
    assert_eq!(inner.children().count(), 0);
}

#[test]
fn what_is_no_tree_says_why() {
    let check = |bytes: &[u8], expected| assert_eq!(DeviceTree::new(bytes).err(), Some(expected));
    let good = tree();
    check(&[], DeviceTreeError::NotATree);
    check(&good[..HEADER_BYTES - 1], DeviceTreeError::NotATree);
    check(&good[..good.len() - 1], DeviceTreeError::Truncated);
    let with = |index: usize, word: u32| {
        let mut bytes = good.clone();
        bytes[index * 4..][..4].copy_from_slice(&word.to_be_bytes());
        bytes
    };
    check(&with(0, 1), DeviceTreeError::NotATree);
    check(&with(6, 18), DeviceTreeError::Version(18));
    check(&with(2, u32::MAX), DeviceTreeError::Truncated);
    check(&with(9, 8), DeviceTreeError::Malformed);
    // A node that is not closed, and a second root.
    check(
        &Writer::default().begin("").finish(),
        DeviceTreeError::Malformed,
    );
    let two = Writer::default().begin("").end().begin("").end().finish();
    check(&two, DeviceTreeError::Malformed);
}

/// Whatever the bytes are: no panic, nothing allocated, and a walk ends.
const DEVICE_TREE: Target = Target {
    name: "device_tree",
    mutations: 20_000,
    fixed_bytes: 64 * NODES_MAX,
    bytes_per_byte: 0,
    run: |bytes| {
        let Ok(tree) = DeviceTree::new(bytes) else {
            return false;
        };
        let mut nodes = std::vec![tree.root()];
        let mut left = NODES_MAX / 2;
        while let Some(node) = nodes.pop() {
            let held = node
                .properties()
                .map(|(_, value)| value.len())
                .sum::<usize>();
            assert!(held <= bytes.len());
            node.regions(&tree.root()).for_each(drop);
            let _ = (node.isa(), node.text("device_type"), node.number("reg"));
            for child in node.children().take(left) {
                left -= 1;
                nodes.push(child);
            }
        }
        tree.memory().for_each(drop);
        tree.processors().for_each(drop);
        true
    },
    seeds: || {
        let good = tree();
        let mut version = good.clone();
        version[27] = 18;
        let mut open = Writer::default();
        vec![
            Seed::good("two-processors", good.clone()),
            Seed::good("bare", Writer::default().begin("").end().finish()),
            Seed::bad("another-version", version),
            Seed::bad("cut", good[..good.len() - 1].to_vec()),
            Seed::bad("not-closed", open.begin("").begin("a").end().finish()),
        ]
    },
};

/// Nodes that are looked at.
const NODES_MAX: usize = 4096;

#[test]
fn hostile_trees() {
    DEVICE_TREE.replay();
}
