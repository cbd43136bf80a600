//! How deep the processor rests, what that costs, and how long it was so.

use core::fmt;
use core::ops::BitOr;

/// What the processor does with its time.
///
/// Sources: Armv7-M Architecture Reference Manual, B1.5.17 to B1.5.20 (power management, WFI, WFE, SLEEPDEEP); what stops in each, and
/// for how long a wake-up takes, is the chip's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PowerMode {
    /// It executes instructions.
    Run,
    /// WFI or WFE: it stops until an interrupt, and its clocks go on, SysTick among them.
    Sleep,
    /// The same with SLEEPDEEP set: most clocks stop, SysTick among them, and another timer keeps the time.
    DeepSleep,
}

impl fmt::Display for PowerMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Run => "run",
            Self::Sleep => "sleep",
            Self::DeepSleep => "deep sleep",
        })
    }
}

/// What can wake a processor that rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WakeSources(u8);

impl WakeSources {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The time: an alarm that was set.
    pub const TIMER: Self = Self(1 << 0);
    /// A byte on a serial line.
    pub const SERIAL: Self = Self(1 << 1);
    /// A pin, by which sensors and radios say that they have something.
    pub const PIN: Self = Self(1 << 2);
    /// Every interrupt that is enabled.
    pub const ANY: Self = Self(u8::MAX);

    /// Whether all of these are among them.
    #[must_use]
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

impl BitOr for WakeSources {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a mode costs, and what it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeCost {
    /// From the decision to rest until the processor does, in ticks of the clock.
    pub enter_ticks: u32,
    /// From what wakes it until instructions are executed, in ticks of the clock.
    pub leave_ticks: u32,
    /// What can wake it.
    pub wakes: WakeSources,
}

impl ModeCost {
    /// Going there and coming back.
    #[must_use]
    pub const fn ticks(&self) -> u64 {
        self.enter_ticks as u64 + self.leave_ticks as u64
    }
}

/// From [`PowerMode::Run`] to another mode, and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Where to.
    pub to: PowerMode,
    /// What it costs, and what ends it.
    pub cost: ModeCost,
}

/// The modes that a board has.
#[derive(Clone, Copy, Debug)]
pub struct PowerModes {
    /// [`PowerMode::Sleep`], which every Cortex-M has.
    pub sleep: ModeCost,
    /// [`PowerMode::DeepSleep`], where a timer goes on that keeps the time.
    pub deep_sleep: Option<ModeCost>,
}

impl PowerModes {
    /// The transition to a mode; `None` when the board does not have it, or there is none, to [`PowerMode::Run`].
    #[must_use]
    pub fn transition(&self, to: PowerMode) -> Option<Transition> {
        let cost = match to {
            PowerMode::Run => None,
            PowerMode::Sleep => Some(self.sleep),
            PowerMode::DeepSleep => self.deep_sleep,
        };
        cost.map(|cost| Transition { to, cost })
    }

    /// The deepest mode from which the processor is back in `ticks`, and can be woken by all of `needed`: the one that saves most, as
    /// long as the way there and back takes no longer than the rest. `None` for `ticks` is a rest without an end.
    #[must_use]
    pub fn deepest(&self, ticks: Option<u64>, needed: WakeSources) -> PowerMode {
        let serves = |mode: &PowerMode| {
            self.transition(*mode).is_some_and(|transition| {
                transition.cost.wakes.contains(needed)
                    && ticks.is_none_or(|ticks| transition.cost.ticks() < ticks)
            })
        };
        let modes = [PowerMode::DeepSleep, PowerMode::Sleep];
        modes.into_iter().find(serves).unwrap_or(PowerMode::Run)
    }
}

/// How long the processor was in which mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Ticks in [`PowerMode::Run`].
    pub run_ticks: u64,
    /// Ticks in [`PowerMode::Sleep`].
    pub sleep_ticks: u64,
    /// Ticks in [`PowerMode::DeepSleep`].
    pub deep_sleep_ticks: u64,
    /// How often it rested, in either mode.
    pub rests: u64,
}

impl Usage {
    pub(crate) fn add(&mut self, mode: PowerMode, ticks: u64) {
        match mode {
            PowerMode::Run => self.run_ticks += ticks,
            PowerMode::Sleep => self.sleep_ticks += ticks,
            PowerMode::DeepSleep => self.deep_sleep_ticks += ticks,
        }
    }

    /// The share of time asleep, in thousandths; 0 before any time has passed.
    #[must_use]
    pub fn asleep_permille(&self) -> u32 {
        let asleep = self.sleep_ticks + self.deep_sleep_ticks;
        let all = asleep + self.run_ticks;
        // Both scaled down together, so that the product fits: thousandths do not need more than 48 bits.
        let shift = 16_u32.saturating_sub(all.leading_zeros());
        let share = ((asleep >> shift) * 1000).checked_div(all >> shift);
        share.map_or(0, |share| share as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: PowerModes = PowerModes {
        sleep: ModeCost {
            enter_ticks: 2,
            leave_ticks: 12,
            wakes: WakeSources::ANY,
        },
        deep_sleep: Some(ModeCost {
            enter_ticks: 100,
            leave_ticks: 400,
            wakes: WakeSources(WakeSources::TIMER.0 | WakeSources::PIN.0),
        }),
    };

    #[test]
    fn as_deep_as_pays() {
        let deepest = |ticks, needed| BOARD.deepest(ticks, needed);
        let timer = WakeSources::TIMER;
        assert_eq!(deepest(Some(14), timer), PowerMode::Run);
        assert_eq!(deepest(Some(15), timer), PowerMode::Sleep);
        assert_eq!(deepest(Some(500), timer), PowerMode::Sleep);
        assert_eq!(deepest(Some(501), timer), PowerMode::DeepSleep);
        assert_eq!(
            deepest(None, timer | WakeSources::PIN),
            PowerMode::DeepSleep
        );
        assert_eq!(deepest(None, timer | WakeSources::SERIAL), PowerMode::Sleep);
        assert_eq!(BOARD.transition(PowerMode::Run), None);

        let shallow = PowerModes {
            deep_sleep: None,
            ..BOARD
        };
        assert_eq!(shallow.deepest(None, timer), PowerMode::Sleep);
        assert_eq!(shallow.transition(PowerMode::DeepSleep), None);
    }

    #[test]
    fn the_share_of_time_asleep() {
        let usage = |run, sleep, deep| Usage {
            run_ticks: run,
            sleep_ticks: sleep,
            deep_sleep_ticks: deep,
            rests: 0,
        };
        assert_eq!(Usage::default().asleep_permille(), 0);
        assert_eq!(usage(1, 1, 2).asleep_permille(), 750);
        assert_eq!(usage(0, 0, 9).asleep_permille(), 1000);
        // Years at 100 MHz, where a product with 1000 would not fit.
        assert_eq!(usage(1 << 60, 1 << 61, 1 << 60).asleep_permille(), 750);
    }
}
