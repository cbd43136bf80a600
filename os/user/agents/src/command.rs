//! What people say, and what they are answered.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use mielin_user::agents::user;
use mielin_user::bytes::BYTES_MAX;
use mielin_user::objects::Message;
use mielin_user::system_call::Received;

use crate::agency::{Agency, Agent, Freezing, Image, PERSON, State};
use crate::manifest::Manifest;

const NAME_BYTES_MAX: usize = 40;
/// Of a message: its sender's address goes with it.
const PAYLOAD_BYTES_MAX: usize = BYTES_MAX - 16;

impl Agency {
    /// Does what a person says.
    pub(crate) fn obey(&mut self, received: &Received) -> Option<Message> {
        let mut space = [0; BYTES_MAX];
        let bytes = self.startup.buffer().bytes(received, &mut space);
        let label = match received.info.label() {
            user::COMMAND => {
                let line = core::str::from_utf8(bytes).unwrap_or("");
                let (label, text) = match self.command(line) {
                    Ok(text) => (0, text),
                    Err(text) => (1, text + "\n"),
                };
                self.rest = text.into_bytes();
                label
            }
            user::MORE => 0,
            _ => return Some(Message::new(1, [])),
        };
        let len = self.rest.len().min(BYTES_MAX);
        let part: Vec<u8> = self.rest.drain(..len).collect();
        Some(self.startup.buffer().message(label, [0; 3], &part))
    }

    fn command(&mut self, line: &str) -> Result<String, String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.split_whitespace();
        match word {
            "list" => Ok(self.list()),
            "start" => {
                let module = words.next().ok_or("start what? `list` shows modules")?;
                let is_end = |word: &&str| *word != "--";
                let name = rest.split_whitespace().take_while(is_end).nth(1);
                let arguments = rest.split_whitespace().skip_while(is_end).skip(1);
                let arguments: Vec<String> = arguments.map(str::to_string).collect();
                self.start(module, name, arguments)
            }
            "stop" => {
                let index = self.named(words.next())?;
                self.leave(index, State::Stored);
                let agent = self.agents.remove(index);
                Ok(format!("{} is no more\n", agent.name))
            }
            "send" => {
                let index = self.named(words.next())?;
                let text = rest.trim_start();
                let text = text.split_once(' ').map_or("", |(_, text)| text);
                if matches!(self.agents[index].state, State::Ended(_)) {
                    return Err(format!("{} has ended", self.agents[index].name));
                }
                if text.len() > PAYLOAD_BYTES_MAX {
                    return Err(format!("a message has at most {PAYLOAD_BYTES_MAX} bytes"));
                }
                match self.post(index, PERSON, None, text.as_bytes()) {
                    Some(_) => Ok(String::new()),
                    None => Err("too many messages wait for it".to_string()),
                }
            }
            "freeze" => {
                let index = self.named(words.next())?;
                let place = match &self.agents[index].state {
                    State::Runs(place) => *place,
                    State::Freezes(..) => return Ok(String::new()),
                    State::Stored => return Err("it is stored already".to_string()),
                    State::Ended(_) => return Err("it has ended".to_string()),
                };
                place.freeze().map_err(|error| format!("{error:?}"))?;
                self.agents[index].state = State::Freezes(place, Freezing::default());
                Ok(String::new())
            }
            "resume" => {
                let index = self.named(words.next())?;
                if !matches!(self.agents[index].state, State::Stored) {
                    return Err("it is not stored; `list` shows what it does".to_string());
                }
                let allow: Vec<String> = words.map(str::to_string).collect();
                let is_right = |one: &String| one == "message" || one.starts_with("message:");
                if let Some(other) = allow.iter().find(|one| !is_right(one)) {
                    return Err(format!(
                        "{other:?} is not granted here: say `message`, or `message:ADDRESS`, or nothing"
                    ));
                }
                self.run_with(index, allow)?;
                Ok(format!("{} goes on\n", self.agents[index].name))
            }
            _ => Err(format!("there is no command {word:?}; `help` lists them")),
        }
    }

    /// The agent that a person means.
    fn named(&mut self, name: Option<&str>) -> Result<usize, String> {
        let name = name.ok_or("which agent? `list` shows them")?;
        self.find(name)
            .ok_or_else(|| format!("there is no agent {name:?}; `list` shows them"))
    }

    fn list(&self) -> String {
        let mut text = String::new();
        for agent in &self.agents {
            let state = match &agent.state {
                State::Runs(place) => {
                    let kib = self.pages_of(place) * 4;
                    format!("runs, {kib} KiB")
                }
                State::Freezes(..) => "freezes".to_string(),
                State::Stored => format!("stored, {} bytes", agent.image.bytes().len()),
                State::Ended(how) => how.clone(),
            };
            // Writing into memory does not fail.
            let _ = writeln!(text, "{:<16} {state}", agent.name);
        }
        if self.agents.is_empty() {
            text.push_str("no agents\n");
        }
        let modules = self
            .files
            .files()
            .filter_map(|(name, _)| name.strip_suffix(".wasm"));
        let modules: Vec<&str> = modules.collect();
        let _ = writeln!(text, "modules: {}", modules.join(", "));
        text
    }

    fn start(
        &mut self,
        module: &str,
        name: Option<&str>,
        arguments: Vec<String>,
    ) -> Result<String, String> {
        let file = self.files.find(&format!("{module}.wasm"));
        let bytes =
            file.ok_or_else(|| format!("there is no module {module:?}; `list` shows them"))?;
        let manifest = self
            .files
            .find(&format!("{module}.manifest"))
            .unwrap_or(&[]);
        let manifest = core::str::from_utf8(manifest).unwrap_or("?");
        let mut manifest = Manifest::parse(manifest)
            .map_err(|line| format!("the manifest of {module} has a line {line:?}"))?;
        if !arguments.is_empty() {
            manifest.arguments = arguments;
        }
        let input = match &manifest.input {
            None => &[][..],
            Some(name) => self
                .files
                .find(name)
                .ok_or_else(|| format!("the input {name:?} of {module} is not there"))?,
        };
        let name = name.unwrap_or(module);
        self.check_name(name)?;
        if !self.has_place() {
            return Err("there are too many agents; `stop` some".to_string());
        }
        let name = self.take_name(name)?;
        let address = self.new_address();
        self.agents.push(Agent::new(
            name,
            address,
            manifest,
            Image::Module(bytes),
            input,
        ));
        let index = self.agents.len() - 1;
        if let Err(why) = self.run(index) {
            self.agents.pop();
            return Err(why);
        }
        Ok(format!("{} runs\n", self.agents[index].name))
    }

    /// Whether an agent can have a name: nobody has it, or one that has ended.
    pub(crate) fn check_name(&mut self, wanted: &str) -> Result<Option<usize>, String> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if wanted.is_empty() || wanted.len() > NAME_BYTES_MAX || !wanted.bytes().all(is_name) {
            return Err(
                "a name has letters, digits, - _ and ., and at most 40 of them".to_string(),
            );
        }
        match self.find(wanted) {
            Some(index) if !matches!(self.agents[index].state, State::Ended(_)) => Err(format!(
                "there is an agent {wanted:?} already; choose another name"
            )),
            before => Ok(before),
        }
    }

    /// The wanted name; an agent that had it, and has ended, is forgotten.
    pub(crate) fn take_name(&mut self, wanted: &str) -> Result<String, String> {
        if let Some(before) = self.check_name(wanted)? {
            self.agents.remove(before);
        }
        Ok(wanted.to_string())
    }
}

impl Agent {
    pub(crate) fn new(
        name: String,
        address: [u8; 16],
        manifest: Manifest,
        image: Image,
        input: &'static [u8],
    ) -> Self {
        Self {
            name,
            address,
            manifest,
            image,
            specification: String::new(),
            input,
            state: State::Stored,
            mail: VecDeque::new(),
            heard: BTreeMap::new(),
            unanswered: VecDeque::new(),
            has_begun: false,
            output: [Vec::new(), Vec::new()],
        }
    }
}
