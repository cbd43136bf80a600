//! Which memory nobody uses.

#[cfg(not(target_arch = "x86_64"))]
use mielin_hal::{DeviceTree, Node};
use mielin_kernel::Region;

const MAX: usize = 64;

/// A few stretches of physical memory.
pub(crate) struct Regions {
    list: [Region; MAX],
    len: usize,
}

impl Regions {
    pub(crate) const fn none() -> Self {
        const EMPTY: Region = Region {
            begin: 0,
            end: 0,
            device: false,
        };
        Self {
            list: [EMPTY; MAX],
            len: 0,
        }
    }

    /// All of them.
    pub(crate) fn as_slice(&self) -> &[Region] {
        &self.list[..self.len]
    }

    /// Adds what is whole pages of a stretch. What does not fit into the list is left unused.
    #[inline(never)]
    pub(crate) fn add(&mut self, begin: u64, end: u64, device: bool) {
        let begin = page_end(begin);
        let end = end / 4096 * 4096;
        if begin < end && self.len < MAX {
            self.list[self.len] = Region { begin, end, device };
            self.len += 1;
        }
    }

    /// Adds the memory that a device tree tells of, up to an address. What it names twice is there once.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn add_memory(&mut self, tree: DeviceTree<'_>, limit: u64) {
        for (begin, len) in tree.memory() {
            let end = begin.saturating_add(len).min(limit);
            self.remove(begin, end);
            self.add(begin, end, false);
        }
    }

    /// Takes out what firmware keeps for itself.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn remove_reserved(&mut self, tree: DeviceTree<'_>) {
        if let Some(reserved) = tree.find("/reserved-memory") {
            for node in reserved.children() {
                self.remove_registers(node, reserved);
            }
        }
    }

    /// Takes out what a node of a device tree has, of memory or registers.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn remove_registers(&mut self, node: Node<'_>, parent: Node<'_>) {
        for (begin, len) in node.regions(&parent) {
            self.remove(begin, begin.saturating_add(len));
        }
    }

    /// Takes out all pages that a stretch touches.
    #[inline(never)]
    pub(crate) fn remove(&mut self, begin: u64, end: u64) {
        let begin = begin / 4096 * 4096;
        let end = page_end(end);
        let old = core::mem::replace(self, Self::none());
        for region in old.as_slice() {
            self.add(region.begin, region.end.min(begin), region.device);
            self.add(region.begin.max(end), region.end, region.device);
        }
    }

    /// Takes out the largest stretch of memory.
    pub(crate) fn take_largest(&mut self) -> Option<Region> {
        let memory = self.as_slice().iter().filter(|region| !region.device);
        let largest = *memory.max_by_key(|region| region.end - region.begin)?;
        self.remove(largest.begin, largest.end);
        Some(largest)
    }
}

/// The end of the page that ends here, or in the middle of which this is; the last address if that page is the last one.
fn page_end(address: u64) -> u64 {
    address.checked_next_multiple_of(4096).unwrap_or(u64::MAX)
}
