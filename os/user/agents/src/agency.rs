//! The agents that there are.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use mielin_kernel::Executable;
use mielin_kernel::archive::Archive;
use mielin_user::agents::{AGENTS_MAX, Ending};
use mielin_user::pages::{NO_MEMORY, Pages, Stop};
use mielin_user::system_call::now;
use mielin_user::{Error, FaultKind, Startup, Supplies, say};

use crate::files::Arrival;
use crate::manifest::Manifest;
use crate::process::{Place, Programs};

/// Messages that wait for an agent.
const MAIL_MAX: usize = 16;
/// Messages that an agent can still answer; older ones are forgotten.
const UNANSWERED_MAX: usize = 512;
/// All agents, also those that are stored or have ended.
const ALL_AGENTS_MAX: usize = 32;
/// The bytes of all that are stored, and of what is coming: what `alloc` has is more, for everything else.
const HELD_BYTES_MAX: usize = 11 << 20;

/// What people are to agents that get messages from them.
pub(crate) const PERSON: [u8; 16] = [0; 16];

/// A message for an agent.
pub(crate) struct Mail {
    pub(crate) from: [u8; 16],
    pub(crate) sequence: u64,
    /// The number of the message that it answers.
    pub(crate) answers: Option<u64>,
    pub(crate) payload: Vec<u8>,
}

/// What an agent begins from.
pub(crate) enum Image {
    /// A module that came with the system.
    Module(&'static [u8]),
    /// A checkpoint.
    Stored(Vec<u8>),
}

impl Image {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Module(bytes) => bytes,
            Self::Stored(bytes) => bytes,
        }
    }
}

/// What an agent does.
pub(crate) enum State {
    Runs(Place),
    /// It was told to freeze.
    Freezes(Place, Freezing),
    /// It is a checkpoint, and can go on from there.
    Stored,
    Ended(String),
}

/// What is there of an agent that freezes.
#[derive(Default)]
pub(crate) struct Freezing {
    pub(crate) bytes: Vec<u8>,
    /// How many there will be.
    pub(crate) all: usize,
}

pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) address: [u8; 16],
    pub(crate) manifest: Manifest,
    pub(crate) image: Image,
    pub(crate) specification: String,
    pub(crate) input: &'static [u8],
    pub(crate) state: State,
    /// Its program has done more than to ask what it is.
    pub(crate) has_begun: bool,
    pub(crate) mail: VecDeque<Mail>,
    /// The number of the last message of each sender.
    pub(crate) heard: BTreeMap<[u8; 16], u64>,
    /// Messages that it has taken and can answer: from whom, and their numbers.
    pub(crate) unanswered: VecDeque<([u8; 16], u64)>,
    /// The ends of its last lines, for stdout and stderr.
    pub(crate) output: [Vec<u8>; 2],
}

pub(crate) struct Agency {
    pub(crate) startup: Startup,
    pub(crate) files: Archive<'static>,
    programs: Programs,
    pages: Pages,
    free: Vec<Place>,
    pub(crate) agents: Vec<Agent>,
    /// What is coming from other machines.
    pub(crate) arrivals: Vec<Arrival>,
    /// The number of the last one. It begins with the clock, so that nobody goes on with one of an earlier life of this server.
    pub(crate) last_arrival: u64,
    /// What did not fit into the last answer to a person.
    pub(crate) rest: Vec<u8>,
}

impl Agency {
    pub(crate) fn new(
        startup: Startup,
        supplies: Supplies,
        pages: Pages,
        files: Archive<'static>,
    ) -> Result<Self, Error> {
        let bytes = files.find("agent").ok_or(Error::InvalidArgument)?;
        let executable = Executable::parse(bytes, startup.architecture());
        let executable = executable.map_err(|_| Error::InvalidArgument)?;
        let mut programs = match Programs::new(startup, supplies, pages, executable) {
            Ok(programs) => programs,
            Err(error) => {
                say!("agents: the agents' program: {error}");
                return Err(Error::InvalidArgument);
            }
        };
        let free = programs.places(AGENTS_MAX)?;
        say!("agents: there is memory for {} agents at once", free.len());
        Ok(Self {
            startup,
            files,
            programs,
            pages,
            free,
            agents: Vec::new(),
            arrivals: Vec::new(),
            last_arrival: now(),
            rest: Vec::new(),
        })
    }

    pub(crate) fn find(&mut self, name: &str) -> Option<usize> {
        self.agents.iter().position(|agent| agent.name == name)
    }

    /// The agent whose program has this number.
    pub(crate) fn running(&mut self, number: u64) -> Option<usize> {
        self.agents
            .iter()
            .position(|agent| agent.place().is_some_and(|place| place.number() == number))
    }

    /// Has an agent run that is a module or a checkpoint.
    pub(crate) fn run(&mut self, index: usize) -> Result<(), String> {
        let place = self.free.last().copied();
        let place = place.ok_or("there is no memory for another agent; stop or freeze one")?;
        let agent = &mut self.agents[index];
        let goes_on = matches!(agent.image, Image::Stored(_));
        let manifest = &agent.manifest;
        agent.specification = manifest.specification(&agent.name, &agent.address, goes_on);
        let started = self
            .programs
            .start(&place, manifest.may_send(), manifest.cpu_percent);
        if let Err(error) = started {
            self.take_apart(&place);
            return Err(format!("its program did not start: {error}"));
        }
        self.free.pop();
        self.agents[index].state = State::Runs(place);
        self.agents[index].has_begun = false;
        Ok(())
    }

    /// The same for one that is stored, with these capabilities in place of others.
    pub(crate) fn run_with(&mut self, index: usize, allow: Vec<String>) -> Result<(), String> {
        let before = core::mem::replace(&mut self.agents[index].manifest.allow, allow);
        let result = self.run(index);
        if result.is_err() {
            self.agents[index].manifest.allow = before;
        }
        result
    }

    fn take_apart(&self, place: &Place) {
        if let Err(error) = self.programs.end(place) {
            say!("agents: memory of an agent was not taken back: {error:?}");
        }
    }

    /// Its program is no more; what it is now.
    pub(crate) fn leave(&mut self, index: usize, state: State) {
        let agent = &mut self.agents[index];
        let place = agent.place();
        if matches!(state, State::Ended(_)) {
            // It cannot go on from anything, and nobody asks for its messages.
            agent.image = Image::Module(&[]);
            agent.mail = VecDeque::new();
            agent.unanswered = VecDeque::new();
        }
        agent.state = state;
        if let Some(place) = place {
            self.take_apart(&place);
            self.free.push(place);
        }
    }

    /// An agent has ended by itself.
    pub(crate) fn ended(&mut self, index: usize, ending: Ending, code: i64, why: &str) {
        let agent = &mut self.agents[index];
        for stream in 0..agent.output.len() {
            agent.end_line(stream);
        }
        let has_begun = agent.has_begun;
        let text = match ending {
            Ending::Exited => format!("ended with code {code}"),
            Ending::Trapped => format!("trapped: {why}"),
            Ending::Refused if has_begun => format!("failed: {why}"),
            Ending::Refused => format!("could not begin: {why}"),
            Ending::Frozen => return self.frozen(index),
        };
        self.end(index, text, ending == Ending::Refused);
    }

    /// An agent's program is no more. One that has failed before it began is stored still, if it was.
    fn end(&mut self, index: usize, text: String, has_failed: bool) {
        let agent = &self.agents[index];
        say!("{}: {text}", agent.name);
        let is_stored = matches!(agent.image, Image::Stored(_)) && !agent.has_begun;
        let state = match has_failed && is_stored {
            true => State::Stored,
            false => State::Ended(text),
        };
        self.leave(index, state);
    }

    fn frozen(&mut self, index: usize) {
        let agent = &mut self.agents[index];
        let state = match &mut agent.state {
            State::Freezes(_, freezing) if freezing.is_whole() => {
                let bytes = core::mem::take(&mut freezing.bytes);
                say!("{}: stored, {} bytes", agent.name, bytes.len());
                agent.image = Image::Stored(bytes);
                State::Stored
            }
            _ => State::Ended("said that it was frozen, and was not".to_string()),
        };
        self.leave(index, state);
    }

    /// Whether so many more bytes may be held.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let images = self.agents.iter().map(|agent| {
            let freezing = match &agent.state {
                State::Freezes(_, freezing) => freezing.bytes.capacity(),
                _ => 0,
            };
            let stored = match &agent.image {
                Image::Stored(bytes) => bytes.capacity(),
                Image::Module(_) => 0,
            };
            freezing + stored
        });
        let coming = self.arrivals.iter().map(Arrival::held);
        let held: usize = images.chain(coming).sum();
        held.saturating_add(bytes) <= HELD_BYTES_MAX
    }

    /// Whether one more agent may be known.
    pub(crate) fn has_place(&self) -> bool {
        self.agents.len() + self.arrivals.len() < ALL_AGENTS_MAX
    }

    /// Whether one more agent may come: some places are for those that begin here.
    pub(crate) fn has_place_for_arrival(&self) -> bool {
        self.agents.len() + self.arrivals.len() < ALL_AGENTS_MAX / 2
    }

    /// Looks for agents whose programs were stopped by a fault.
    pub(crate) fn look_for_stopped(&mut self) {
        for index in 0..self.agents.len() {
            let Some(place) = self.agents[index].place() else {
                continue;
            };
            let stop = match self.pages.state(place.number()) {
                Ok((_, Some(stop))) => stop,
                _ => continue,
            };
            self.end(index, describe(stop), true);
        }
    }

    /// Pages of memory that a running agent's program has.
    pub(crate) fn pages_of(&self, place: &Place) -> u64 {
        self.pages
            .state(place.number())
            .map_or(0, |(pages, _)| pages)
    }

    /// A message for an agent; the number that it got.
    pub(crate) fn post(
        &mut self,
        index: usize,
        from: [u8; 16],
        answers: Option<u64>,
        payload: &[u8],
    ) -> Option<u64> {
        let agent = &mut self.agents[index];
        if agent.mail.len() >= MAIL_MAX {
            return None;
        }
        let number = agent.heard.entry(from).or_insert(0);
        *number += 1;
        let sequence = *number;
        agent.mail.push_back(Mail {
            from,
            sequence,
            answers,
            payload: payload.to_vec(),
        });
        if let Some(place) = agent.place() {
            // It cannot fail: the notification is this program's.
            let _ = place.tell_of_message();
        }
        Some(sequence)
    }

    /// An address for a new agent, made of the clock and how many agents there are.
    pub(crate) fn new_address(&self) -> [u8; 16] {
        let mut address = [0; 16];
        let mut state = now() ^ (self.agents.len() as u64) << 56;
        for half in address.chunks_exact_mut(8) {
            // SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            half.copy_from_slice(&(mixed ^ mixed >> 31).to_le_bytes());
        }
        address
    }
}

fn describe(stop: Stop) -> String {
    let Stop {
        kind,
        counter,
        address,
    } = stop;
    if kind == NO_MEMORY {
        return "failed: its memory is used up".to_string();
    }
    match FaultKind::from_number(kind) {
        Some(kind) => format!("failed: {kind:?} fault at {counter:#x}, address {address:#x}"),
        None => "failed".to_string(),
    }
}

impl Freezing {
    fn is_whole(&self) -> bool {
        self.all > 0 && self.bytes.len() == self.all
    }
}

impl Agent {
    /// Its program has begun: what was stored is not what it is any more.
    pub(crate) fn begin(&mut self) {
        if !self.has_begun {
            self.has_begun = true;
            if let Image::Stored(old) = &mut self.image {
                *old = Vec::new();
            }
        }
    }

    /// It has taken a message, which it can answer once.
    pub(crate) fn may_answer(&mut self, from: [u8; 16], number: u64) {
        if self.unanswered.len() >= UNANSWERED_MAX {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back((from, number));
    }

    /// Where its program is, if it has one.
    pub(crate) fn place(&self) -> Option<Place> {
        match self.state {
            State::Runs(place) | State::Freezes(place, _) => Some(place),
            State::Stored | State::Ended(_) => None,
        }
    }

    /// Shows output as lines with the agent's name.
    pub(crate) fn write(&mut self, stream: usize, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(stream),
                byte => self.output[stream].push(*byte),
            }
            if self.output[stream].len() >= LINE_BYTES_MAX {
                self.end_line(stream);
            }
        }
    }

    fn end_line(&mut self, stream: usize) {
        let line = core::mem::take(&mut self.output[stream]);
        if !line.is_empty() {
            say!("{}: {}", self.name, Printable(&line));
        }
    }
}

const LINE_BYTES_MAX: usize = 160;

/// Text of an agent: what a terminal would take for a command is shown as a dot.
pub(crate) struct Printable<'a>(pub(crate) &'a [u8]);

impl core::fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write;
        for chunk in self.0.utf8_chunks() {
            for one in chunk.valid().chars() {
                f.write_char(if one.is_control() { '.' } else { one })?;
            }
            if !chunk.invalid().is_empty() {
                f.write_char('.')?;
            }
        }
        Ok(())
    }
}
