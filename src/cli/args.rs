//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

use super::bench::SweepChoice;
use super::device::DeviceName;
use super::metric::{Extent, GridSize, Quantity};
use crate::decoder::Likelihood;
use crate::precision::Precision;

const OVERVIEW: &str = "\
A trained decoder (the second half of an autoencoder) maps points of a small latent space to data. The straight line
between two latents is usually not the shortest way in the data: the geodesic is. This command computes geodesics,
their lengths and the metric behind them, for thousands of pairs at once.";

const FIRST_STEPS: &str = "\
First steps:
  pullback demo                 geodesics between handwritten digits, with pictures; needs no file
  pullback info decoder.safetensors
  pullback geodesics --decoder decoder.safetensors --starts a.npy --ends b.npy --out my-run
  pullback plot my-run

Exit codes: 0 done, 1 the run failed, 2 the input or the arguments are wrong, 130 interrupted.";

/// Geodesics and metrics in the latent space of a trained decoder.
#[derive(Debug, Parser)]
#[command(name = "pullback", version, long_about = OVERVIEW, after_help = FIRST_STEPS, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Solve geodesics between handwritten digits and draw them; needs no file.
    Demo(DemoArgs),
    /// Solve geodesics between pairs of latent points.
    Geodesics(GeodesicsArgs),
    /// Compute the metric G = JᵀJ and what follows from it (volume, spectrum, curvature, …) at latent points or on a grid.
    Metric(MetricArgs),
    /// Show this machine's devices, and what a decoder file holds.
    Info(InfoArgs),
    /// Measure how far a GPU's results are from float64 in every precision.
    Precision(PrecisionArgs),
    /// Measure what this machine reaches, and how near that is to its limits.
    Bench(BenchArgs),
    /// Draw pictures of a finished run of `geodesics`, `demo` or `metric`.
    Plot(PlotArgs),
}

/// What a decoder file may leave open.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct FileArgs {
    /// Activation behind every layer but the last, where the file does not say: tanh, relu, silu, …
    #[arg(long, value_name = "NAME", help_heading = "Decoder file")]
    pub activation: Option<String>,
    /// Activation behind the last layer (identity where nothing says otherwise), or of one head: --output std=softplus
    #[arg(long, value_name = "[HEAD=]NAME", help_heading = "Decoder file")]
    pub output: Vec<String>,
    /// Key prefixes of the decoder's heads, in order: --heads mean,std
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = "Decoder file")]
    pub heads: Vec<String>,
    /// The heads are independent members of an ensemble: energies are expected ones
    #[arg(long, help_heading = "Decoder file")]
    pub ensemble: bool,
    /// Fisher–Rao metric of outputs that are parameters of a law: bernoulli (sigmoid outputs), categorical (softmax) or gaussian
    /// (two heads, means and standard deviations)
    #[arg(long, value_name = "LAW", help_heading = "Geometry")]
    pub fisher_rao: Option<Likelihood>,
    /// Weights of the outputs, at least 0: .npy, [outputs]
    #[arg(long, value_name = "FILE", help_heading = "Geometry")]
    pub weights: Option<PathBuf>,
    /// Adds ε times the identity to the metric, for decoders that do not use all of their latents
    #[arg(long, value_name = "ε", allow_negative_numbers = true, help_heading = "Geometry")]
    pub epsilon: Option<f64>,
}

/// Where and with what the work is done.
#[derive(Clone, Debug, Args)]
pub(super) struct DeviceArgs {
    /// cpu, cuda (an NVIDIA GPU), cuda:N (one of several, from 0 on), auto (a GPU where there is one, otherwise the processor),
    /// or emulator (a GPU's kernels on the processor, very slowly)
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::Auto, help_heading = "Machine")]
    pub device: DeviceName,
    /// Threads on the CPU [default: one per core]
    #[arg(long, value_name = "NUMBER", value_parser = positive, help_heading = "Machine")]
    pub threads: Option<usize>,
}

/// The same, with a precision of choice.
#[derive(Clone, Debug, Args)]
pub(super) struct MachineArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
    /// How a GPU computes products: float32 (without tensor cores), tf32x3 (on them, about as accurate), tf32 or bf16 (for a first
    /// look), or mixed (geodesics start in tf32 and end in tf32x3); the processor has float32 alone [default: tf32x3 on a GPU]
    #[arg(long, value_name = "PRECISION", help_heading = "Machine")]
    pub precision: Option<Precision>,
}

/// Where results go. (The demo has a folder and a rule of its own.)
#[derive(Clone, Debug, Args)]
pub(super) struct OutArgs {
    /// Folder for the results: arrays as .npy, and run.json
    #[arg(long, value_name = "DIR", default_value = "pullback-out", help_heading = "Output")]
    pub out: PathBuf,
    /// Replace a finished run in that folder
    #[arg(long, help_heading = "Output")]
    pub overwrite: bool,
}

/// What is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct PrintArgs {
    /// Print the result as one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Print nothing but errors
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Folder for arrays and pictures
    #[arg(long, value_name = "DIR", default_value = "pullback-demo", help_heading = "Output")]
    pub out: PathBuf,
    /// Replace a finished run of another command in that folder (a former demo is replaced anyway)
    #[arg(long, help_heading = "Output")]
    pub overwrite: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
    #[command(flatten)]
    pub print: PrintArgs,
}

/// How geodesics are solved.
#[derive(Clone, Debug, Args)]
pub(super) struct SolverArgs {
    /// Segments of every curve, at least 2; lengths are right to O(1/segments²)
    #[arg(long, value_name = "NUMBER", default_value_t = 32, help_heading = "Solver")]
    pub segments: usize,
    /// Converged where no step can gain more than this share of the energy [default: 1e-6]
    #[arg(long, value_name = "SHARE", help_heading = "Solver")]
    pub tolerance: Option<f64>,
    /// Iterations per curve at most
    #[arg(long, value_name = "NUMBER", default_value_t = 200, help_heading = "Solver")]
    pub max_iterations: u32,
    /// Solve on the given segments alone, without a coarser grid first: slower; another local minimum may be found
    #[arg(long, help_heading = "Solver")]
    pub one_grid: bool,
    /// Search with the kinks of relu and leaky_relu as they are, not rounded first: curves end higher
    #[arg(long, help_heading = "Solver")]
    pub keep_kinks: bool,
    /// Curves held in memory at once; changes no result [default: as many as fit in 16 MiB, on a GPU in 256 MiB]
    #[arg(long, value_name = "CURVES", value_parser = positive, help_heading = "Machine")]
    pub batch: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct GeodesicsArgs {
    /// Decoder weights: a safetensors file with the state_dict of an nn.Sequential
    #[arg(long, value_name = "FILE")]
    pub decoder: PathBuf,
    /// Latents where the curves start: .npy, [curves, latent dimension], a float type
    #[arg(long, value_name = "FILE")]
    pub starts: PathBuf,
    /// Latents where they end, of the same shape: row k is joined to row k of the starts
    #[arg(long, value_name = "FILE")]
    pub ends: PathBuf,
    #[command(flatten)]
    pub output: OutArgs,
    #[command(flatten)]
    pub solver: SolverArgs,
    #[command(flatten)]
    pub file: FileArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    #[command(flatten)]
    pub print: PrintArgs,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("places").required(true))]
pub(super) struct MetricArgs {
    /// Decoder weights: a safetensors file with the state_dict of an nn.Sequential
    #[arg(long, value_name = "FILE")]
    pub decoder: PathBuf,
    /// Latents: .npy, [points, latent dimension], a float type
    #[arg(long, value_name = "FILE", group = "places")]
    pub points: Option<PathBuf>,
    /// In place of points a grid over a latent plane, for maps: points along both axes, as 200 or 200x150
    #[arg(long, value_name = "SIZE", group = "places", allow_hyphen_values = true)]
    pub grid: Option<GridSize>,
    /// The grid's borders [default: -3,3,-3,3, or a little more than --around takes]
    #[arg(long, value_name = "X0,X1,Y0,Y1", requires = "grid", conflicts_with = "points", allow_hyphen_values = true)]
    pub extent: Option<Extent>,
    /// Latents to lay the grid around, and to draw over the maps: .npy, [rows, 2]
    #[arg(long, value_name = "FILE", requires = "grid", conflicts_with = "points")]
    pub around: Option<PathBuf>,
    /// What to compute, in any order: metric, volume, logdet, spectrum, condition, rank, dimension, singular, curvature, truncated
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "metric,volume")]
    pub compute: Vec<Quantity>,
    /// Eigenvalues below this share of the largest do not count in rank and truncated [default: 8 d times the rounding of products]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub threshold: Option<f64>,
    #[command(flatten)]
    pub output: OutArgs,
    #[command(flatten)]
    pub file: FileArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    #[command(flatten)]
    pub print: PrintArgs,
}

#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// A decoder file to describe
    #[arg(value_name = "DECODER")]
    pub decoder: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    #[command(flatten)]
    pub file: FileArgs,
}

#[derive(Debug, Args)]
pub(super) struct PrecisionArgs {
    /// Decoder weights: a safetensors file with the state_dict of an nn.Sequential [default: the demo's]
    #[arg(long, value_name = "FILE")]
    pub decoder: Option<PathBuf>,
    /// Pairs of latents to solve geodesics between
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = positive)]
    pub pairs: usize,
    #[command(flatten)]
    pub file: FileArgs,
    #[command(flatten)]
    pub machine: DeviceArgs,
    #[command(flatten)]
    pub print: PrintArgs,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Decoder weights to measure with: a safetensors file with the state_dict of an nn.Sequential; may be given several times [default:
    /// two built-in decoders of digits, and random ones of common sizes]
    #[arg(long, value_name = "FILE")]
    pub decoder: Vec<PathBuf>,
    /// What to vary, one after the other: d, width, depth, outputs (metrics of random decoders), segments, curves (geodesics of the
    /// decoders that are not random), or none
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "d,width,depth,outputs,segments,curves")]
    pub sweep: Vec<SweepChoice>,
    /// Measurements of everything, of which the median counts; fewer where one takes more than two seconds
    #[arg(long, value_name = "NUMBER", default_value_t = 7, value_parser = positive)]
    pub repeats: usize,
    /// Numbers of curves that would take longer are left out of the sweep, by the rate of the last one
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    pub limit: f64,
    /// Tiny sizes, to see that everything runs: the figures mean little
    #[arg(long)]
    pub quick: bool,
    /// Write all figures, the machine and the options as JSON to this file, anew after every measurement; the table is printed all the same
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Draw the roofline and the sweeps: .png
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub plot: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
    #[command(flatten)]
    pub file: FileArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// How a GPU computes products, one or several: float32, tf32x3, tf32, bf16, mixed (see `pullback help geodesics`); the processor has
    /// float32 alone [default: tf32x3 on a GPU]
    #[arg(long, value_name = "PRECISIONS", value_delimiter = ',', help_heading = "Machine")]
    pub precision: Vec<Precision>,
}

#[derive(Debug, Args)]
pub(super) struct PlotArgs {
    /// Folder of the run; the pictures are written into it
    #[arg(value_name = "DIR")]
    pub run: PathBuf,
    /// The run's decoder, where it is no longer at the place that run.json names
    #[arg(long, value_name = "FILE")]
    pub decoder: Option<PathBuf>,
    /// Curves to draw at most
    #[arg(long, value_name = "NUMBER", default_value_t = 60, value_parser = positive)]
    pub curves: usize,
    #[command(flatten)]
    pub print: PrintArgs,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        Ok(_) => Err("expected at least 0".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("expected at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}
