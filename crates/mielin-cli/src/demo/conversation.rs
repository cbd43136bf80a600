//! The numbered messages that are sent to `counter` all the time, and the check of each answer.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::{Delivered, Message};
use crate::client::{Client, agent_path};
use crate::failure::Failure;

/// A move may take so long before it is rolled back, and then the answer still has to come.
const ANSWER_LIMIT_MS: u64 = 45_000;
/// Messages that must be answered before the next move begins.
const BETWEEN_MOVES: u64 = 10;
/// How long `heard_more` waits for them.
const PATIENCE: Duration = Duration::from_secs(60);

/// The message after which the agent ends.
const LAST: &str = "stop";

/// How the conversation went.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Messages {
    pub(super) sent: u64,
    pub(super) answered: u64,
    /// The agent's count is behind what was sent.
    pub(super) lost: u64,
    /// The agent's count is ahead of what was sent.
    pub(super) doubled: u64,
    /// The answer is to another message.
    pub(super) reordered: u64,
}

/// A task that sends a message, waits for its answer, and sends the next.
pub(super) struct Conversation {
    heard: watch::Receiver<u64>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<Messages, Failure>>,
}

impl Conversation {
    pub(super) fn begin(client: Client, agent: String) -> Conversation {
        let (heard_now, heard) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut messages = Messages::default();
            loop {
                let last = *stopped.borrow();
                messages.sent += 1;
                let text = if last {
                    LAST.to_owned()
                } else {
                    format!("message {}", messages.sent)
                };
                let reply = ask(&client, &agent, &text).await?;
                messages.take(&text, &reply);
                if last {
                    return Ok(messages);
                }
                heard_now.send_replace(messages.answered);
            }
        });
        Conversation { heard, stop, task }
    }

    /// Waits until some more messages were answered.
    pub(super) async fn heard_more(&mut self) -> Result<(), Failure> {
        let mut heard = self.heard.clone();
        let enough = *heard.borrow() + BETWEEN_MOVES;
        let waited =
            tokio::time::timeout(PATIENCE, heard.wait_for(|answered| *answered >= enough)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            // The task has ended before its time, and says why.
            Ok(Err(_)) => self.outcome().await.and(Err(Failure::internal(
                "the conversation with the counter broke off",
            ))),
            Err(_) => Err(Failure::internal(format!(
                "the counter was silent for {PATIENCE:?}"
            ))),
        }
    }

    /// Sends the last message, after the answer that is awaited now.
    pub(super) async fn end(mut self) -> Result<Messages, Failure> {
        let _ = self.stop.send(true);
        self.outcome().await
    }

    async fn outcome(&mut self) -> Result<Messages, Failure> {
        (&mut self.task)
            .await
            .unwrap_or_else(|_| Err(Failure::internal("the conversation panicked")))
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Messages {
    /// Compares an answer, `COUNT: MESSAGE`, with what was sent last.
    fn take(&mut self, text: &str, reply: &str) {
        self.answered += 1;
        let (count, echo) = reply.split_once(": ").unwrap_or((reply, ""));
        let count: u64 = count.parse().unwrap_or(0);
        self.lost = self.lost.max(self.sent.saturating_sub(count));
        self.doubled = self.doubled.max(count.saturating_sub(self.sent));
        self.reordered += u64::from(echo != text);
    }
}

async fn ask(client: &Client, agent: &str, text: &str) -> Result<String, Failure> {
    let message = Message {
        payload: text.as_bytes().to_vec(),
        wait_ms: Some(ANSWER_LIMIT_MS),
    };
    match client
        .post(&agent_path(agent, "/messages"), &message)
        .await?
    {
        Delivered::Reply(reply) => Ok(String::from_utf8_lossy(&reply).into_owned()),
        Delivered::Sequence(_) => Err(Failure::internal("the daemon did not wait for the answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_damage_is_seen() {
        let after = |reply: &str| {
            let mut messages = Messages {
                sent: 3,
                ..Messages::default()
            };
            messages.take("message 3", reply);
            (messages.lost, messages.doubled, messages.reordered)
        };
        assert_eq!(after("3: message 3"), (0, 0, 0));
        assert_eq!(after("2: message 3"), (1, 0, 0));
        assert_eq!(after("4: message 3"), (0, 1, 0));
        assert_eq!(after("3: message 2"), (0, 0, 1));
        assert_eq!(after("nonsense"), (3, 0, 1));
    }
}
