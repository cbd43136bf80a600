//! What the first thread is told by the kernel.
#![allow(unsafe_code)]

use core::slice;

use mielin_kernel::abi::BUFFER_BYTES;
use mielin_kernel::abi::boot as words;

use crate::objects::{
    AddressSpace, Cap, Frame, InterruptControl, Node, Ports, Power, SchedulingContext,
    SchedulingControl, Thread, Untyped,
};

/// The page of the first thread: what the kernel says, and the message buffer before it.
#[derive(Clone, Copy, Debug)]
pub struct Information(*const u64);

/// An untyped that the kernel gives to the first thread.
#[derive(Clone, Copy, Debug)]
pub struct UntypedMemory {
    /// Its capability.
    pub untyped: Untyped,
    /// Its physical address.
    pub base: u64,
    /// It has 2^bits bytes.
    pub bits: u8,
    /// It is registers of devices.
    pub device: bool,
}

impl Information {
    /// What is at this address.
    ///
    /// # Safety
    /// The kernel has passed the address to the first thread, and nobody writes to the page behind it.
    #[must_use]
    pub unsafe fn at(address: *const u64) -> Self {
        Self(address)
    }

    fn word(self, index: usize) -> u64 {
        assert!(index < words::UNTYPEDS + 2 * words::UNTYPEDS_MAX);
        // SAFETY: by the promise of `at`, these words are in the page.
        unsafe { self.0.add(index).read() }
    }

    /// Whether the kernel speaks as this program does.
    #[must_use]
    pub fn is_known(self) -> bool {
        self.word(0) == words::MAGIC
    }

    /// Ticks of the clock in a second.
    #[must_use]
    pub fn ticks_per_second(self) -> u64 {
        self.word(words::TICKS_PER_SECOND)
    }

    /// Bytes of memory that the kernel itself uses.
    #[must_use]
    pub fn kernel_bytes(self) -> u64 {
        self.word(words::KERNEL_BYTES)
    }

    /// ELF's number of the architecture.
    #[must_use]
    pub fn architecture(self) -> u64 {
        self.word(words::ARCHITECTURE)
    }

    /// The first slot of the node that is empty, as all behind it.
    #[must_use]
    pub fn free_slot(self) -> u64 {
        self.word(words::FREE_FIRST)
    }

    /// The node's bits.
    #[must_use]
    pub fn node_bits(self) -> u8 {
        self.word(words::NODE_BITS) as u8
    }

    /// The virtual address behind all that is mapped.
    #[must_use]
    pub fn free_address(self) -> u64 {
        self.word(words::FREE_ADDRESS)
    }

    /// The archive.
    #[must_use]
    pub fn archive(self) -> &'static [u8] {
        self.bytes(words::ARCHIVE, words::ARCHIVE_BYTES)
    }

    /// What firmware says of the machine.
    #[must_use]
    pub fn firmware(self) -> &'static [u8] {
        self.bytes(words::FIRMWARE, words::FIRMWARE_BYTES)
    }

    fn bytes(self, at: usize, len: usize) -> &'static [u8] {
        let (at, len) = (self.word(at), self.word(len));
        if at == 0 || len == 0 {
            return &[];
        }
        // SAFETY: the kernel has mapped these bytes, for reading and for ever.
        unsafe {
            slice::from_raw_parts(
                core::ptr::with_exposed_provenance(at as usize),
                len as usize,
            )
        }
    }

    /// The memory that there is.
    pub fn untypeds(self) -> impl Iterator<Item = UntypedMemory> {
        let count = self
            .word(words::UNTYPED_COUNT)
            .min(words::UNTYPEDS_MAX as u64);
        (0..count).map(move |index| {
            let form = self.word(words::UNTYPEDS + 2 * index as usize + 1);
            UntypedMemory {
                untyped: Untyped(Cap(words::UNTYPED_FIRST + index)),
                base: self.word(words::UNTYPEDS + 2 * index as usize),
                bits: form as u8,
                device: form & 0x100 != 0,
            }
        })
    }

    /// The first thread's message buffer.
    #[must_use]
    pub fn buffer(self) -> Buffer {
        Buffer(self.0.wrapping_byte_sub(BUFFER_BYTES as usize).cast_mut())
    }

    /// The first thread's own node.
    #[must_use]
    pub fn node(self) -> Node {
        Node(Cap(words::NODE))
    }

    /// The first thread.
    #[must_use]
    pub fn thread(self) -> Thread {
        Thread(Cap(words::THREAD))
    }

    /// Its address space.
    #[must_use]
    pub fn space(self) -> AddressSpace {
        AddressSpace(Cap(words::ADDRESS_SPACE))
    }

    /// Its time.
    #[must_use]
    pub fn time(self) -> SchedulingContext {
        SchedulingContext(Cap(words::SCHEDULING_CONTEXT))
    }

    /// Interrupts.
    #[must_use]
    pub fn interrupts(self) -> InterruptControl {
        InterruptControl(Cap(words::INTERRUPT_CONTROL))
    }

    /// Time and priorities.
    #[must_use]
    pub fn scheduling(self) -> SchedulingControl {
        SchedulingControl(Cap(words::SCHEDULING_CONTROL))
    }

    /// I/O ports.
    #[must_use]
    pub fn ports(self) -> Ports {
        Ports(Cap(words::PORTS))
    }

    /// The page with the buffer and this information.
    #[must_use]
    pub fn page(self) -> Frame {
        Frame(Cap(words::PAGE))
    }

    /// The end.
    #[must_use]
    pub fn power(self) -> Power {
        Power(Cap(words::POWER))
    }
}

/// A thread's message buffer: what of messages does not travel in registers.
#[derive(Clone, Copy, Debug)]
pub struct Buffer(*mut u64);

impl Buffer {
    /// The buffer at this address.
    ///
    /// # Safety
    /// [`BUFFER_BYTES`] are mapped there for reading and writing, and are nothing else; the value is used by the thread whose
    /// buffer it is.
    #[must_use]
    pub unsafe fn at(address: *mut u64) -> Self {
        Self(address)
    }

    /// A word of it.
    ///
    /// # Panics
    /// If there is no such word; as in the other functions.
    #[must_use]
    pub fn word(self, index: usize) -> u64 {
        assert!(index < BUFFER_BYTES as usize / 8);
        // SAFETY: by the promise of `at` it is mapped; the kernel writes there, so that reads must happen.
        unsafe { self.0.add(index).read_volatile() }
    }

    /// Writes a word.
    pub fn set_word(self, index: usize, word: u64) {
        assert!(index < BUFFER_BYTES as usize / 8);
        // SAFETY: as for `word`.
        unsafe { self.0.add(index).write_volatile(word) }
    }

    /// Says which capability goes with the next message, as the one with this number.
    pub fn send_capability(self, number: usize, cap: Cap) {
        assert!(number < mielin_kernel::abi::MESSAGE_CAPABILITIES_MAX);
        self.set_word(mielin_kernel::abi::BUFFER_CAPABILITIES + number, cap.0);
    }

    /// Says where capabilities go that come with messages.
    pub fn receive_capabilities(self, node: Node, index: u64) {
        self.set_word(mielin_kernel::abi::BUFFER_NODE, node.0.0);
        self.set_word(mielin_kernel::abi::BUFFER_INDEX, index);
    }
}
