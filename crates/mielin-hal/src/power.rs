//! Where the power comes from, and how much of it is left.

use core::fmt;

/// Below this charge, and not charging, an agent should leave (DESIGN, "Constants").
pub const LOW_BATTERY_PERCENT: u8 = 20;

/// How a machine is powered. What is not known is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerStatus {
    /// What it draws from.
    pub source: Option<PowerSource>,
    /// Its battery; all of them together, if it has several. `None` also where there is none.
    pub battery: Option<BatteryStatus>,
}

/// What a machine draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerSource {
    /// The mains, or anything else that does not run out.
    Mains,
    /// Its battery.
    Battery,
}

impl fmt::Display for PowerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mains => "mains",
            Self::Battery => "battery",
        })
    }
}

/// A battery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatteryStatus {
    /// Charge in percent of what it holds when it is full.
    pub percent: u8,
    /// What becomes of it.
    pub charge: Charge,
}

impl BatteryStatus {
    /// Whether it is time to leave: the charge is low and does not rise.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.percent < LOW_BATTERY_PERCENT && self.charge != Charge::Charging
    }
}

/// What becomes of a battery's charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// It rises.
    Charging,
    /// It falls.
    Discharging,
    /// It stays, because the battery is full or is kept as it is.
    Idle,
    /// Nobody says.
    Unknown,
}

impl fmt::Display for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Charging => "charging",
            Self::Discharging => "discharging",
            Self::Idle => "idle",
            Self::Unknown => "unknown",
        })
    }
}

impl PowerStatus {
    /// Asks the machine: with `std`, `/sys/class/power_supply` on Linux, IOKit's power sources on macOS; less the
    /// batteries of mice and the like.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(all(feature = "std", target_os = "linux"))]
        return crate::linux::power(std::path::Path::new("/"));
        #[cfg(all(feature = "std", target_os = "macos"))]
        {
            let (providing, sources) = crate::ask::power_sources();
            crate::macos::power(providing.as_deref(), &sources)
        }
        #[cfg(not(all(feature = "std", any(target_os = "linux", target_os = "macos"))))]
        Self::default()
    }
}

/// One battery of perhaps several.
#[cfg(all(feature = "std", any(test, target_os = "linux", target_os = "macos")))]
pub(crate) struct Battery {
    pub(crate) percent: u8,
    pub(crate) charge: Charge,
    /// Energy, or else charge, now and when it is full, in any unit.
    pub(crate) content: Option<(u64, u64)>,
}

/// Several batteries as one: weighted by what they hold, if all say that.
#[cfg(all(feature = "std", any(test, target_os = "linux", target_os = "macos")))]
pub(crate) fn together(batteries: &[Battery]) -> Option<BatteryStatus> {
    if let [one] = batteries {
        return Some(BatteryStatus {
            percent: one.percent,
            charge: one.charge,
        });
    }
    let all_say = batteries.iter().all(|battery| battery.content.is_some());
    let parts = batteries.iter().map(|battery| {
        let content = battery.content.filter(|_| all_say);
        content.unwrap_or((battery.percent.into(), 100))
    });
    let (now, full) = parts.fold((0_u128, 0_u128), |(now, full), part| {
        (now + u128::from(part.0), full + u128::from(part.1))
    });
    let percent = (now * 100).checked_div(full)?.min(100) as u8;
    let charge = [Charge::Charging, Charge::Discharging, Charge::Idle]
        .into_iter()
        .find(|charge| batteries.iter().any(|battery| battery.charge == *charge));
    Some(BatteryStatus {
        percent,
        charge: charge.unwrap_or(Charge::Unknown),
    })
}
