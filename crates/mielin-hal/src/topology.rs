//! How many processors there are, what they are called, how fast they run and which caches they have.

use core::fmt;

use crate::few::Few;

/// The most kinds of caches that are told apart.
const CACHES_MAX: usize = 12;
/// The longest name of a processor in bytes; x86-64's have 48.
const MODEL_BYTES_MAX: usize = 64;

/// The processors of a machine. What is not known is `None`.
///
/// | system | who is asked |
/// |---|---|
/// | Linux, with `std` | `/sys/devices/system/cpu`, `/proc/cpuinfo`; for the name `CPUID` or MIDR_EL1 |
/// | macOS, with `std` | sysctl; on x86-64 `CPUID` for the name and the caches; nobody for clock rates |
/// | x86-64 otherwise | `CPUID`: the name and the caches, but not who shares them |
/// | Cortex-M | CPUID: the name |
/// | 64-bit Arm without `std` and with `privileged` | MIDR_EL1: the name |
/// | others | nobody |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// The processor's name, as its maker gives it.
    pub model: Option<Model>,
    /// Processors that the operating system runs programs on.
    pub logical: Option<u32>,
    /// Cores; several logical processors may share one.
    pub physical: Option<u32>,
    /// Sockets.
    pub packages: Option<u32>,
    /// The caches, by level, data before instructions.
    pub caches: Few<Cache, CACHES_MAX>,
    /// Clock rates of the first processor.
    pub frequency: Frequency,
}

impl Topology {
    /// Asks the machine.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(all(feature = "std", target_os = "linux"))]
        return crate::linux::topology(std::path::Path::new("/"));
        #[cfg(not(all(feature = "std", target_os = "linux")))]
        {
            let of_processor = Self {
                model: model_of_processor(),
                caches: caches_of_processor(),
                ..Self::default()
            };
            #[cfg(all(feature = "std", target_os = "macos"))]
            return crate::macos::topology(crate::ask::system_control, of_processor);
            #[cfg(not(all(feature = "std", target_os = "macos")))]
            of_processor
        }
    }

    /// The cache of this level that holds data.
    #[must_use]
    pub fn data_cache(&self, level: u8) -> Option<&Cache> {
        self.caches
            .iter()
            .find(|cache| cache.level == level && cache.kind != CacheKind::Instruction)
    }
}

/// Caches of one level, kind and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1 is nearest to the processor.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// Bytes of one of them.
    pub size_bytes: u64,
    /// Bytes of a line.
    pub line_bytes: Option<u32>,
    /// Places at which a line can be; `None` if they are not known.
    pub ways: Option<u32>,
    /// Logical processors that share one of them.
    pub shared_by: Option<u32>,
    /// How many of them the machine has.
    pub instances: Option<u32>,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheKind {
    /// Data only.
    Data,
    /// Instructions only.
    Instruction,
    /// Both.
    Unified,
}

impl fmt::Display for CacheKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Instruction => "instruction",
            Self::Unified => "unified",
        })
    }
}

/// Clock rates in hertz.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frequency {
    /// The highest that the processor promises to keep.
    pub base_hz: Option<u64>,
    /// The highest that it reaches.
    pub max_hz: Option<u64>,
    /// What it was when somebody asked.
    pub current_hz: Option<u64>,
}

/// A processor's name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Model {
    bytes: [u8; MODEL_BYTES_MAX],
    len: usize,
}

impl Model {
    /// The printable part of a name, cut at 64 bytes; `None` if nothing is left of it.
    #[must_use]
    pub fn new(name: &str) -> Option<Model> {
        let mut bytes = [0; MODEL_BYTES_MAX];
        let mut len = 0;
        let printable = name.trim().chars().filter(|char| !char.is_control());
        for char in printable {
            let Some(place) = bytes.get_mut(len..len + char.len_utf8()) else {
                break;
            };
            len += char.encode_utf8(place).len();
        }
        (len > 0).then_some(Model { bytes, len })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).expect("it was made of characters")
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(not(all(feature = "std", target_os = "linux")))]
fn model_of_processor() -> Option<Model> {
    #[cfg(target_arch = "x86_64")]
    return crate::x86::model(&crate::ask::Processor);
    #[cfg(cortex_m)]
    return crate::ask::cortex_m_name().and_then(Model::new);
    #[cfg(all(target_arch = "aarch64", not(feature = "std"), feature = "privileged"))]
    return crate::ask::midr()
        .and_then(crate::aarch64::name)
        .and_then(Model::new);
    #[cfg(not(any(
        target_arch = "x86_64",
        cortex_m,
        all(target_arch = "aarch64", not(feature = "std"), feature = "privileged")
    )))]
    None
}

#[cfg(not(all(feature = "std", target_os = "linux")))]
fn caches_of_processor() -> Few<Cache, CACHES_MAX> {
    #[cfg(target_arch = "x86_64")]
    return crate::x86::caches(&crate::ask::Processor);
    #[cfg(not(target_arch = "x86_64"))]
    Few::EMPTY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_cleaned() {
        let name =
            |text: &str| Model::new(text).map(|model| std::string::String::from(model.as_str()));
        assert_eq!(name(" AMD EPYC\0\0 ").as_deref(), Some("AMD EPYC"));
        assert_eq!(name("\n\t"), None);
        assert_eq!(name(&"ä".repeat(40)), Some("ä".repeat(32)));
        assert_eq!(
            name(&std::format!("x{}", "ä".repeat(40))),
            Some(std::format!("x{}", "ä".repeat(31)))
        );
    }
}
