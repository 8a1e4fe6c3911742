//! What every subcommand shares: the decoder file, printing and interruption.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::args::{FileArgs, PrintArgs};
use super::npy::read_weights;
use crate::decoder::{Activation, Decoder, FileOptions, Head, Likelihood};
use crate::error::{Error, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C end the run in good order instead of on the spot.
pub(super) fn catch_interrupt() {
    // Fails only where a handler is there already; then that one is right.
    let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
}

pub(super) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Whether to go on, in the form in which the solver asks.
pub(super) fn go_on() -> ControlFlow<()> {
    if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// An error where Ctrl-C was pressed.
pub(super) fn check_interrupt(finished: usize, total: usize) -> Result<()> {
    if interrupted() { Err(Error::Cancelled { finished, total }) } else { Ok(()) }
}

impl FileArgs {
    pub fn options(&self) -> Result<FileOptions> {
        let parse = |option: &str, name: &str| {
            name.parse::<Activation>().map_err(|e| Error::Decoder(format!("--{option}: {e}")))
        };
        let mut options = FileOptions { heads: self.heads.clone(), ensemble: self.ensemble, ..FileOptions::default() };
        options.activation = self.activation.as_deref().map(|name| parse("activation", name)).transpose()?;
        for output in &self.output {
            match output.split_once('=') {
                Some((head, name)) => options.head_outputs.push((head.to_owned(), parse("output", name)?)),
                None => options.output = Some(parse("output", output)?),
            }
        }
        Ok(options)
    }

    /// For the record, so that the decoder can be opened again.
    pub fn record(&self) -> Value {
        json!({
            "activation": self.activation,
            "output": self.output,
            "heads": self.heads,
            "ensemble": self.ensemble,
            "fisher_rao": self.fisher_rao.map(Likelihood::name),
            "weights": self.weights.as_deref().map(absolute),
            "epsilon": self.epsilon,
        })
    }

    /// Reads what [`FileArgs::record`] wrote.
    pub fn from_record(record: &Value) -> Self {
        let list = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .map(|a| a.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default()
        };
        Self {
            activation: record["activation"].as_str().map(str::to_owned),
            output: list(&record["output"]),
            heads: list(&record["heads"]),
            ensemble: record["ensemble"].as_bool().unwrap_or(false),
            fisher_rao: record["fisher_rao"].as_str().and_then(|name| name.parse().ok()),
            weights: record["weights"].as_str().map(Into::into),
            epsilon: record["epsilon"].as_f64(),
        }
    }

    /// Opens the decoder, with the options' names checked against the file's heads.
    pub fn open(&self, path: &Path) -> Result<Decoder> {
        let options = self.options()?;
        if path.is_dir() {
            return Err(Error::file(path, "expected a safetensors file, found a folder"));
        }
        let decoder = Decoder::open_with(path, &options)?;
        for (head, output) in &options.head_outputs {
            let taken = |h: &Head| h.name() == head && h.layers().last().is_some_and(|l| l.activation == *output);
            if !decoder.heads().iter().any(taken) {
                let known: Vec<_> = decoder.heads().iter().map(|h| format!("`{}`", h.name())).collect();
                return Err(Error::Decoder(format!(
                    "--output: no head `{head}`: the decoder has {}",
                    known.join(", ")
                )));
            }
        }
        self.measure(decoder)
    }

    /// The decoder with the metric that was asked for.
    fn measure(&self, mut decoder: Decoder) -> Result<Decoder> {
        if let Some(likelihood) = self.fisher_rao {
            decoder = decoder.fisher_rao(likelihood)?;
        }
        if let Some(path) = &self.weights {
            let weights = read_weights(path)?;
            decoder = decoder.weighted(&weights).map_err(|error| Error::file(path, error.to_string()))?;
        }
        decoder.regularised(self.epsilon.unwrap_or(0.0))
    }
}

/// Prints a result on stdout; a reader that went away early (`| head`) is no error.
pub(super) fn print_result(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Io { path: "standard output".into(), source: e })
        }
        _ => Ok(()),
    }
}

impl PrintArgs {
    /// Prints a run's summary, or its record where JSON was asked for.
    pub fn result(self, summary: &str, record: &Value) -> Result<()> {
        if self.quiet {
            return Ok(());
        }
        if self.json {
            let text = serde_json::to_string_pretty(record).unwrap_or_default();
            return print_result(&format!("{text}\n"));
        }
        print_result(summary)
    }

    /// A line on stderr that is no error.
    pub fn note(self, line: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// The same, of something to look at.
    pub fn warn(self, line: &str) {
        self.note(&format!("warning: {line}"));
    }

    /// A progress bar on a terminal, nothing elsewhere.
    pub fn progress(self, total: usize, unit: &str) -> ProgressBar {
        let visible = !self.quiet && std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let template = format!("{{bar:40}} {{human_pos}}/{{human_len}} {unit}  {{per_sec}}  {{eta}} left");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::with_draw_target(Some(total as u64), target).with_style(style)
    }
}

/// A path as it stands in a record: absolute, so that it is found from elsewhere.
pub(super) fn absolute(path: &Path) -> String {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}
