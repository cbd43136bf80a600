//! Sample agent: answers every message with its running number and what it
//! said, `7: text`, until one says `stop`. The count is all it remembers, so a
//! number that is lost, doubled or out of order shows. It needs no capability:
//! receiving and replying need none.

use std::process::ExitCode;

use mielin_agent::{Error, Kind, Level};

fn main() -> ExitCode {
    match run() {
        Ok(count) => {
            println!("answered {count}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("counter: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers until the message `stop`, which is counted and answered too.
fn run() -> Result<u64, Error> {
    let mut count = 0u64;
    loop {
        let Some(message) = mielin_agent::receive(None)? else {
            continue;
        };
        // Nobody owes us an answer, and an answer is not to be answered.
        if message.kind() != Kind::Message {
            continue;
        }
        count += 1;
        match message.reply(&answer(count, message.payload())) {
            // A sender that is gone by now is no reason to stop.
            Err(Error::Unknown) => {
                mielin_agent::log(Level::Warn, &format!("{} is gone", message.from()))?;
            }
            other => other?,
        }
        if message.payload() == b"stop" {
            return Ok(count);
        }
    }
}

fn answer(count: u64, payload: &[u8]) -> Vec<u8> {
    let mut answer = format!("{count}: ").into_bytes();
    answer.extend_from_slice(payload);
    answer
}

#[cfg(test)]
mod tests {
    use super::answer;

    #[test]
    fn answers_carry_number_and_payload() {
        assert_eq!(answer(12, b"a\xff"), b"12: a\xff");
        assert_eq!(answer(1, b""), b"1: ");
    }
}
