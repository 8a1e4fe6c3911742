"""500 steps of Adam for the curves of `cargo bench --bench ensemble`, in jitted JAX: what that workload is solved with today.

    python ensemble_adam.py [--pairs 8] [--segments 1999] [--steps 500] [--rates 0.001,0.003,0.01,0.03] [--json FILE]

All inner points of all curves are free, from straight lines, and the energy N/2 sum_i (|m_{i+1} - m_i|^2 + v_i + v_{i+1}) of the ten
decoders' mean m and variance v is differentiated in reverse mode. Every learning rate is tried; a warm-up of one step, with compilation,
is left out of the times. Energies at the end are computed in float64. JSON on the standard output, or into a file.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from decoders import read_safetensors

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
CENTRES, OUTPUTS, CURVES_AT_ONCE = 133, 50, 4
NAME = "digits-d2-ensemble"
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def members(path):
    """Weights [M, inputs, outputs] and biases [M, outputs] of every layer, with the first outputs alone."""
    tensors, metadata = read_safetensors(path)
    count = int(metadata["members"])
    prefixes = sorted({key.rsplit(".", 2)[0] for key in tensors}, key=lambda name: int(name.rsplit(".", 1)[-1]))
    assert len(prefixes) == count, f"{path}: expected {count} members, found {len(prefixes)}"
    numbers = sorted({int(key.rsplit(".", 2)[1]) for key in tensors})
    layers = []
    for number in numbers:
        cut = slice(0, OUTPUTS) if number == numbers[-1] else slice(None)
        weight = np.stack([tensors[f"{prefix}.{number}.weight"][cut].T for prefix in prefixes])
        layers.append((weight, np.stack([tensors[f"{prefix}.{number}.bias"][cut] for prefix in prefixes])))
    return layers


def energy(layers, curves, numpy=jnp):
    """Expected energies [C] of curves [C, N + 1, d]."""
    count, points, d = curves.shape
    h = numpy.broadcast_to(curves.reshape(1, -1, d), (len(layers[0][0]), count * points, d))
    for number, (weight, bias) in enumerate(layers):
        h = numpy.matmul(h, weight) + bias[:, None]
        if number + 1 < len(layers):
            h = numpy.maximum(h, 0)
    mean = h.mean(0)
    variance = ((h - mean) ** 2).mean(0).sum(-1).reshape(count, points)
    chords = ((mean.reshape(count, points, -1)[:, 1:] - mean.reshape(count, points, -1)[:, :-1]) ** 2).sum(-1)
    return 0.5 * (points - 1) * (chords + variance[:, 1:] + variance[:, :-1]).sum(1)


@jax.jit
def adam(layers, lines, rate, steps):
    def whole(inner):
        return jnp.concatenate([lines[:, :1], inner, lines[:, -1:]], axis=1)

    def step(k, state):
        inner, first, second = state
        gradient = jax.grad(lambda inner: energy(layers, whole(inner)).sum())(inner)
        first = BETA_1 * first + (1 - BETA_1) * gradient
        second = BETA_2 * second + (1 - BETA_2) * gradient**2
        scaled = jnp.sqrt(second / (1 - BETA_2 ** (k + 1.0))) + EPSILON
        return inner - rate * first / (1 - BETA_1 ** (k + 1.0)) / scaled, first, second

    inner = lines[:, 1:-1]
    zeros = jnp.zeros_like(inner)
    return whole(jax.lax.fori_loop(0, steps, step, (inner, zeros, zeros))[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fixtures", type=Path, default=FIXTURES)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--segments", type=int, default=1999)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rates", default="0.001,0.003,0.01,0.03")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    exact = members(args.fixtures / f"{NAME}.safetensors")
    layers = [(jnp.asarray(w, jnp.float32), jnp.asarray(b, jnp.float32)) for w, b in exact]
    latents = np.load(args.fixtures / f"{NAME}.latents.npy").astype(np.float64)
    centres = latents[:: len(latents) // CENTRES][:CENTRES]
    every = [(b, a) for a in range(CENTRES) for b in range(a)]
    chosen = [every[k * len(every) // args.pairs] for k in range(args.pairs)]
    starts, ends = (centres[[pair[side] for pair in chosen]][:, None] for side in (0, 1))
    lines = starts + np.linspace(0, 1, args.segments + 1)[None, :, None] * (ends - starts)

    exact = [(w.astype(np.float64), b.astype(np.float64)) for w, b in exact]
    in_double = lambda curves: np.concatenate([energy(exact, curve[None], np) for curve in np.float64(curves)])
    record = {
        "workload": "10 decoders 2-128-128-50, relu",
        "solver": f"{args.steps} steps of Adam, JAX {jax.__version__} on {jax.devices()[0].platform}",
        "pairs": args.pairs,
        "points": args.segments + 1,
        "straight_mean_energy": float(in_double(lines).mean()),
        "runs": [],
    }
    batches = [jnp.asarray(lines[k : k + CURVES_AT_ONCE], jnp.float32) for k in range(0, args.pairs, CURVES_AT_ONCE)]
    for rate in map(float, args.rates.split(",")):
        for batch in {batch.shape: batch for batch in batches}.values():
            adam(layers, batch, rate, 1).block_until_ready()
        began = time.perf_counter()
        found = [np.asarray(adam(layers, batch, rate, args.steps)) for batch in batches]
        seconds = time.perf_counter() - began
        run = {
            "learning_rate": rate,
            "seconds": seconds,
            "seconds_per_curve": seconds / args.pairs,
            "mean_energy": float(in_double(np.concatenate(found)).mean()),
        }
        record["runs"].append(run)
        print(run, flush=True)
    text = json.dumps(record, indent=2) + "\n"
    if args.json:
        args.json.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
