//! Decoder files: what is read, and the message of every refusal.

use std::collections::HashMap;

use crate::fixtures::{NAMES, Random, cast, decoder, model, path, worst_error};
use half::{bf16, f16};
use ndarray::{Array1, Array2, arr1, arr2};
use pullback::{Activation, Decoder, Error, FileOptions, Head, Layer};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// A tensor to be written: key, shape, numbers.
type Entry = (String, Vec<usize>, Vec<f64>);

fn entry(key: &str, shape: &[usize], numbers: &[f64]) -> Entry {
    (key.into(), shape.to_vec(), numbers.to_vec())
}

/// `0.weight`, `0.bias`, `2.weight` … of a head's layers behind a prefix such as `decoder.`.
fn state_dict(prefix: &str, layers: &[Layer]) -> Vec<Entry> {
    let numbers = |k: usize, layer: &Layer| {
        let weight: Vec<f64> = layer.weight.iter().copied().collect();
        [
            (format!("{prefix}{}.weight", 2 * k), vec![layer.outputs(), layer.inputs()], weight),
            (format!("{prefix}{}.bias", 2 * k), vec![layer.outputs()], layer.bias.to_vec()),
        ]
    };
    layers.iter().enumerate().flat_map(|(k, layer)| numbers(k, layer)).collect()
}

fn bytes_of(dtype: Dtype, numbers: &[f64]) -> Vec<u8> {
    let each = |x: &f64| match dtype {
        Dtype::F64 => x.to_le_bytes().to_vec(),
        Dtype::F32 => (*x as f32).to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f64(*x).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f64(*x).to_le_bytes().to_vec(),
        Dtype::I64 => (*x as i64).to_le_bytes().to_vec(),
        other => panic!("{other:?}"),
    };
    numbers.iter().flat_map(each).collect()
}

/// A safetensors file.
fn file(dtype: Dtype, entries: &[Entry], metadata: &[(&str, &str)]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = entries.iter().map(|(_, _, numbers)| bytes_of(dtype, numbers)).collect();
    let tensors = entries
        .iter()
        .zip(&bytes)
        .map(|((key, shape, _), bytes)| (key.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    safetensors::serialize(tensors, Some(metadata)).unwrap()
}

fn read(bytes: &[u8]) -> Result<Decoder, Error> {
    Decoder::from_safetensors(bytes, &FileOptions::default())
}

fn refusal(entries: &[Entry], metadata: &[(&str, &str)]) -> String {
    message(read(&file(Dtype::F32, entries, metadata)))
}

fn message(result: Result<Decoder, Error>) -> String {
    let error = result.expect_err("an error");
    assert!(error.is_input(), "{error:?}");
    error.to_string()
}

/// Three layers of 3 → 5 → 4 → 2 with numbers that bfloat16 holds exactly.
fn plain(hidden: Activation, output: Activation) -> Head {
    let head = Random(1).head("decoder", &[3, 5, 4, 2], hidden, output);
    let round = |x: f64| bf16::from_f64(x).to_f64();
    let layers = head.layers().iter().map(|l| Layer {
        weight: l.weight.mapv(round),
        bias: l.bias.mapv(round),
        activation: l.activation,
    });
    Head::new("decoder", layers.collect()).unwrap()
}

const TANH: (&str, &str) = ("activation", "tanh");

#[test]
fn fixtures_are_what_they_should_be() {
    let shape = |name: &str| {
        let decoder = decoder(name);
        (decoder.latent_dim(), decoder.data_dim(), decoder.heads()[0].layers().len(), decoder.parameters())
    };
    assert_eq!(NAMES.map(shape), [(2, 64, 3, 8_512), (8, 64, 3, 25_920), (6, 1024, 3, 330_752)]);
    let activations = |name: &str| decoder(name).heads()[0].layers().iter().map(|l| l.activation).collect::<Vec<_>>();
    use Activation::{Identity, Sigmoid, Silu, Softplus, Tanh};
    assert_eq!(activations(NAMES[0]), [Tanh, Tanh, Identity]);
    assert_eq!(activations(NAMES[1]), [Softplus, Softplus, Sigmoid]);
    assert_eq!(activations(NAMES[2]), [Silu, Silu, Sigmoid]);
    assert_eq!(decoder(NAMES[0]).heads()[0].name(), "decoder");
}

#[test]
fn every_number_format_is_read_exactly() {
    let head = plain(Activation::Tanh, Activation::Identity);
    let expected = Decoder::new(vec![head.clone()]).unwrap();
    for dtype in [Dtype::F64, Dtype::F32, Dtype::BF16] {
        let found = read(&file(dtype, &state_dict("", head.layers()), &[TANH])).unwrap();
        assert_eq!(found, expected, "{dtype:?}");
    }
    // float16 has more digits than bfloat16, and 0.1 has no end in either.
    let entries = [entry("0.weight", &[1, 2], &[0.1, -3.0]), entry("0.bias", &[1], &[1e-4])];
    let found = read(&file(Dtype::F16, &entries, &[])).unwrap();
    let layer = &found.heads()[0].layers()[0];
    assert_eq!(layer.weight, arr2(&[[f16::from_f64(0.1).to_f64(), -3.0]]));
    assert_eq!(layer.bias, arr1(&[f16::from_f64(1e-4).to_f64()]));
}

#[test]
fn prefixes_do_not_matter() {
    let head = plain(Activation::Tanh, Activation::Identity);
    for (prefix, name) in [("", "decoder"), ("decoder.", "decoder"), ("module.net.", "module.net")] {
        let found = read(&file(Dtype::F32, &state_dict(prefix, head.layers()), &[TANH])).unwrap();
        assert_eq!(found.heads()[0].layers(), head.layers(), "`{prefix}`");
        assert_eq!(found.heads()[0].name(), name);
    }
}

/// Layers are put in order as numbers: `10.weight` comes behind `8.weight`.
#[test]
fn long_chains_are_read_in_order() {
    let head = Random(2).head("decoder", &[2, 3, 4, 5, 6, 7, 8, 9], Activation::Silu, Activation::Sin);
    let bytes = file(Dtype::F64, &state_dict("", head.layers()), &[("activation", "silu"), ("output", "sin")]);
    assert_eq!(read(&bytes).unwrap(), Decoder::new(vec![head]).unwrap());
}

#[test]
fn activations_come_from_the_metadata_or_the_options() {
    let layers = plain(Activation::Tanh, Activation::Identity);
    let entries = state_dict("", layers.layers());
    let read = |metadata: &[(&str, &str)], options: &FileOptions| {
        let decoder = Decoder::from_safetensors(&file(Dtype::F32, &entries, metadata), options).unwrap();
        decoder.heads()[0].layers().iter().map(|l| l.activation).collect::<Vec<_>>()
    };
    use Activation::{Elu, GeluTanh, Identity, Relu, Sigmoid, Silu, Tanh};
    let nothing = FileOptions::default();
    assert_eq!(read(&[TANH], &nothing), [Tanh, Tanh, Identity]);
    assert_eq!(read(&[TANH, ("output", "sigmoid")], &nothing), [Tanh, Tanh, Sigmoid]);
    assert_eq!(read(&[("activation", "GELU-tanh"), ("output", "none")], &nothing), [GeluTanh, GeluTanh, Identity]);
    // What the caller says goes first.
    let options = FileOptions { activation: Some(Elu), output: Some(Relu), ..FileOptions::default() };
    assert_eq!(read(&[TANH, ("output", "sigmoid")], &options), [Elu, Elu, Relu]);
    let options = FileOptions { activation: Some(Silu), ..FileOptions::default() };
    assert_eq!(read(&[("output", "sigmoid")], &options), [Silu, Silu, Sigmoid]);
    // A single layer has no hidden activation.
    let one = file(Dtype::F32, &[entry("0.weight", &[1, 1], &[2.0]), entry("0.bias", &[1], &[0.0])], &[]);
    assert_eq!(Decoder::from_safetensors(&one, &nothing).unwrap().parameters(), 2);
}

#[test]
fn every_activation_has_a_name() {
    for activation in Activation::ALL {
        assert_eq!(activation.name().parse::<Activation>().unwrap(), activation);
        assert_eq!(activation.name().to_uppercase().replace('_', "-").parse::<Activation>().unwrap(), activation);
        assert_eq!(activation.to_string(), activation.name());
    }
    assert_eq!("swish".parse::<Activation>().unwrap(), Activation::Silu);
    assert_eq!("Linear".parse::<Activation>().unwrap(), Activation::Identity);
}

#[test]
fn several_heads() {
    let mut random = Random(3);
    let mean = random.head("mean", &[2, 8, 6], Activation::Tanh, Activation::Identity);
    let std = random.head("std", &[2, 4, 6], Activation::Tanh, Activation::Softplus);
    let entries = [state_dict("mean.", mean.layers()), state_dict("std.", std.layers())].concat();
    let both = Decoder::new(vec![mean.clone(), std.clone()]).unwrap();

    let metadata = [TANH, ("heads", "mean, std"), ("std.output", "softplus")];
    assert_eq!(read(&file(Dtype::F64, &entries, &metadata)).unwrap(), both);

    let options = FileOptions {
        heads: vec!["mean".into(), "std".into()],
        head_outputs: vec![("std".into(), Activation::Softplus)],
        ..FileOptions::default()
    };
    assert_eq!(Decoder::from_safetensors(&file(Dtype::F64, &entries, &[TANH]), &options).unwrap(), both);

    // One of several chains, such as the decoder beside its encoder.
    let options = FileOptions { heads: vec!["mean".into()], ..FileOptions::default() };
    let one = Decoder::from_safetensors(&file(Dtype::F64, &entries, &[TANH]), &options).unwrap();
    assert_eq!(one, Decoder::new(vec![mean]).unwrap());
}

/// BatchNorm of a module `prefix.index` with given features, and the map it is: y = (x − μ)/√(σ² + 10⁻⁵) · γ + β.
fn batch_norm(key: &str, width: usize, random: &mut Random) -> (Vec<Entry>, impl Fn(Array1<f64>) -> Array1<f64>) {
    let mut next = |parameter: &str, shift: f64| {
        let numbers = (0..width).map(|_| shift + random.uniform()).collect::<Array1<f64>>();
        (entry(&format!("{key}.{parameter}"), &[width], numbers.as_slice().unwrap()), numbers)
    };
    let (weight, gamma) = next("weight", 0.5);
    let (bias, beta) = next("bias", -0.5);
    let (mean, mu) = next("running_mean", -0.5);
    let (variance, var) = next("running_var", 0.1);
    let map = move |x: Array1<f64>| (x - &mu) / var.mapv(|v| (v + 1e-5).sqrt()) * &gamma + &beta;
    (vec![weight, bias, mean, variance], map)
}

/// Linear, BatchNorm, tanh, Linear: the normalisation folds into the layer before it.
#[test]
fn batch_norm_before_the_activation() {
    let mut random = Random(4);
    let (first, last) = (random.layer(3, 6, Activation::Tanh), random.layer(6, 4, Activation::Identity));
    let (norm, map) = batch_norm("net.1", 6, &mut random);
    let mut entries = norm;
    entries.extend(renumbered("net.", &[(0, &first), (3, &last)]));
    let found = read(&file(Dtype::F64, &entries, &[TANH])).unwrap();
    let direct =
        |z: Array1<f64>| last.weight.dot(&map(first.weight.dot(&z) + &first.bias).mapv(f64::tanh)) + &last.bias;
    compare(&found, direct);
}

/// Linear, tanh, BatchNorm, Linear: it folds into the layer behind it.
#[test]
fn batch_norm_behind_the_activation() {
    let mut random = Random(5);
    let (first, last) = (random.layer(3, 6, Activation::Tanh), random.layer(6, 4, Activation::Identity));
    let (norm, map) = batch_norm("2", 6, &mut random);
    let mut entries = norm;
    entries.extend(renumbered("", &[(0, &first), (3, &last)]));
    let found = read(&file(Dtype::F64, &entries, &[TANH])).unwrap();
    let direct =
        |z: Array1<f64>| last.weight.dot(&map((first.weight.dot(&z) + &first.bias).mapv(f64::tanh))) + &last.bias;
    compare(&found, direct);
}

fn renumbered(prefix: &str, layers: &[(usize, &Layer)]) -> Vec<Entry> {
    let each = |&(index, layer): &(usize, &Layer)| {
        let [weight, bias] = state_dict("", std::slice::from_ref(layer)).try_into().unwrap();
        [(format!("{prefix}{index}.weight"), weight.1, weight.2), (format!("{prefix}{index}.bias"), bias.1, bias.2)]
    };
    layers.iter().flat_map(each).collect()
}

fn compare(found: &Decoder, direct: impl Fn(Array1<f64>) -> Array1<f64>) {
    assert_eq!(found.heads()[0].layers().len(), 2);
    let z = Random(6).array((20, found.latent_dim()));
    let expected: Vec<f64> = z.rows().into_iter().flat_map(|z| direct(z.to_owned())).collect();
    let expected = Array2::from_shape_vec((20, found.data_dim()), expected).unwrap();
    let values = model::<f64>(found).decode(z.view()).unwrap();
    assert!(worst_error(&values, &expected) < 1e-13);
    // float32 follows.
    let values = model::<f32>(found).decode(cast(&z).view()).unwrap();
    assert!(worst_error(&values, &expected) < 1e-5);
}

/// `affine=False` leaves weight and bias out, and `num_batches_tracked` is an integer that nobody needs.
#[test]
fn batch_norm_without_its_own_scale() {
    let mut random = Random(7);
    let layer = random.layer(2, 3, Activation::Identity);
    let (norm, _) = batch_norm("1", 3, &mut random);
    let (mean, var) = (norm[2].2.clone(), norm[3].2.clone());
    let entries = [state_dict("", std::slice::from_ref(&layer)), norm[2..].to_vec()].concat();
    let counter = 12i64.to_le_bytes();
    let bytes: Vec<Vec<u8>> = entries.iter().map(|e| bytes_of(Dtype::F64, &e.2)).collect();
    let mut tensors: Vec<(String, TensorView<'_>)> = entries
        .iter()
        .zip(&bytes)
        .map(|(e, b)| (e.0.clone(), TensorView::new(Dtype::F64, e.1.clone(), b).unwrap()))
        .collect();
    tensors.push(("1.num_batches_tracked".into(), TensorView::new(Dtype::I64, vec![], &counter).unwrap()));
    let found = read(&safetensors::serialize(tensors, None).unwrap()).unwrap();
    let z = Random(8).array((5, 2));
    let values = model::<f64>(&found).decode(z.view()).unwrap();
    for (z, value) in z.rows().into_iter().zip(values.rows()) {
        let plain = layer.weight.dot(&z) + &layer.bias;
        for k in 0..3 {
            assert!((value[k] - (plain[k] - mean[k]) / (var[k] + 1e-5).sqrt()).abs() < 1e-13);
        }
    }
}

// What is refused.

#[test]
fn files_that_are_not_there() {
    let error = Decoder::open(path("nothing.safetensors")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.is_input());
    assert!(error.to_string().contains("nothing.safetensors: "), "{error}");
}

#[test]
fn files_of_another_kind() {
    for bytes in [&b""[..], b"{}", b"PK\x03\x04 a zip archive, perhaps", &[255; 100]] {
        let found = message(read(bytes));
        assert!(found.starts_with("not a safetensors file, or truncated ("), "{found}");
    }
    // From a file, the message says which.
    let found = message(Decoder::open(path("digits-d2-tanh.labels.npy")));
    assert!(found.contains("digits-d2-tanh.labels.npy: not a safetensors file"), "{found}");
}

#[test]
fn truncated_files() {
    let bytes = std::fs::read(path("digits-d2-tanh.safetensors")).unwrap();
    for length in [4, 100, 1000, bytes.len() - 1] {
        let found = message(read(&bytes[..length]));
        assert!(found.starts_with("not a safetensors file, or truncated ("), "{length} bytes: {found}");
    }
}

#[test]
fn files_without_tensors() {
    assert_eq!(refusal(&[], &[TANH]), "the file holds no tensors: expected `0.weight`, `0.bias` and so on");
}

/// `precision.centers` [2, 1] and so on, two outputs.
fn rbf() -> Vec<Entry> {
    vec![
        entry("precision.centers", &[2, 1], &[0.0, 1.0]),
        entry("precision.bandwidths", &[2], &[1.0, 2.0]),
        entry("precision.weight", &[2, 2], &[1.0, 0.5, 0.25, 2.0]),
        entry("precision.floor", &[1], &[0.1]),
    ]
}

#[test]
fn radial_basis_functions_follow_the_other_head() {
    let mean = Random(2).head("mean", &[1, 3, 2], Activation::Tanh, Activation::Identity);
    let entries = [rbf(), state_dict("mean.", mean.layers())].concat();
    let both = read(&file(Dtype::F64, &entries, &[TANH])).unwrap();
    assert_eq!(both.heads().iter().map(|h| h.name()).collect::<Vec<_>>(), ["mean", "precision"]);
    assert_eq!(both.heads()[0], mean);
    let found = model::<f64>(&both).decode(ndarray::array![[0.5]].view()).unwrap();
    let (near, far) = ((-0.25_f64).exp(), (-0.5_f64).exp());
    assert!((found[[0, 3]] - (0.25 * near + 2.0 * far + 0.1).powf(-0.5)).abs() < 1e-14);
    // Alone, or where asked for.
    assert_eq!(read(&file(Dtype::F64, &rbf(), &[])).unwrap().data_dim(), 2);
    let alone = FileOptions { heads: vec!["precision".into()], ..FileOptions::default() };
    assert_eq!(Decoder::from_safetensors(&file(Dtype::F64, &entries, &[TANH]), &alone).unwrap().heads().len(), 1);

    let without = |key: &str| {
        let mut entries = rbf();
        entries.retain(|e| e.0 != key);
        refusal(&entries, &[])
    };
    assert_eq!(without("precision.floor"), "missing key `precision.floor`: expected shape [1] or [outputs]");
    assert_eq!(without("precision.weight"), "missing key `precision.weight`: expected shape [outputs, K]");
    let with = |more: Entry| refusal(&[rbf(), vec![more]].concat(), &[]);
    let found = with(entry("precision.bias", &[1], &[0.0]));
    assert_eq!(
        found,
        "unknown key `precision.bias`: expected centers, bandwidths, weight, floor of radial basis functions"
    );
    let mut entries = rbf();
    entries[1] = entry("precision.bandwidths", &[3], &[1.0; 3]);
    assert_eq!(refusal(&entries, &[]), "key `precision.bandwidths`: expected shape [2], found [3]");
    entries[1] = entry("precision.bandwidths", &[2], &[1.0, -1.0]);
    let found = refusal(&entries, &[]);
    assert_eq!(found, "head `precision`, bandwidths: expected finite numbers of at least 0, found -1");
}

#[test]
fn members_of_an_ensemble() {
    let mut random = Random(5);
    let heads: Vec<_> = (0..11)
        .map(|k| random.head(&format!("decoders.{k}"), &[2, 3, 2], Activation::Tanh, Activation::Identity))
        .collect();
    let entries: Vec<Entry> =
        heads.iter().flat_map(|head| state_dict(&format!("{}.", head.name()), head.layers())).collect();
    let found = read(&file(Dtype::F64, &entries, &[TANH, ("members", "11")])).unwrap();
    assert_eq!(found, Decoder::ensemble(heads.clone()).unwrap()); // in the order of their numbers: 10 comes last
    let asked = FileOptions { ensemble: true, ..FileOptions::default() };
    assert_eq!(Decoder::from_safetensors(&file(Dtype::F64, &entries, &[TANH]), &asked).unwrap(), found);
    let one = FileOptions { heads: vec!["decoders.3".into()], ..FileOptions::default() };
    let bytes = file(Dtype::F64, &entries, &[TANH, ("members", "11")]);
    assert_eq!(Decoder::from_safetensors(&bytes, &one).unwrap(), Decoder::new(vec![heads[3].clone()]).unwrap());
    let found = refusal(&entries, &[TANH, ("members", "12")]);
    assert!(found.starts_with("metadata `members`: expected 12 chains of layers, found 11 ("), "{found}");
    let found = refusal(&entries, &[TANH, ("members", "none")]);
    assert_eq!(found, "metadata `members`: expected a number from 1 on, found `none`");
}

#[test]
fn missing_keys() {
    let layers = plain(Activation::Tanh, Activation::Identity);
    let without = |key: &str| {
        let mut entries = state_dict("net.", layers.layers());
        entries.retain(|e| e.0 != key);
        refusal(&entries, &[TANH])
    };
    assert_eq!(without("net.2.bias"), "missing key `net.2.bias`: expected shape [4]");
    assert_eq!(without("net.2.weight"), "missing key `net.2.weight`: expected shape [out, in]");

    let mut random = Random(9);
    let (mut norm, _) = batch_norm("1", 5, &mut random);
    norm.retain(|e| e.0 != "1.running_var");
    let entries = [state_dict("", &layers.layers()[..1]), norm].concat();
    assert_eq!(refusal(&entries, &[TANH]), "missing key `1.running_var` of a BatchNorm");
}

#[test]
fn shapes_that_do_not_chain() {
    let zeros = |key: &str, shape: &[usize]| entry(key, shape, &vec![0.0; shape.iter().product()]);
    let with = |entries: &[Entry]| refusal(entries, &[TANH]);
    assert_eq!(
        with(&[zeros("0.weight", &[5, 3]), zeros("0.bias", &[5]), zeros("2.weight", &[2, 4]), zeros("2.bias", &[2])]),
        "key `2.weight`: expected shape [2, 5], as the layer before has 5 outputs, found [2, 4]"
    );
    assert_eq!(
        with(&[zeros("0.weight", &[5, 3]), zeros("0.bias", &[4])]),
        "key `0.bias`: expected shape [5], found [4]"
    );
    assert_eq!(
        with(&[zeros("0.weight", &[5, 3, 3, 3]), zeros("0.bias", &[5])]),
        "key `0.weight`: expected shape [out, in] of a linear layer, found [5, 3, 3, 3]"
    );
    assert_eq!(
        with(&[zeros("0.weight", &[5, 0]), zeros("0.bias", &[5])]),
        "head `decoder`, layer 0: expected a weight with at least one row and column, found [5, 0]"
    );
}

#[test]
fn unknown_keys() {
    let layers = plain(Activation::Tanh, Activation::Identity);
    for key in ["optimizer", "net.weight", "0.weight_g", "2.running_cov"] {
        let entries = [state_dict("", layers.layers()), vec![entry(key, &[2, 2], &[0.0; 4])]].concat();
        let found = refusal(&entries, &[TANH]);
        let expected = format!(
            "unknown key `{key}` of shape [2, 2]: expected the keys of an nn.Sequential of Linear and BatchNorm1d layers, such as `0.weight` or `decoder.0.weight`"
        );
        assert_eq!(found, expected);
    }
}

#[test]
fn unknown_number_formats() {
    let entries = [entry("0.weight", &[1, 2], &[1.0, 2.0]), entry("0.bias", &[1], &[0.0])];
    assert_eq!(
        message(read(&file(Dtype::I64, &entries, &[]))),
        "key `0.weight`: expected float32, float64, float16 or bfloat16, found I64"
    );
}

#[test]
fn unknown_activations() {
    let entries = state_dict("", plain(Activation::Tanh, Activation::Identity).layers());
    let known = "expected one of identity, relu, leaky_relu, elu, selu, tanh, sigmoid, softplus, silu, gelu, gelu_tanh, sin, square, exp, rsqrt, sigmoid_angle, softmax, softmax_angle";
    assert_eq!(
        refusal(&entries, &[("activation", "mish")]),
        format!("metadata `activation`: unknown activation `mish`: {known}")
    );
    assert_eq!(
        refusal(&entries, &[TANH, ("output", "maxout")]),
        format!("metadata `output`: unknown activation `maxout`: {known}")
    );
}

#[test]
fn no_activation() {
    let entries = state_dict("", plain(Activation::Tanh, Activation::Identity).layers());
    let found = refusal(&entries, &[("output", "sigmoid")]);
    assert!(found.starts_with("no activation given: a state_dict does not hold it; give --activation NAME"), "{found}");
}

#[test]
fn numbers_that_are_not_finite() {
    let entries = [entry("0.weight", &[2, 3], &[0.0, 1.0, 2.0, 3.0, f64::NAN, 5.0]), entry("0.bias", &[2], &[0.0; 2])];
    assert_eq!(refusal(&entries, &[]), "key `0.weight`: expected finite numbers, found NaN at [1, 1]");
    let entries = [entry("0.weight", &[2, 1], &[0.0; 2]), entry("0.bias", &[2], &[0.0, f64::INFINITY])];
    assert_eq!(refusal(&entries, &[]), "key `0.bias`: expected finite numbers, found inf at [1]");
}

#[test]
fn several_chains_without_a_choice() {
    let layers = plain(Activation::Tanh, Activation::Identity);
    let entries = [state_dict("encoder.", layers.layers()), state_dict("decoder.", layers.layers())].concat();
    assert_eq!(
        refusal(&entries, &[TANH]),
        "the file holds 2 chains of layers (`decoder`, `encoder`): say which of them are the decoder's heads (--heads, or `heads` in the file's metadata), or that they are members of an ensemble (--ensemble, or their number as `members`)"
    );
    assert_eq!(
        refusal(&entries, &[TANH, ("heads", "decoder,mean")]),
        "no head `mean`: the file holds `decoder`, `encoder`"
    );
}

#[test]
fn heads_on_different_latent_spaces() {
    let mut random = Random(10);
    let (a, b) = (random.layer(2, 3, Activation::Identity), random.layer(4, 3, Activation::Identity));
    let entries = [state_dict("mean.", &[a]), state_dict("std.", &[b])].concat();
    assert_eq!(
        refusal(&entries, &[("heads", "mean,std")]),
        "head `std`: expected the latent dimension 2 of head `mean`, found 4"
    );
}

#[test]
fn batch_norms_that_cannot_be_folded() {
    let mut random = Random(11);
    let (first, last) = (random.layer(3, 6, Activation::Tanh), random.layer(6, 4, Activation::Identity));
    let mut with = |index: usize, width: usize, layers: &[(usize, &Layer)]| {
        let entries = [batch_norm(&format!("net.{index}"), width, &mut random).0, renumbered("net.", layers)].concat();
        refusal(&entries, &[TANH])
    };
    assert_eq!(with(0, 3, &[(1, &first)]), "module `net.0`: expected a linear layer before the first BatchNorm");
    assert_eq!(with(1, 5, &[(0, &first), (3, &last)]), "module `net.1`: expected a BatchNorm of 6 features, found 5");
    assert_eq!(
        with(2, 6, &[(0, &first), (4, &last)]),
        "module `net.2`: expected a BatchNorm right behind a linear layer or right before one (else the file does not tell on which side of the activation it stands)"
    );
    let (mut norm, _) = batch_norm("1", 6, &mut random);
    norm[3].2[2] = -1.0;
    let entries = [norm, renumbered("", &[(0, &first)])].concat();
    assert_eq!(refusal(&entries, &[]), "key `1.running_var`: expected variances of at least 0, found -1");
}

/// The same rules hold for decoders made of layers in memory.
#[test]
fn layers_that_do_not_make_a_head() {
    let layer = |rows: usize, columns: usize, bias: usize| Layer {
        weight: Array2::zeros((rows, columns)),
        bias: Array1::zeros(bias),
        activation: Activation::Identity,
    };
    let message = |layers: Vec<Layer>| Head::new("mean", layers).unwrap_err().to_string();
    assert_eq!(message(vec![]), "head `mean`: expected at least one layer, found none");
    assert_eq!(message(vec![layer(3, 2, 4)]), "head `mean`, layer 0: expected a bias of shape [3], found [4]");
    assert_eq!(
        message(vec![layer(3, 2, 3), layer(5, 4, 5)]),
        "head `mean`, layer 1: expected a weight of shape [5, 3] behind a layer of 3 outputs, found [5, 4]"
    );
    let mut broken = layer(3, 2, 3);
    broken.weight[[2, 1]] = f64::NAN;
    assert_eq!(message(vec![broken.clone()]), "head `mean`, layer 0: weight [2, 1] is NaN: expected finite weights");
    broken.weight[[2, 1]] = 0.0;
    broken.bias[1] = f64::INFINITY;
    assert_eq!(message(vec![broken]), "head `mean`, layer 0: bias [1] is inf: expected finite biases");
    assert_eq!(Decoder::new(vec![]).unwrap_err().to_string(), "expected at least one head, found none");
}
