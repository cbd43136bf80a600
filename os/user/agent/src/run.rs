//! An agent's life.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mielin_safepoint::{SnapshotLimits, instrument};
use mielin_user::agents::{Ending, Part, host, slot};
use mielin_user::objects::Notification;
use mielin_user::system_call::now;
use mielin_user::{Cap, Startup};
use mielin_wasm::{
    Address, CapabilityError, Checkpoint, EngineKind, Grants, HostState, Instance, Level, Limits,
    NoRandomBytes, Outcome, Platform, Services, StopHandle, Wait, engine,
};
use spin::Mutex;

use crate::server::{PAYLOAD_BYTES_MAX, Server};

/// The most memory that an agent has. What its program has is more, but the engine and a checkpoint have room in that, too.
const MEMORY_BYTES_MAX: u64 = 3 << 20;

fn limits() -> Limits {
    Limits {
        memory_bytes: MEMORY_BYTES_MAX,
        table_elements: 1 << 14,
        module_bytes: 1 << 20,
        message_bytes: PAYLOAD_BYTES_MAX,
        log_bytes: u64::MAX,
        input_bytes: 256 << 10,
    }
}

/// The machine's clock. There is nothing here that nobody can foresee.
#[derive(Debug)]
struct Machine {
    ticks_per_second: AtomicU64,
}

static MACHINE: Machine = Machine {
    ticks_per_second: AtomicU64::new(1),
};

impl Machine {
    fn ticks(&self) -> u128 {
        u128::from(self.ticks_per_second.load(Ordering::Relaxed).max(1))
    }
}

impl Platform for Machine {
    fn monotonic_ns(&self) -> u64 {
        (u128::from(now()) * 1_000_000_000 / self.ticks()) as u64
    }

    fn realtime_ns(&self) -> u64 {
        0
    }

    fn fill_random(&self, _: &mut [u8]) -> Result<(), NoRandomBytes> {
        Err(NoRandomBytes {
            reason: "this system has no source of random bytes".to_string(),
        })
    }
}

/// What the second thread has to do with.
static STOP: Mutex<Option<StopHandle>> = Mutex::new(None);
static FREEZE: AtomicBool = AtomicBool::new(false);

const CONTROL: Notification = Notification(Cap(slot::CONTROL));
const WAKE: Notification = Notification(Cap(slot::WAKE));

/// The second thread: it waits for the agent server's word.
pub(crate) fn second() -> ! {
    loop {
        let Ok(bits) = CONTROL.wait() else {
            mielin_user::start::fail()
        };
        if bits & host::FREEZE != 0 {
            FREEZE.store(true, Ordering::SeqCst);
            if let Some(stop) = &*STOP.lock() {
                stop.request();
            }
        }
        // The first thread looks when it waits.
        let _ = WAKE.signal();
    }
}

/// The first thread.
pub(crate) fn first(startup: Startup) -> ! {
    let ticks = startup.ticks_per_second();
    MACHINE.ticks_per_second.store(ticks, Ordering::Relaxed);
    let (ending, code, why) = match Life::begin() {
        Ok(life) => life.live(startup),
        Err(why) => (Ending::Refused, 0, why),
    };
    Server.end(ending, code, why.as_bytes());
    mielin_user::start::fail()
}

struct Life {
    /// The plain module, and what came with a checkpoint that is not for here.
    carried: Carried,
    instance: Box<dyn Instance>,
}

struct Carried {
    module: Vec<u8>,
    others: Vec<mielin_safepoint::HostSection>,
}

/// What the agent server says of the agent, in lines of a key and a value.
#[derive(Default)]
struct Specification {
    address: [u8; 16],
    goes_on: bool,
    name: String,
    allow: Vec<String>,
    arguments: Vec<String>,
}

impl Specification {
    fn parse(text: &str) -> Option<Self> {
        let mut specification = Self::default();
        for line in text.lines() {
            let (key, value) = line.split_once(' ')?;
            match key {
                "name" => specification.name = value.to_string(),
                "address" => specification.address = value.parse::<Address>().ok()?.0,
                "begin" => specification.goes_on = value == "checkpoint",
                "allow" => specification.allow.push(value.to_string()),
                "argument" => specification.arguments.push(value.to_string()),
                _ => return None,
            }
        }
        Some(specification)
    }
}

impl Life {
    /// Makes the agent, which does not run yet; or says why there is none.
    fn begin() -> Result<Self, String> {
        let lost = |error| format!("the agent server does not answer: {error:?}");
        let text = Server.fetch(Part::Specification).map_err(lost)?;
        let image = Server.fetch(Part::Image).map_err(lost)?;
        let text = core::str::from_utf8(&text).ok();
        let told = text.and_then(Specification::parse);
        let told = told.ok_or("the agent server says something unknown")?;
        if told.goes_on {
            return Self::go_on(&image, told.address);
        }
        let input = Server.fetch(Part::Input).map_err(lost)?;
        let mut grants = Grants::none();
        for one in &told.allow {
            grants.grant(
                one.parse()
                    .map_err(|error: CapabilityError| error.to_string())?,
            );
        }
        let arguments = core::iter::once(told.name).chain(told.arguments);
        let state = HostState::on(&MACHINE, Address(told.address))
            .with_args(arguments)
            .with_stdin(input)
            .with_grants(grants);
        let carried = Carried {
            module: image,
            others: Vec::new(),
        };
        let instance = instantiate(&carried.module, state)?;
        Ok(Self { carried, instance })
    }

    /// An agent that goes on from a checkpoint, under this address.
    fn go_on(bytes: &[u8], address: [u8; 16]) -> Result<Self, String> {
        let limits = SnapshotLimits {
            memory_bytes: MEMORY_BYTES_MAX,
            ..SnapshotLimits::default()
        };
        let checkpoint = Checkpoint::decode(bytes, &limits);
        let checkpoint = checkpoint.map_err(|error| error.to_string())?;
        let state = HostState::on(&MACHINE, Address(address));
        let mut instance = instantiate(&checkpoint.module, state)?;
        let loaded = instance.load(&checkpoint.snapshot);
        loaded.map_err(|error| error.to_string())?;
        instance.host_mut().address = Address(address);
        let carried = Carried {
            module: checkpoint.module,
            others: checkpoint.others,
        };
        Ok(Self { carried, instance })
    }

    /// Runs it until it ends or is stored.
    fn live(mut self, startup: Startup) -> (Ending, i32, String) {
        *STOP.lock() = Some(self.instance.stop_handle());
        loop {
            // What was asked before the handle was there, or while the agent did not run.
            if FREEZE.swap(false, Ordering::SeqCst) {
                match self.freeze() {
                    Ok(life) => self = life,
                    Err(end) => return end,
                }
                *STOP.lock() = Some(self.instance.stop_handle());
                continue;
            }
            match self.instance.run() {
                Outcome::Exited(code) => return (Ending::Exited, code, String::new()),
                Outcome::Trapped(trap) => return (Ending::Trapped, 0, trap.to_string()),
                Outcome::Blocked(wait) => self.wait(startup, wait),
                Outcome::Stopped => {}
            }
        }
    }

    /// Waits for what the agent waits for, or for the second thread.
    fn wait(&self, startup: Startup, wait: Wait) {
        // Whatever ends it, the agent looks itself for what it waits for.
        let _ = match wait.deadline_ns {
            None => WAKE.wait(),
            Some(deadline) => {
                let left = self.instance.host().until(deadline).as_nanos();
                let ticks = left * u128::from(startup.ticks_per_second()) / 1_000_000_000;
                let until = now().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX));
                WAKE.wait_until(until.max(1))
            }
        };
    }

    /// Becomes bytes, which the agent server has then; or, if it does not take them, what it was.
    fn freeze(self) -> Result<Self, (Ending, i32, String)> {
        let address = self.instance.host().address.0;
        let checkpoint = Checkpoint {
            snapshot: self.instance.snapshot(),
            module: self.carried.module,
            others: self.carried.others,
        };
        // There is no room for the agent, its copy, and the copy's bytes.
        drop(self.instance);
        let bytes = checkpoint.encode();
        match Server.store(&bytes) {
            Ok(true) => Err((Ending::Frozen, 0, String::new())),
            Ok(false) | Err(_) => {
                let why = format!("not stored: there is no room for {} bytes", bytes.len());
                Server.log(Level::Warn, &why);
                Self::go_on(&bytes, address).map_err(|why| (Ending::Trapped, 0, why))
            }
        }
    }
}

/// A fresh instance of a module, which is rewritten here: whoever made a checkpoint may say anything of what is in it.
fn instantiate(module: &[u8], state: HostState) -> Result<Box<dyn Instance>, String> {
    let resumable = instrument(module).map_err(|error| error.to_string())?;
    let engine = engine(EngineKind::Wasmi).map_err(|error| error.to_string())?;
    let prepared = engine.prepare(&resumable, None);
    let prepared = prepared.map_err(|error| error.to_string())?;
    let instance = prepared.instantiate(state, Arc::new(Server), &limits());
    instance.map_err(|error| error.to_string())
}
