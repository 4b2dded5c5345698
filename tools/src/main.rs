//! The host command of Bulkhead: set-up, packing, QEMU, tests, figures.

mod bench;
mod boot_only;
mod build;
mod cli;
mod console;
mod guest;
mod image;
mod lint;
mod manifest;
mod pack;
mod qemu;
mod scenario;
mod setup;
mod smoke;
mod station;
mod suite;
mod symbols;
mod workspace;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let result = match boot_only::link::arguments() {
        Some(arguments) => boot_only::link::run(&arguments),
        None => cli::run(&cli::Cli::parse()),
    };
    match result {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
