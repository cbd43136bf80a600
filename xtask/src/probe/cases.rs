//! The machines on which the firmware runs, and what each must and must not say.
//!
//! What a processor has is taken from its manual where QEMU's model keeps to it, else from QEMU: with TCG there is no
//! AVX-512, whatever the model's name promises, and the Cortex-M4 has the identification registers of a Cortex-M3
//! (`target/arm/tcg/cpu-v7m.c`), so that nothing is expected of its DSP extension.

use super::Arch;

/// One machine.
pub(super) struct Case {
    pub(super) arch: Arch,
    pub(super) name: &'static str,
    /// Rust's name of the target for which the firmware is built.
    pub(super) target: &'static str,
    pub(super) emulator: &'static str,
    pub(super) arguments: &'static [&'static str],
    /// The emulator's exit status when all went well.
    pub(super) status: i32,
    /// Features that must be there, by their names.
    pub(super) has: &'static str,
    /// Features that must not be there.
    pub(super) has_not: &'static str,
    /// Lines that must be there.
    pub(super) says: &'static [&'static str],
}

const fn riscv(
    name: &'static str,
    arguments: &'static [&'static str],
    has: &'static str,
    has_not: &'static str,
    says: &'static [&'static str],
) -> Case {
    Case {
        arch: Arch::Riscv64,
        name,
        target: "riscv64gc-unknown-none-elf",
        emulator: "qemu-system-riscv64",
        arguments,
        status: 0,
        has,
        has_not,
        says,
    }
}

const fn cortex_m(
    name: &'static str,
    target: &'static str,
    arguments: &'static [&'static str],
    has: &'static str,
    has_not: &'static str,
    says: &'static [&'static str],
) -> Case {
    Case {
        arch: Arch::CortexM,
        name,
        target,
        emulator: "qemu-system-arm",
        arguments,
        status: 0,
        has,
        has_not,
        says,
    }
}

const fn aarch64(
    name: &'static str,
    arguments: &'static [&'static str],
    has: &'static str,
    has_not: &'static str,
    says: &'static [&'static str],
) -> Case {
    Case {
        arch: Arch::Aarch64,
        name,
        target: "aarch64-unknown-none-softfloat",
        emulator: "qemu-system-aarch64",
        arguments,
        status: 0,
        has,
        has_not,
        says,
    }
}

const fn x86_64(
    name: &'static str,
    arguments: &'static [&'static str],
    has: &'static str,
    has_not: &'static str,
    says: &'static [&'static str],
) -> Case {
    Case {
        arch: Arch::X86_64,
        name,
        target: "x86_64-unknown-none",
        emulator: "qemu-system-x86_64",
        arguments,
        // What the driver of isa-debug-exit writes in the end.
        status: 33,
        has,
        has_not,
        says,
    }
}

/// The device that gives the exit status; a fault that nobody handles ends the machine.
macro_rules! pc {
    ($cpu:literal $(, $more:literal)*) => {
        &[
            "-M",
            "q35",
            "-cpu",
            $cpu,
            "-device",
            "isa-debug-exit,iobase=0xf4,iosize=4",
            "-no-reboot",
            $($more,)*
        ]
    };
}

/// What no processor of TCG's has.
const NOT_IN_TCG: &str = "avx512f avx512bw avx512vl avx512vnni avx512fp16 amx-tile";
/// What all lines of Armv8.0 with the cryptographic extension have.
const ARMV8_0: &str = "neon aes pmull sha1 sha2 crc";
const RISCV_VECTORS: &str = "v zvfh zvbb zvkned zvknhb";

pub(super) const CASES: &[Case] = &[
    aarch64(
        "aarch64 virt with GICv2, Cortex-A53, two processors",
        &[
            "-M",
            "virt,gic-version=2",
            "-cpu",
            "cortex-a53",
            "-smp",
            "2",
        ],
        ARMV8_0,
        "dotprod fp16 lse rdm rcpc bf16 i8mm sve sve2 sme bti mte",
        &[
            "architecture: aarch64",
            "model: Cortex-A53",
            "paging: stage 1",
            "supervisor: spaces of 16 bits, addresses of 40 bits",
            "vector bits: none",
            "processors: 2",
            "memory: 0x8000000 bytes at 0x40000000",
            "alarm: came",
            "interrupt: line 27 by GICv2",
            "interrupt: line 33 by GICv2",
            "console: read m",
        ],
    ),
    aarch64(
        "aarch64 virt with GICv3, Cortex-A57",
        &["-M", "virt,gic-version=3", "-cpu", "cortex-a57", "-m", "1G"],
        ARMV8_0,
        "dotprod fp16 lse rdm sve",
        &[
            "model: Cortex-A57",
            "paging: stage 1",
            "supervisor: spaces of 16 bits, addresses of 44 bits, GIC registers",
            "memory: 0x40000000 bytes at 0x40000000",
            "alarm: came",
            "interrupt: line 27 by GICv3",
            "interrupt: line 33 by GICv3",
            "console: read m",
        ],
    ),
    aarch64(
        "aarch64 virt with GICv3, started at EL2, Neoverse N1",
        &[
            "-M",
            "virt,gic-version=3,virtualization=on",
            "-cpu",
            "neoverse-n1",
        ],
        "neon aes pmull sha1 sha2 crc dotprod fp16 lse rdm rcpc",
        "bf16 i8mm jsconv fcma fhm sha3 sve sve2 sme bti mte",
        &[
            "model: Neoverse-N1",
            "paging: stage 1",
            "supervisor: spaces of 16 bits, addresses of 48 bits, GIC registers, PAN, UAO, CSV3",
            "vector bits: none",
            "alarm: came",
            "interrupt: line 33 by GICv3",
        ],
    ),
    aarch64(
        "aarch64 virt, A64FX",
        &["-M", "virt", "-cpu", "a64fx"],
        "neon fp16 lse rdm fcma sve",
        "sve2 bf16 i8mm dotprod sme",
        &["model: A64FX", "vector bits: 512", "alarm: came"],
    ),
    aarch64(
        "aarch64 virt, max",
        &["-M", "virt", "-cpu", "max"],
        "neon aes sha512 sha3 sm4 dotprod fp16 bf16 i8mm fhm fcma jsconv lse rcpc rand bti sve sve2 sve-i8mm sme",
        "mte",
        &["vector bits: 2048", "alarm: came"],
    ),
    aarch64(
        "aarch64 virt with GICv2, started at EL2, max with vectors of 256 bits",
        &[
            "-M",
            "virt,gic-version=2,virtualization=on",
            "-cpu",
            "max,sve-max-vq=2",
        ],
        "sve sve2",
        "",
        &[
            "vector bits: 256",
            "alarm: came",
            "interrupt: line 33 by GICv2",
        ],
    ),
    aarch64(
        "aarch64 virt, max without scalable vectors",
        &["-M", "virt", "-cpu", "max,sve=off,sme=off"],
        "neon dotprod i8mm",
        "sve sve2 sve-i8mm sve-bf16 sme sme2",
        &["vector bits: none", "alarm: came"],
    ),
    riscv(
        "riscv64 virt, rv64",
        &["-M", "virt", "-cpu", "rv64"],
        "m a f d c zba zbb zbc zbs sstc",
        RISCV_VECTORS,
        &[
            "architecture: riscv64",
            "kernels: scalar",
            "vector bits: none",
            "board: riscv-virtio",
            "processors: 1",
            "memory: 0x8000000 bytes at 0x80000000",
            "paging: Sv39",
            "paging: Sv48",
            "timer: 10000000 Hz",
            "alarm by: firmware",
            "alarm by: processor",
            "alarm: came",
            "interrupt: line 10 by PLIC",
            "console: read m",
        ],
    ),
    riscv(
        "riscv64 virt, rv64 with vectors of 256 bits, two processors",
        &["-M", "virt", "-cpu", "rv64,v=true,vlen=256", "-smp", "2"],
        "m a f d c v",
        "",
        &["vector bits: 256", "processors: 2", "alarm: came"],
    ),
    riscv(
        "riscv64 virt, rv64 with vectors of 512 bits, ended by the firmware",
        &[
            "-M",
            "virt",
            "-cpu",
            "rv64,v=true,vlen=512",
            "-append",
            "end=sbi",
        ],
        "m a f d c v",
        "",
        &["vector bits: 512", "interrupt: line 10 by PLIC"],
    ),
    riscv(
        "riscv64 virt, rv64 without bit manipulation and Sstc",
        &[
            "-M",
            "virt",
            "-cpu",
            "rv64,zba=false,zbb=false,zbc=false,zbs=false,sstc=false",
        ],
        "m a f d c",
        "v zba zbb zbc zbs sstc",
        &["alarm by: firmware", "alarm: came"],
    ),
    riscv(
        "riscv64 virt, sifive-u54",
        &["-M", "virt", "-cpu", "sifive-u54", "-m", "256M"],
        "m a f d c",
        "v h zba zbb sstc",
        &[
            "vector bits: none",
            "paging: Sv39",
            "memory: 0x10000000 bytes at 0x80000000",
            "alarm: came",
        ],
    ),
    cortex_m(
        "micro:bit (Cortex-M0)",
        "thumbv6m-none-eabi",
        &["-M", "microbit", "-semihosting"],
        "",
        "fpu dsp mve mpu trustzone",
        &[
            "architecture: arm",
            "model: Cortex-M0",
            "vector bits: none",
            "timer: 16000000 Hz",
            "alarm: came",
            "interrupt: line 7 by NVIC",
            "console: read m",
        ],
    ),
    cortex_m(
        "LM3S6965 (Cortex-M3)",
        "thumbv7m-none-eabi",
        &["-M", "lm3s6965evb", "-semihosting"],
        "mpu",
        "fpu dsp mve trustzone",
        &[
            "model: Cortex-M3",
            "timer: 12500000 Hz",
            "alarm: came",
            "interrupt: line 7 by NVIC",
            "console: read m",
        ],
    ),
    cortex_m(
        "MPS2 AN386 (Cortex-M4)",
        "thumbv7em-none-eabihf",
        &["-M", "mps2-an386", "-semihosting"],
        "fpu mpu",
        "fpu-double mve trustzone",
        &[
            "model: Cortex-M4",
            "kernels: scalar",
            "timer: 25000000 Hz",
            "alarm: came",
            "interrupt: line 7 by NVIC",
            "console: read m",
        ],
    ),
    cortex_m(
        "MPS2 AN500 (Cortex-M7)",
        "thumbv7em-none-eabihf",
        &["-M", "mps2-an500", "-semihosting"],
        "fpu fpu-double dsp mpu",
        "mve trustzone",
        &[
            "model: Cortex-M7",
            "alarm: came",
            "interrupt: line 7 by NVIC",
        ],
    ),
    cortex_m(
        "MPS2 AN505 (Cortex-M33)",
        "thumbv8m.main-none-eabihf",
        &["-M", "mps2-an505", "-semihosting"],
        "fpu dsp mpu trustzone",
        "fpu-double mve",
        &[
            "model: Cortex-M33",
            "timer: 20000000 Hz",
            "alarm: came",
            "interrupt: line 7 by NVIC",
            "console: read m",
        ],
    ),
    x86_64(
        "q35, Haswell, two processors",
        pc!("Haswell", "-smp", "2"),
        "sse2 sse4.2 avx avx2 fma f16c bmi1 bmi2 lzcnt movbe popcnt aes pclmulqdq rdrand",
        "avx512f adx sha rdseed sse4a vaes amx-tile",
        &[
            "architecture: x86_64",
            "model: Intel Core Processor (Haswell)",
            "cache: level 1, data, 32768 bytes",
            "alarm: came",
            "paging: four levels",
            "processors: 2, local APIC at 0xfee00000",
            "interrupt: timer by local APIC",
            "interrupt: line 4 by I/O APIC",
            "console: read m",
        ],
    ),
    x86_64(
        "q35, Skylake-Server",
        pc!("Skylake-Server"),
        "avx avx2 fma adx bmi2",
        NOT_IN_TCG,
        &[
            "model: Intel Xeon Processor (Skylake)",
            "alarm: came",
            "interrupt: timer by local APIC",
        ],
    ),
    x86_64(
        "q35, SandyBridge",
        pc!("SandyBridge"),
        "sse4.2 avx aes popcnt",
        "avx2 fma f16c bmi1 bmi2 movbe rdrand adx",
        &[
            "model: Intel Xeon E312xx (Sandy Bridge)",
            "alarm: came",
            "interrupt: line 4 by I/O APIC",
        ],
    ),
    x86_64(
        "q35, Haswell that cannot save wide registers",
        pc!("Haswell,-xsave"),
        "bmi2 popcnt",
        "sse2 avx avx2 fma f16c aes",
        &["alarm: came"],
    ),
    x86_64(
        "q35, max",
        pc!("max"),
        "avx2 fma bmi2 adx aes",
        NOT_IN_TCG,
        &[
            "paging: four levels",
            "processors: 1, local APIC at 0xfee00000",
            "alarm: came",
            "interrupt: timer by local APIC",
            "interrupt: line 4 by I/O APIC",
        ],
    ),
];
