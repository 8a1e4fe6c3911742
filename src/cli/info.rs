//! `pullback info`: this machine, and what a decoder file holds.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{FileArgs, InfoArgs};
use super::machine::Machine;
use super::session::print_result;
use super::solve::thousands;
use crate::decoder::{Activation, Decoder, Geometry};
use crate::error::{Error, Result};

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    let described = args.decoder.as_deref().map(|path| open(path, &args.file)).transpose()?;
    let machine = Machine::look();
    let mut record = json!({ "program": "pullback", "version": env!("CARGO_PKG_VERSION") });
    machine.record(&mut record);
    let mut text = format!("pullback {}\n{}", env!("CARGO_PKG_VERSION"), machine.for_people());
    if let (Some(path), Some((decoder, known))) = (&args.decoder, &described) {
        record["decoder"] = describe(path, decoder, *known);
        text += &describe_for_people(path, decoder, *known);
    }
    if args.json {
        text = serde_json::to_string_pretty(&record).unwrap_or_default() + "\n";
    }
    print_result(&text)
}

/// The decoder, and whether its activations are known: a file that does not tell them can be described all the same.
fn open(path: &Path, file: &FileArgs) -> Result<(Decoder, bool)> {
    match file.open(path) {
        Ok(decoder) => Ok((decoder, true)),
        Err(Error::File { problem, .. }) if file.activation.is_none() && problem.contains("no activation given") => {
            let guess = FileArgs { activation: Some(Activation::Identity.name().into()), ..file.clone() };
            Ok((guess.open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

/// Name of layer `k`'s activation, `None` where the file does not tell it.
fn activation(decoder_layers: usize, k: usize, activation: Activation, known: bool) -> Option<&'static str> {
    (known || k + 1 == decoder_layers).then(|| activation.name())
}

/// How chords between outputs are measured, in words.
fn geometry(decoder: &Decoder) -> String {
    match decoder.geometry() {
        Geometry::Euclidean => "Euclidean".into(),
        Geometry::Ensemble(members) => format!("expected, of an ensemble of {members} members"),
        Geometry::Gaussian => "Fisher–Rao, of gaussian outputs".into(),
    }
}

fn describe(path: &Path, decoder: &Decoder, known: bool) -> Value {
    let compressed = decoder.compressed();
    let heads = decoder.heads().iter().map(|head| {
        let layers = head.layers();
        let table = layers.iter().enumerate().map(|(k, layer)| {
            json!({
                "inputs": layer.inputs(),
                "outputs": layer.outputs(),
                "activation": activation(layers.len(), k, layer.activation, known),
            })
        });
        json!({ "name": head.name(), "layers": table.collect::<Vec<_>>() })
    });
    json!({
        "path": path.display().to_string(),
        "latent_dim": decoder.latent_dim(),
        "data_dim": decoder.data_dim(),
        "parameters": decoder.parameters(),
        "activations_known": known,
        "heads": heads.collect::<Vec<_>>(),
        "geometry": geometry(decoder),
        "compressed_data_dim": compressed.data_dim(),
        "compressed_parameters": compressed.parameters(),
    })
}

fn describe_for_people(path: &Path, decoder: &Decoder, known: bool) -> String {
    let mut text = format!(
        "\n{}\nlatent dimension {}, data dimension {}, {} parameters\n",
        path.display(),
        decoder.latent_dim(),
        decoder.data_dim(),
        thousands(decoder.parameters()),
    );
    for head in decoder.heads() {
        text += &format!("head `{}`\n  layer  inputs  outputs  activation\n", head.name());
        for (k, layer) in head.layers().iter().enumerate() {
            let name = activation(head.layers().len(), k, layer.activation, known).unwrap_or("?");
            text += &format!("  {k:>5}  {:>6}  {:>7}  {name}\n", layer.inputs(), layer.outputs());
        }
    }
    if decoder.geometry() != Geometry::Euclidean {
        text += &format!("metric: {}\n", geometry(decoder));
    }
    if !known {
        text += "activation: not in the file, give --activation\n";
    }
    let compressed = decoder.compressed();
    text += &match (decoder.data_dim(), compressed.data_dim()) {
        (from, to) if to < from => format!(
            "compression: the geometry needs {to} outputs in place of {from} ({} parameters in place of {})\n",
            thousands(compressed.parameters()),
            thousands(decoder.parameters()),
        ),
        _ => "compression: none (no linear output layer that is wider than its inputs)\n".into(),
    };
    text
}
