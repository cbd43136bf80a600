//! `mielin agent checkpoint`, `restore` and `clone`.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use hyper::Method;
use serde::Serialize;

use crate::api::{CHECKPOINT_BYTES_MAX, Duplicate, Spawned, path_segment};
use crate::args::{CheckpointArgs, CloneArgs, RestoreArgs};
use crate::client::{Client, agent_path, next_data};
use crate::duration::format_bytes;
use crate::failure::Failure;
use crate::input::read_file;
use crate::output::Output;

/// What `mielin -o json agent checkpoint` prints.
#[derive(Serialize)]
struct Written {
    file: String,
    bytes: u64,
}

/// Writes the file beside its place and puts it there when it is whole and on the disk.
pub(super) async fn checkpoint(
    client: &Client,
    arguments: &CheckpointArgs,
    output: Output,
) -> Result<(), Failure> {
    let path = &arguments.out_file;
    let cannot =
        |error: &std::io::Error| Failure::io(format!("cannot write {}", path.display()), error);
    if path.file_name().is_none() || path.is_dir() {
        return Err(Failure::usage(format!("{} is a directory", path.display()))
            .hint("name a file with -o"));
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // Before the agent is stopped for nothing. Nobody else can read such a file.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| cannot(&error))?;
    let below = agent_path(&arguments.agent, "/checkpoint");
    let response = client.open(Method::POST, &below, Bytes::new()).await?;
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(data) = next_data(&mut body).await? {
        file.write_all(&data).map_err(|error| cannot(&error))?;
        bytes += data.len() as u64;
    }
    file.as_file().sync_all().map_err(|error| cannot(&error))?;
    file.persist(path).map_err(|error| cannot(&error.error))?;
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| cannot(&error))?;
    let written = Written {
        file: path.display().to_string(),
        bytes,
    };
    output.result(&written, |written| {
        format!("{}: {}", written.file, format_bytes(written.bytes))
    })
}

pub(super) async fn restore(
    client: &Client,
    arguments: &RestoreArgs,
    output: Output,
) -> Result<(), Failure> {
    let checkpoint = read_file(&arguments.file, "checkpoint", CHECKPOINT_BYTES_MAX)?;
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
