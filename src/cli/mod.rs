//! The command `pullback`: see `pullback --help`.

mod args;
mod bench;
mod demo;
mod device;
mod geodesics;
mod info;
mod machine;
mod metric;
mod npy;
mod output;
mod plot;
mod precision;
mod random;
mod session;
mod solve;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::error::Error;
use args::{Cli, Command};

/// Exit code of a run that failed through no fault of the input.
const FAILED: u8 = 1;
/// Exit code where the input or the arguments are wrong.
const WRONG_INPUT: u8 = 2;
/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// Runs the command with the process's arguments; results go to stdout, everything else to stderr.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&error),
    };
    session::catch_interrupt();
    let outcome = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Geodesics(args) => geodesics::run(&args),
        Command::Metric(args) => metric::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Precision(args) => precision::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Plot(args) => plot::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", one_line(&error.to_string()));
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Cancelled { .. } => INTERRUPTED,
        error if error.is_input() => WRONG_INPUT,
        _ => FAILED,
    }
}

/// Names of files and keys may hold line ends; a message is one line all the same.
fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Help and version as clap prints them; errors as one line.
fn refuse_arguments(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(WRONG_INPUT)
        }
        _ => {
            let text = error.to_string();
            let text = text.split("\n\nUsage:").next().unwrap_or(&text);
            let text = text.split("\n\nFor more information").next().unwrap_or(text);
            let _ = writeln!(std::io::stderr(), "{} (see --help)", one_line(text));
            ExitCode::from(WRONG_INPUT)
        }
    }
}
