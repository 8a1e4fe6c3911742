"""stochman's `EmbeddedManifold.connecting_geodesic` on the given pairs, with its own defaults, on the CPU.

    python stochman_peer.py --decoder F.safetensors --starts A.npy --ends B.npy --out DIR [--segments 32] [--batch 256]

Defaults of stochman 0.3.0: cubic spline of 5 nodes, Adam with learning rate 0.1, at most 150 steps, energy on 20 grid
points, stop at a largest gradient entry below 1e-4 over the batch. All in float32 and without `torch.compile`, as the
package does it. The resulting splines are evaluated at N+1 equal parameters, outside the measured time.

Writes DIR/curves.npy [C, N+1, d], DIR/status.npy [C] (0 converged, 1 max iterations, one verdict per batch) and
DIR/run.json. A warm-up on a few pairs is not part of `timings.solve_seconds`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import stochman
import torch
from stochman.manifold import EmbeddedManifold

from decoders import Decoder

ACTIVATIONS = {
    "tanh": torch.nn.Tanh,
    "softplus": torch.nn.Softplus,
    "silu": torch.nn.SiLU,
    "sigmoid": torch.nn.Sigmoid,
    "identity": torch.nn.Identity,
}


class Surface(EmbeddedManifold):
    """The image of the decoder, as stochman wants it: `embed` is the decoder."""

    def __init__(self, decoder):
        super().__init__()
        modules = []
        for k, (weight, bias) in enumerate(decoder.layers):
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight.data = torch.tensor(weight, dtype=torch.float32)
            linear.bias.data = torch.tensor(bias, dtype=torch.float32)
            last = k + 1 == len(decoder.layers)
            modules += [linear, ACTIVATIONS[decoder.output if last else decoder.activation]()]
        self.network = torch.nn.Sequential(*modules).requires_grad_(False)

    def embed(self, points, jacobian=False):
        assert not jacobian, "connecting_geodesic needs values only"
        return self.network(points)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("decoder", "starts", "ends", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--segments", type=int, default=32)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    surface = Surface(Decoder.open(args.decoder))
    starts, ends = (torch.from_numpy(np.load(file)).split(args.batch) for file in (args.starts, args.ends))

    surface.connecting_geodesic(starts[0][:8], ends[0][:8])
    begin = time.perf_counter()
    results = [surface.connecting_geodesic(a, b) for a, b in zip(starts, ends)]
    seconds = time.perf_counter() - begin

    t = torch.linspace(0, 1, args.segments + 1)
    with torch.no_grad():
        curves = torch.cat([curve(t).reshape(len(curve), len(t), -1) for curve, _ in results]).numpy()
    status = np.concatenate([np.full(len(curve), 0 if good else 1, np.uint8) for curve, good in results])
    args.out.mkdir(parents=True, exist_ok=True)
    np.save(args.out / "curves.npy", curves)
    np.save(args.out / "status.npy", status)
    run = {
        "timings": {"solve_seconds": seconds},
        "settings": f"stochman {stochman.__version__}, torch {torch.__version__}, float32, {args.threads} threads, "
        f"batches of {args.batch}, Adam with at most 150 steps",
    }
    (args.out / "run.json").write_text(json.dumps(run, indent=2))


if __name__ == "__main__":
    main()
