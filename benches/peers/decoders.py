"""The decoders and curve pairs that every solver of this comparison shares, in float64 NumPy.

    Decoder.open(path)        weights of an MLP decoder from a safetensors file
    decoder(points)           f(z): [..., d] -> [..., D]
    decoder.chord_energy(c)   N/2 * sum |f(z_{i+1}) - f(z_i)|^2: [C, N+1, d] -> [C]
    decoder.metric(points)    G(z) = J J^T: [P, d] -> [P, d, d]
    pick_pairs(latents, n)    n endpoint pairs out of encoded images, always the same ones
    pick_points(latents, n)   n points among them, always the same ones

Not run by itself: `compare.py` and the peers import it. Every energy that is printed comes from `chord_energy`, and every
metric is held against `metric`. Needs NumPy alone.
"""

import json
import re

import numpy as np


def sigmoid(h):
    return 0.5 * (1.0 + np.tanh(0.5 * h))


ACTIVATIONS = {
    "tanh": np.tanh,
    "softplus": lambda h: np.logaddexp(h, 0.0),
    "silu": lambda h: h * sigmoid(h),
}
OUTPUTS = {"identity": lambda h: h, "sigmoid": sigmoid}
SLOPES = {
    "tanh": lambda h: 1.0 - np.tanh(h) ** 2,
    "softplus": sigmoid,
    "silu": lambda h: sigmoid(h) * (1.0 + h * (1.0 - sigmoid(h))),
    "identity": np.ones_like,
    "sigmoid": lambda h: sigmoid(h) * (1.0 - sigmoid(h)),
}
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def read_safetensors(path):
    """The tensors of a safetensors file in float64, and its metadata."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    metadata, tensors = header.pop("__metadata__", {}), {}
    for key, entry in header.items():
        if entry["dtype"] not in TYPES:
            raise ValueError(f"{path}: {key} is {entry['dtype']}, expected one of {', '.join(TYPES)}")
        first, last = (begin + offset for offset in entry["data_offsets"])
        tensors[key] = np.frombuffer(data[first:last], TYPES[entry["dtype"]]).reshape(entry["shape"]).astype(np.float64)
    return tensors, metadata


class Decoder:
    """An MLP. `layers` holds (weight [out, in], bias [out]) in float64, `activation` and `output` are names."""

    def __init__(self, layers, activation, output):
        if activation not in ACTIVATIONS or output not in OUTPUTS:
            raise ValueError(f"activation {activation!r} with output {output!r} is not known here")
        self.layers, self.activation, self.output = layers, activation, output

    @classmethod
    def open(cls, path):
        tensors, metadata = read_safetensors(path)
        numbers = sorted(int(m[1]) for m in (re.fullmatch(r"decoder\.(\d+)\.weight", key) for key in tensors) if m)
        if not numbers or len(tensors) != 2 * len(numbers):
            raise ValueError(f"{path}: expected decoder.K.weight and decoder.K.bias only, found {sorted(tensors)}")
        layers = [(tensors[f"decoder.{k}.weight"], tensors[f"decoder.{k}.bias"]) for k in numbers]
        return cls(layers, metadata.get("activation"), metadata.get("output", "identity"))

    def __call__(self, points):
        phi, values = ACTIVATIONS[self.activation], np.asarray(points, np.float64)
        for k, (weight, bias) in enumerate(self.layers):
            values = (values if k == 0 else phi(values)) @ weight.T + bias
        return OUTPUTS[self.output](values)

    def chord_energy(self, curves):
        segments, energies = curves.shape[1] - 1, [np.zeros(0)]
        for first in range(0, len(curves), 4096):
            chords = np.diff(self(curves[first : first + 4096]), axis=1)
            energies.append(0.5 * segments * np.einsum("cik,cik->c", chords, chords))
        return np.concatenate(energies)

    def metric(self, points):
        names = [self.activation] * (len(self.layers) - 1) + [self.output]
        values, tangents = np.asarray(points, np.float64), None
        for (weight, bias), name in zip(self.layers, names):
            h = values @ weight.T + bias
            tangents = weight.T if tangents is None else tangents @ weight.T
            tangents = tangents * SLOPES[name](h)[:, None]
            values = {**ACTIVATIONS, **OUTPUTS}[name](h)
        return tangents @ tangents.swapaxes(1, 2)


def pick_pairs(latents, count, seed=0):
    """Starts and ends [count, d], float32: random rows of `latents`, both ends of a pair distinct."""
    random = np.random.default_rng(seed)
    first = random.integers(len(latents), size=count)
    second = (first + random.integers(1, len(latents), size=count)) % len(latents)
    starts, ends = latents[first].astype(np.float32), latents[second].astype(np.float32)
    if (starts == ends).all(axis=1).any():
        raise ValueError("two of the picked rows are equal: choose another seed")
    return starts, ends


def pick_points(latents, count, seed=0):
    """Points [count, d], float32: on straight lines between random rows of `latents`."""
    random = np.random.default_rng(seed)
    a, b = (latents[random.integers(len(latents), size=count)] for _ in range(2))
    t = random.random((count, 1))
    return (a * (1 - t) + b * t).astype(np.float32)
