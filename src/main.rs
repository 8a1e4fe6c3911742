//! The command `pullback`; everything it does is in [`pullback::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    pullback::cli::run()
}
