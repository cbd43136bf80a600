//! What a loader that starts the microkernel from UEFI has to work out, without firmware and without unsafe code, so that it is
//! tested on hosts: where a kernel's file wants to be in memory ([`image`]), and how the kernel is told what memory there is
//! ([`start_information`]). The program itself asks the firmware, and leaves it.

#![no_std]
#![forbid(unsafe_code)]

pub mod image;
pub mod start_information;

#[cfg(test)]
extern crate std;
