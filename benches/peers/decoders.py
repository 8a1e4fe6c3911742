"""The decoders and curve pairs that every solver of this comparison shares, in float64 NumPy.

    Decoder.open(path)        weights of an MLP decoder from a safetensors file
    decoder(points)           f(z): [..., d] -> [..., D]
    decoder.chord_energy(c)   N/2 * sum |f(z_{i+1}) - f(z_i)|^2: [C, N+1, d] -> [C]
    pick_pairs(latents, n)    n endpoint pairs out of encoded images, always the same ones

Not run by itself: `compare.py` and the peers import it. Every energy that is printed comes from `chord_energy`.
"""

import re

import numpy as np
from safetensors import safe_open


def sigmoid(h):
    return 0.5 * (1.0 + np.tanh(0.5 * h))


ACTIVATIONS = {
    "tanh": np.tanh,
    "softplus": lambda h: np.logaddexp(h, 0.0),
    "silu": lambda h: h * sigmoid(h),
}
OUTPUTS = {"identity": lambda h: h, "sigmoid": sigmoid}


class Decoder:
    """An MLP. `layers` holds (weight [out, in], bias [out]) in float64, `activation` and `output` are names."""

    def __init__(self, layers, activation, output):
        if activation not in ACTIVATIONS or output not in OUTPUTS:
            raise ValueError(f"activation {activation!r} with output {output!r} is not known here")
        self.layers, self.activation, self.output = layers, activation, output

    @classmethod
    def open(cls, path):
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key).astype(np.float64) for key in file.keys()}
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
        segments = curves.shape[1] - 1
        chords = np.diff(self(curves), axis=1)
        return 0.5 * segments * np.einsum("cik,cik->c", chords, chords)


def pick_pairs(latents, count, seed=0):
    """Starts and ends [count, d], float32: random rows of `latents`, both ends of a pair distinct."""
    random = np.random.default_rng(seed)
    first = random.integers(len(latents), size=count)
    second = (first + random.integers(1, len(latents), size=count)) % len(latents)
    starts, ends = latents[first].astype(np.float32), latents[second].astype(np.float32)
    if (starts == ends).all(axis=1).any():
        raise ValueError("two of the picked rows are equal: choose another seed")
    return starts, ends
