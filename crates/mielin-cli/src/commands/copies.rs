//! `mielin agent checkpoint`, `restore` and `clone`.

use std::path::Path;

use bytes::Bytes;
use hyper::Method;
use serde::Serialize;

use crate::api::{CHECKPOINT_BYTES_MAX, Duplicate, Spawned, path_segment};
use crate::args::{CheckpointArgs, CloneArgs, RestoreArgs};
use crate::client::{Client, agent_path, next_data};
use crate::duration::format_bytes;
use crate::failure::Failure;
use crate::input::{read_file, read_stdin};
use crate::out_file::{OutFile, STANDARD, is_stdout};
use crate::output::Output;

/// What `mielin -o json agent checkpoint` prints.
#[derive(Serialize)]
struct Written {
    file: String,
    bytes: u64,
}

pub(super) async fn checkpoint(
    client: &Client,
    arguments: &CheckpointArgs,
    output: Output,
) -> Result<(), Failure> {
    let to_stdout = is_stdout(&arguments.out_file, "checkpoint")?;
    // Before the agent is stopped for nothing.
    let mut file = match to_stdout {
        true => OutFile::stdout()?,
        false => OutFile::at(&arguments.out_file)?,
    };
    let below = agent_path(&arguments.agent, "/checkpoint");
    let response = client.open(Method::POST, &below, Bytes::new()).await?;
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(data) = next_data(&mut body).await? {
        file.write(&data)?;
        bytes += data.len() as u64;
    }
    let written = Written {
        file: file.name().to_owned(),
        bytes,
    };
    file.finish()?;
    output.result_beside(to_stdout, &written, |written| {
        format!("{}: {}", written.file, format_bytes(written.bytes))
    })
}

pub(super) async fn restore(
    client: &Client,
    arguments: &RestoreArgs,
    output: Output,
) -> Result<(), Failure> {
    let checkpoint = match arguments.file == Path::new(STANDARD) {
        true => read_stdin("checkpoint", CHECKPOINT_BYTES_MAX)?,
        false => read_file(&arguments.file, "checkpoint", CHECKPOINT_BYTES_MAX)?,
    };
    let path = match &arguments.name {
        Some(name) => format!("/v1/checkpoints?name={}", path_segment(name)),
        None => "/v1/checkpoints".to_owned(),
    };
    let restored: Spawned = client.post_bytes(&path, checkpoint.into()).await?;
    output.result(&restored, |restored| restored.agent.clone())
}

pub(super) async fn duplicate(
    client: &Client,
    arguments: CloneArgs,
    output: Output,
) -> Result<(), Failure> {
    let request = Duplicate {
        node: arguments.node,
        name: arguments.name,
    };
    let below = agent_path(&arguments.agent, "/clone");
    let made: Spawned = client.post(&below, &request).await?;
    output.result(&made, |made| made.agent.clone())
}
