//! How many instructions are executed from the kernel's entry to the first one of a program.
//!
//! QEMU knows: while it records an execution (`-icount shift=0,rr=record`) it says exactly how many there were when it is stopped.
//! It is stopped at the two addresses through the protocol of GDB's remote targets (GDB manual, appendix E), to which nothing of
//! the machine has to be changed. What firmware has executed before is not in the difference.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Arch;
use super::machine::{self, Variant};
use crate::command::display;
use crate::emulator::Running;

/// How long QEMU may take to begin, and to come to an address.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs an image up to the first instruction of its first program, and gives the number.
///
/// # Errors
/// QEMU is missing and cannot be installed here, or does not come to one of the addresses.
pub(super) fn instructions(
    arch: Arch,
    variant: &Variant,
    image: &Path,
    [entry, program]: [u64; 2],
) -> Result<u64> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let recording = image.with_extension("recording");
    let mut command = machine::command(arch, variant, image)?;
    let port = listener.local_addr()?.port();
    let record = format!("shift=0,rr=record,rrfile={}", recording.display());
    let debugger = format!("socket,id=debugger,host=127.0.0.1,port={port}");
    command
        .args(["-icount", &record])
        .args(["-chardev", &debugger])
        .args(["-gdb", "chardev:debugger", "-S"]);
    let line = display(&command);
    let running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    let (sender, connection) = mpsc::channel();
    thread::spawn(move || sender.send(listener.accept()));
    let connection = connection.recv_timeout(PATIENCE);
    let (stream, _) = connection.with_context(|| format!("`{line}` does not begin"))??;
    let mut target = Target::new(stream)?;
    let mut count = || -> Result<[u64; 2]> {
        Ok([
            target.instructions_at(entry)?,
            target.instructions_at(program)?,
        ])
    };
    let [before, after] = count().with_context(|| format!("asking `{line}`"))?;
    drop(running);
    std::fs::remove_file(&recording).with_context(|| recording.display().to_string())?;
    after.checked_sub(before).context("a clock that goes back")
}

/// A machine that is told what to do.
struct Target {
    input: BufReader<TcpStream>,
    output: TcpStream,
}

impl Target {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            input: BufReader::new(stream.try_clone()?),
            output: stream,
        })
    }

    /// Goes on to an address, and says how many instructions there were until then.
    fn instructions_at(&mut self, address: u64) -> Result<u64> {
        self.order(&format!("Z1,{address:x},1"), "OK")?;
        self.order("c", "T")?;
        self.order(&format!("z1,{address:x},1"), "OK")?;
        let answer = self.monitor("info replay")?;
        let number = answer.rsplit_once("instruction count = ");
        let number = number.and_then(|(_, number)| number.trim().parse().ok());
        number.with_context(|| format!("QEMU counts no instructions: {answer}"))
    }

    /// Sends a packet; the answer must begin so.
    fn order(&mut self, packet: &str, answer_begin: &str) -> Result<()> {
        self.send(packet)?;
        let answer = self.receive()?;
        ensure!(
            answer.starts_with(answer_begin),
            "`{packet}` was answered by `{answer}`"
        );
        Ok(())
    }

    /// What QEMU's monitor answers.
    fn monitor(&mut self, command: &str) -> Result<String> {
        self.send(&format!("qRcmd,{}", hexadecimal(command)))?;
        let mut text = String::new();
        loop {
            let answer = self.receive()?;
            match answer.strip_prefix('O') {
                Some("K") => return Ok(text),
                Some(output) => text.push_str(&from_hexadecimal(output)?),
                None => bail!("`{command}` was answered by `{answer}`"),
            }
        }
    }

    fn send(&mut self, packet: &str) -> Result<()> {
        let sum = packet.bytes().fold(0, u8::wrapping_add);
        write!(self.output, "${packet}#{sum:02x}")?;
        Ok(())
    }

    fn receive(&mut self) -> Result<String> {
        let mut byte = || -> Result<u8> {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            Ok(byte[0])
        };
        // Before it are acknowledgements; behind it is a sum, which a connection within a machine does not need.
        while byte()? != b'$' {}
        let mut packet = Vec::new();
        loop {
            match byte()? {
                b'#' => break,
                other => packet.push(other),
            }
        }
        for _ in 0..2 {
            byte()?;
        }
        self.output.write_all(b"+")?;
        Ok(String::from_utf8_lossy(&packet).into_owned())
    }
}

fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hexadecimal(digits: &str) -> Result<String> {
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    let bytes = bytes.with_context(|| format!("{digits} is not hexadecimal"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked, with its sum, and what a machine answers.
    const DIALOGUE: [(&str, &str); 5] = [
        ("$Z1,1000,1#d5", "+$OK#9a"),
        ("+$c#63", "+$T05thread:01;#07"),
        ("+$z1,1000,1#f5", "+$OK#9a"),
        (
            "+$qRcmd,696e666f207265706c6179#42",
            "+$O696e737472756374696f6e20636f756e74203d20#00$O37310d0a#00$OK#9a",
        ),
        ("+++", ""),
    ];

    #[test]
    fn a_machine_is_asked_as_gdb_does() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("its number");
        let machine = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("who asks");
            for (asked, answer) in DIALOGUE {
                let mut heard = vec![0; asked.len()];
                stream.read_exact(&mut heard).expect("a packet");
                assert_eq!(String::from_utf8_lossy(&heard), asked);
                stream.write_all(answer.as_bytes()).expect("an answer");
            }
        });
        let stream = TcpStream::connect(address).expect("a connection");
        let mut target = Target::new(stream).expect("a target");
        let count = target.instructions_at(0x1000);
        machine.join().expect("it has heard what it should");
        assert_eq!(count.expect("a number"), 71);
    }

    #[test]
    fn what_is_not_hexadecimal_is_refused() {
        for digits in ["6", "6g", "666"] {
            assert!(from_hexadecimal(digits).is_err(), "{digits}");
        }
    }
}
