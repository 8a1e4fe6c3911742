//! Decoders from safetensors files, as PyTorch's `save_file(module.state_dict(), …)` writes them.

mod rbf;
mod tensors;

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Array1;
use safetensors::{SafeTensors, tensor::TensorView};

use self::rbf::RbfTensors;
use self::tensors::{matrix, vector};
use super::batch_norm::BatchNorm;
use super::{Activation, Decoder, Head, Layer};
use crate::error::{Error, Result};

/// What a file may leave open. What stands here goes before the file's own `__metadata__`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileOptions {
    /// Activation behind every layer but the last (metadata key `activation`).
    pub activation: Option<Activation>,
    /// Activation behind the last layer (metadata key `output`); identity where nothing says otherwise.
    pub output: Option<Activation>,
    /// Output activations of single heads, by name (metadata keys such as `std.output`).
    pub head_outputs: Vec<(String, Activation)>,
    /// Key prefixes of the heads, in order (metadata key `heads`, separated by commas); where there is just one prefix in
    /// the file it need not be named.
    pub heads: Vec<String>,
    /// The heads are members of an ensemble (metadata key `members`, their number): see [`Decoder::ensemble`].
    pub ensemble: bool,
}

impl Decoder {
    /// Reads a decoder from a safetensors file; activations come from its `__metadata__`.
    ///
    /// Keys are those of an `nn.Sequential`: `0.weight` `[out, in]`, `0.bias` `[out]`, `2.weight` …, with or without a prefix
    /// (`decoder.0.weight`), in float32, float64, float16 or bfloat16. BatchNorm layers are folded in evaluation mode, with ε = 1e-5.
    /// A head may be a network of radial basis functions for the precision 1/σ²: `precision.centers` `[K, d]`, `precision.bandwidths`
    /// `[K]`, `precision.weight` `[D, K]` and `precision.floor` `[1]` or `[D]`, see [`Head::rbf`]; it follows the other heads by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be read, [`Error::File`] where it is not such a decoder: the message names the
    /// key, what was expected and what was found.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &FileOptions::default())
    }

    /// The same, with what the file does not say.
    ///
    /// # Errors
    ///
    /// As [`Decoder::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &FileOptions) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Self::from_safetensors(&bytes, options).map_err(|error| match error {
            Error::Decoder(problem) => Error::file(path, problem),
            other => other,
        })
    }

    /// Reads a decoder from the bytes of a safetensors file.
    ///
    /// # Errors
    ///
    /// [`Error::Decoder`], as [`Decoder::open`].
    pub fn from_safetensors(bytes: &[u8], options: &FileOptions) -> Result<Self> {
        let not_a_file = |e| Error::Decoder(format!("not a safetensors file, or truncated ({e})"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_a_file)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(not_a_file)?;
        let metadata: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();

        let chains = group(&tensors)?;
        let (names, is_ensemble) = choose_heads(&chains, &metadata, options)?;
        let read = |name: &String| match &chains[name] {
            Part::Layers(chain) => read_head(name, chain, &metadata, options),
            Part::Rbf(tensors) => tensors.read(name),
        };
        let heads = names.iter().map(read).collect::<Result<Vec<_>>>()?;
        if is_ensemble { Self::ensemble(heads) } else { Self::new(heads) }
    }
}

/// What stands behind one prefix.
enum Part<'a> {
    Layers(Chain<'a>),
    Rbf(Box<RbfTensors<'a>>),
}

/// The tensors of one module of an `nn.Sequential`, by parameter name: `weight`, `bias`, `running_mean` ….
type Module<'a> = BTreeMap<&'a str, (String, TensorView<'a>)>;
/// The modules of one `nn.Sequential`, by position.
type Chain<'a> = BTreeMap<usize, Module<'a>>;

const PARAMETERS: [&str; 5] = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"];

/// Sorts keys `prefix.index.parameter` into chains; keys of any other form make a chain that says so when it is read.
fn group<'a>(tensors: &'a SafeTensors<'a>) -> Result<BTreeMap<String, Part<'a>>> {
    let mut chains: BTreeMap<String, Part<'a>> = BTreeMap::new();
    for key in tensors.names() {
        let view = tensors.tensor(key).map_err(|e| Error::Decoder(format!("key `{key}`: {e}")))?;
        let (rest, parameter) = key.rsplit_once('.').unwrap_or(("", key));
        if tensors.tensor(&format!("{rest}.centers")).is_ok() {
            let part = chains.entry(rest.into()).or_insert_with(|| Part::Rbf(Box::default()));
            if let Part::Rbf(tensors) = part {
                tensors.insert(parameter, key, view)?;
            }
            continue;
        }
        let (prefix, index) = rest.rsplit_once('.').unwrap_or(("", rest));
        let (Ok(index), true) = (index.parse::<usize>(), PARAMETERS.contains(&parameter)) else {
            let shape = view.shape();
            return Err(Error::Decoder(format!(
                "unknown key `{key}` of shape {shape:?}: expected the keys of an nn.Sequential of Linear and BatchNorm1d layers, such as `0.weight` or `decoder.0.weight`"
            )));
        };
        let part = chains.entry(prefix.into()).or_insert_with(|| Part::Layers(Chain::new()));
        let Part::Layers(chain) = part else {
            return Err(Error::Decoder(format!("unknown key `{key}` beside `{prefix}.centers`")));
        };
        chain.entry(index).or_default().insert(parameter, (key.to_owned(), view));
    }
    Ok(chains)
}

/// The heads in order, and whether they are members of an ensemble.
fn choose_heads(
    chains: &BTreeMap<String, Part<'_>>,
    metadata: &BTreeMap<String, String>,
    options: &FileOptions,
) -> Result<(Vec<String>, bool)> {
    let members = metadata.get("members").map(|number| {
        let refuse = || Error::Decoder(format!("metadata `members`: expected a number from 1 on, found `{number}`"));
        number.trim().parse::<usize>().ok().filter(|&n| n > 0).ok_or_else(refuse)
    });
    let members = members.transpose()?;
    let mut names = options.heads.clone();
    if names.is_empty()
        && let Some(list) = metadata.get("heads")
    {
        names = list.split(',').map(|s| s.trim().to_owned()).collect();
    }
    let found = || chains.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
    if chains.is_empty() && names.is_empty() {
        return Err(Error::Decoder("the file holds no tensors: expected `0.weight`, `0.bias` and so on".into()));
    }
    let is_ensemble = options.ensemble || members.is_some() && names.len() != 1;
    if names.is_empty() {
        let is_rbf = |name: &&String| matches!(chains[*name], Part::Rbf(_));
        let (last, mut first): (Vec<_>, Vec<_>) = chains.keys().partition(is_rbf);
        // Members are numbered: 10 comes behind 9.
        let number = |name: &str| name.rsplit('.').next().and_then(|n| n.parse::<usize>().ok());
        first.sort_by_key(|name| number(name));
        if let Some(members) = members
            && first.len() != members
        {
            let chains = first.len();
            return Err(Error::Decoder(format!(
                "metadata `members`: expected {members} chains of layers, found {chains} ({})",
                found()
            )));
        }
        if first.len() > 1 && !is_ensemble || last.len() > 1 {
            return Err(Error::Decoder(format!(
                "the file holds {} chains of layers ({}): say which of them are the decoder's heads (--heads, or `heads` in the file's metadata), or that they are members of an ensemble (--ensemble, or their number as `members`)",
                chains.len(),
                found()
            )));
        }
        names = first.into_iter().chain(last).cloned().collect();
    }
    match names.iter().find(|name| !chains.contains_key(*name)) {
        Some(missing) => Err(Error::Decoder(format!("no head `{missing}`: the file holds {}", found()))),
        None => Ok((names, is_ensemble)),
    }
}

fn read_head(
    name: &str,
    chain: &Chain<'_>,
    metadata: &BTreeMap<String, String>,
    options: &FileOptions,
) -> Result<Head> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut linear_at: Vec<usize> = Vec::new();
    let mut pending: Option<BatchNorm> = None;
    for (&index, module) in chain {
        if module.contains_key("running_mean") {
            let norm = read_batch_norm(name, index, module)?;
            let (Some(last), Some(&at)) = (layers.last_mut(), linear_at.last()) else {
                return Err(Error::Decoder(format!(
                    "module `{}`: expected a linear layer before the first BatchNorm",
                    module_name(name, index)
                )));
            };
            if norm.scale.len() != last.outputs() {
                let (width, found) = (last.outputs(), norm.scale.len());
                return Err(Error::Decoder(format!(
                    "module `{}`: expected a BatchNorm of {width} features, found {found}",
                    module_name(name, index)
                )));
            }
            if index == at + 1 {
                norm.fold_behind(last);
            } else if chain.get(&(index + 1)).is_some_and(|next| !next.contains_key("running_mean")) {
                pending = Some(norm);
            } else {
                return Err(Error::Decoder(format!(
                    "module `{}`: expected a BatchNorm right behind a linear layer or right before one (else the file does not tell on which side of the activation it stands)",
                    module_name(name, index)
                )));
            }
        } else {
            let mut layer = read_linear(name, index, module, layers.last())?;
            if let Some(norm) = pending.take() {
                norm.fold_before(&mut layer);
            }
            layers.push(layer);
            linear_at.push(index);
        }
    }

    let (hidden, output) = activations(name, layers.len(), metadata, options)?;
    let last = layers.len().saturating_sub(1);
    for (k, layer) in layers.iter_mut().enumerate() {
        layer.activation = if k == last { output } else { hidden };
    }
    Head::new(if name.is_empty() { "decoder" } else { name }, layers)
}

fn activations(
    name: &str,
    layers: usize,
    metadata: &BTreeMap<String, String>,
    options: &FileOptions,
) -> Result<(Activation, Activation)> {
    let from_metadata = |key: &str| -> Result<Option<Activation>> {
        let own = format!("{name}.{key}");
        let entry = metadata.get_key_value(&own).or_else(|| metadata.get_key_value(key));
        entry
            .map(|(key, value)| value.parse().map_err(|e| Error::Decoder(format!("metadata `{key}`: {e}"))))
            .transpose()
    };
    let hidden = match options.activation {
        Some(given) => Some(given),
        None => from_metadata("activation")?,
    };
    let own_output = options.head_outputs.iter().find(|(head, _)| head == name).map(|&(_, activation)| activation);
    let output = match own_output.or(options.output) {
        Some(given) => Some(given),
        None => from_metadata("output")?,
    };
    let hidden = match hidden {
        Some(hidden) => hidden,
        None if layers <= 1 => Activation::Identity,
        None => {
            let known = Activation::ALL.map(Activation::name).join(", ");
            return Err(Error::Decoder(format!(
                "no activation given: a state_dict does not hold it; give --activation NAME, or write it into the file's metadata (one of {known})"
            )));
        }
    };
    Ok((hidden, output.unwrap_or(Activation::Identity)))
}

fn module_name(prefix: &str, index: usize) -> String {
    if prefix.is_empty() { index.to_string() } else { format!("{prefix}.{index}") }
}

fn read_linear(prefix: &str, index: usize, module: &Module<'_>, before: Option<&Layer>) -> Result<Layer> {
    let name = module_name(prefix, index);
    let Some((key, view)) = module.get("weight") else {
        return Err(Error::Decoder(format!("missing key `{name}.weight`: expected shape [out, in]")));
    };
    let inputs = before.map_or_else(|| "in".to_owned(), |l| l.outputs().to_string());
    let &[rows, columns] = view.shape() else {
        return Err(Error::Decoder(format!(
            "key `{key}`: expected shape [out, {inputs}] of a linear layer, found {:?}",
            view.shape()
        )));
    };
    if let Some(before) = before
        && before.outputs() != columns
    {
        return Err(Error::Decoder(format!(
            "key `{key}`: expected shape [{rows}, {inputs}], as the layer before has {inputs} outputs, found {:?}",
            view.shape()
        )));
    }
    let Some((bias_key, bias)) = module.get("bias") else {
        return Err(Error::Decoder(format!("missing key `{name}.bias`: expected shape [{rows}]")));
    };
    let weight = matrix(key, view, "[out, in]")?;
    let bias = vector(bias_key, bias, rows)?;
    Ok(Layer { weight, bias, activation: Activation::Identity })
}

fn read_batch_norm(prefix: &str, index: usize, module: &Module<'_>) -> Result<BatchNorm> {
    let name = module_name(prefix, index);
    let get = |parameter: &str| -> Result<Option<(&String, &TensorView<'_>)>> {
        Ok(module.get(parameter).map(|(k, v)| (k, v)))
    };
    let missing = |parameter: &str| Error::Decoder(format!("missing key `{name}.{parameter}` of a BatchNorm"));
    let (key, mean) = get("running_mean")?.ok_or_else(|| missing("running_mean"))?;
    let width = mean.shape().iter().product();
    let mean = vector(key, mean, width)?;
    let (key, variance) = get("running_var")?.ok_or_else(|| missing("running_var"))?;
    let variance = vector(key, variance, width)?;
    if let Some(v) = variance.iter().find(|v| **v < 0.0) {
        return Err(Error::Decoder(format!("key `{key}`: expected variances of at least 0, found {v}")));
    }
    let affine = |parameter: &str, default: f64| match get(parameter)? {
        Some((key, view)) => vector(key, view, width),
        None => Ok(Array1::from_elem(width, default)),
    };
    Ok(BatchNorm::new(&affine("weight", 1.0)?, &affine("bias", 0.0)?, &mean, &variance))
}
