//! From the mode in which UEFI's programs run, 64 bits with paging, to that in which PVH's guests begin: 32 bits without.
//!
//! Source: Xen, `docs/misc/pvh.pandoc`; Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3A, 11.8.5.4
//! ("Switching Out of IA-32e Mode Operation").

use core::arch::{asm, global_asm};

use uefi::mem::memory_map::MemoryType;

use crate::pages::Pages;

// Where paging ends, code must lie at the same address with it and without, below 4 GiB; nobody says that of this program, so these
// instructions are copied to where it is so, and work wherever they are. They get the kernel's entry in edi and the address of the
// start information in esi. Code of 32 bits is entered while paging is still on (compatibility mode). Address space
// identifiers and shadow stacks are switched off first, because both refuse what follows.
global_asm!(
    r#"
    .code64
descent_begin:
    cli
    cld
    mov ebx, esi
    mov rax, cr4
    and rax, {cr4_kept}
    mov cr4, rax
    lea rax, [rip + 5f]
    sub rsp, 16
    mov word ptr [rsp], 31
    mov [rsp + 2], rax
    lgdt [rsp]
    lea rax, [rip + 2f]
    push 8
    push rax
    retfq

    .code32
2:  mov eax, 16
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    jmp 3f
3:  mov ecx, 0xc0000080
    xor eax, eax
    xor edx, edx
    wrmsr
    mov cr4, eax
    mov eax, 0x11
    mov cr0, eax
    mov eax, 24
    ltr ax
    jmp edi

    .balign 8
5:  .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x0000890000000067
descent_end:
    .code64
"#,
    // All but CET and PCIDE.
    cr4_kept = const !(1_i32 << 23 | 1 << 17),
);

unsafe extern "C" {
    static descent_begin: u8;
    static descent_end: u8;
}

/// The instructions, where they can be executed.
pub(crate) struct Descent(Pages);

impl Descent {
    /// Copies them.
    ///
    /// # Errors
    /// There is no memory below 4 GiB.
    pub(crate) fn new() -> uefi::Result<Self> {
        let mut pages = Pages::below_4_gib(MemoryType::LOADER_CODE)?;
        let begin = &raw const descent_begin;
        let len = (&raw const descent_end).addr() - begin.addr();
        // SAFETY: between the two symbols are the instructions above.
        let code = unsafe { core::slice::from_raw_parts(begin, len) };
        pages.as_mut()[..len].copy_from_slice(code);
        Ok(Self(pages))
    }

    /// Enters a kernel.
    ///
    /// # Safety
    /// Boot services have ended. At the physical address `entry` is code of 32 bits that may own the machine, and the
    /// information that it is to be told is at `information`, below 4 GiB.
    pub(crate) unsafe fn enter(&self, entry: u32, information: u64) -> ! {
        // SAFETY: by the caller's promise nobody else uses the machine; the instructions are in a page of code, where memory
        // is mapped where it is, and do not return.
        unsafe {
            asm!(
                "jmp {descent}",
                descent = in(reg) self.0.address(),
                in("rdi") u64::from(entry),
                in("rsi") information,
                options(noreturn),
            )
        }
    }
}
