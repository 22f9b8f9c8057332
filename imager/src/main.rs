//! The `imager` program: a command on any Linux, `/init` in the Deploy-OS.
//!
//! Owns: choosing between the two, and the memory allocator. Does not own: anything
//! else (see the library).

use std::process::ExitCode;

/// The allocator of the static C library is several times slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if imager::target::is_init() {
        imager::target::main_init()
    }
    imager::cli::main()
}
