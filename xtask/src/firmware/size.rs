//! Flash and RAM of the images.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

use super::boards::{self, Board};
use crate::workspace::Workspace;

/// The board for which they are measured.
const BOARD: Board = Board::Mps2An386;

/// The images, and how much flash and static RAM each may take.
const IMAGES: [(&str, Limit); 3] = [
    (
        "runtime",
        Limit {
            flash: 16 * 1024,
            ram: 2 * 1024,
        },
    ),
    (
        "link",
        Limit {
            flash: 56 * 1024,
            ram: 2 * 1024,
        },
    ),
    (
        "node",
        Limit {
            flash: 660 * 1024,
            ram: 2 * 1024,
        },
    ),
];

struct Limit {
    flash: u32,
    ram: u32,
}

/// What `size` is told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// An image's size, in bytes.
#[derive(Serialize)]
struct Size {
    image: &'static str,
    /// Vectors, code, constants, and what statics begin with.
    flash_bytes: u32,
    /// Statics; stack and heap have the rest.
    ram_bytes: u32,
}

/// Measures, and shows the result.
///
/// # Errors
/// An image does not build.
pub(super) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let sizes = sizes(workspace)?;
    match options.output {
        Output::Json => println!("{}", serde_json::to_string(&sizes)?),
        Output::Text => {
            println!(
                "{:<10} {:>8} {:>8}  bytes on {}",
                "image",
                "flash",
                "RAM",
                BOARD.name()
            );
            for size in &sizes {
                println!(
                    "{:<10} {:>8} {:>8}",
                    size.image, size.flash_bytes, size.ram_bytes
                );
            }
        }
    }
    Ok(())
}

/// Measures, and compares with the limits.
///
/// # Errors
/// An image does not build, or is larger than it may be.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    for (size, (image, limit)) in sizes(workspace)?.iter().zip(&IMAGES) {
        let (flash, ram) = (size.flash_bytes, size.ram_bytes);
        eprintln!("firmware: {image}: {flash} bytes of flash, {ram} of RAM");
        ensure!(
            flash <= limit.flash && ram <= limit.ram,
            "the image {image} has {flash} bytes of flash and {ram} of RAM, and may have {} and {}",
            limit.flash,
            limit.ram
        );
    }
    Ok(())
}

fn sizes(workspace: &Workspace) -> Result<Vec<Size>> {
    let size = |image| {
        let path = boards::build(workspace, BOARD, image)?;
        let (flash_bytes, ram_bytes) = measure(&path)?;
        Ok(Size {
            image,
            flash_bytes,
            ram_bytes,
        })
    };
    IMAGES.iter().map(|(image, _)| size(*image)).collect()
}

/// Flash and RAM of an executable, by its program headers (ELF-32, little-endian; System V ABI, "Program Header").
fn measure(path: &Path) -> Result<(u32, u32)> {
    /// Where the memory of all boards here begins that is not flash.
    const RAM: u32 = 0x2000_0000;
    const LOADED: u32 = 1;
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let word = |at: usize| -> Result<u32> {
        let word = bytes.get(at..at + 4).context("it ends too early")?;
        Ok(u32::from_le_bytes(word.try_into()?))
    };
    ensure!(
        bytes.starts_with(b"\x7fELF\x01\x01"),
        "{} is not an executable for a board",
        path.display()
    );
    let (table, entries) = (word(28)? as usize, word(42)?);
    let (entry_bytes, count) = (entries & 0xffff, entries >> 16);
    let (mut flash, mut ram) = (0, 0);
    for entry in 0..count {
        let at = table + (entry * entry_bytes) as usize;
        if word(at)? != LOADED {
            continue;
        }
        let (address, in_file, in_memory) = (word(at + 8)?, word(at + 16)?, word(at + 20)?);
        flash += in_file;
        if address >= RAM {
            ram += in_memory;
        }
    }
    Ok((flash, ram))
}
