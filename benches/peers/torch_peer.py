"""The metric G = J^T J at given points as one writes it in PyTorch: vmap(jacfwd) and an einsum, float32.

    python torch_peer.py --decoder F.safetensors --points Z.npy --out DIR [--compile] [--device auto] [--batch N]

With `--compile` the function goes through `torch.compile`; where that does not work (no C++ compiler on the machine, say)
DIR/run.json says so under `unavailable`, and nothing else is written. Otherwise: DIR/metric.npy [P, d, d] and
DIR/run.json. Points are taken in batches; the warm-up, which compiles, tries some batch sizes and keeps the fastest. It
is not part of `timings.compute_seconds`, the transfers to and from a GPU are.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.func import jacfwd, vmap

from decoders import Decoder

ACTIVATIONS = {
    "tanh": torch.nn.Tanh,
    "softplus": torch.nn.Softplus,
    "silu": torch.nn.SiLU,
    "sigmoid": torch.nn.Sigmoid,
    "identity": torch.nn.Identity,
}
BATCHES = (1024, 8192, 65536)
MOST_VALUES = 2**29  # batch times outputs times latents, at most: 2 GiB of Jacobians


def network_of(decoder):
    modules = []
    for k, (weight, bias) in enumerate(decoder.layers):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data = torch.tensor(weight, dtype=torch.float32)
        linear.bias.data = torch.tensor(bias, dtype=torch.float32)
        modules += [linear, ACTIVATIONS[decoder.activation if k + 1 < len(decoder.layers) else decoder.output]()]
    return torch.nn.Sequential(*modules).requires_grad_(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("decoder", "points", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N, or auto: a GPU where PyTorch has one")
    parser.add_argument("--batch", type=int, help="points at a time; the fastest of some if not given")
    parser.add_argument("--threads", type=int, default=2, help="on the CPU")
    args = parser.parse_args()

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: PyTorch has no such device here")
    torch.set_num_threads(args.threads)
    cuda = torch.cuda.is_available() if args.device == "auto" else args.device != "cpu"
    device = torch.device(("cuda" if cuda else "cpu") if args.device == "auto" else args.device)
    decoder = Decoder.open(args.decoder)
    points = torch.from_numpy(np.load(args.points).astype(np.float32))
    network = network_of(decoder).to(device)

    def metric(points):
        jacobians = vmap(jacfwd(network))(points)
        return torch.einsum("pdi,pdj->pij", jacobians, jacobians)

    args.out.mkdir(parents=True, exist_ok=True)
    run = {
        "device": "cuda" if cuda else "cpu",
        "device_name": torch.cuda.get_device_name(device) if cuda else None,
        "precision": f"float32, products: {torch.get_float32_matmul_precision()}" if cuda else "float32",
    }

    def timed(batch):
        begin = time.perf_counter()
        result = torch.cat([metric(part.to(device)).cpu() for part in points.split(batch)])
        return time.perf_counter() - begin, result

    def write():
        (args.out / "run.json").write_text(json.dumps(run, indent=2))

    begin = time.perf_counter()
    if args.compile:
        try:
            metric = torch.compile(metric, dynamic=False)
            metric(points[: BATCHES[0]].to(device))
        except Exception as error:  # of many kinds: the compiler, the driver, Triton, Python's headers
            run["unavailable"] = "torch.compile: " + " ".join(str(error).split(" Set TORCH")[0].split())[:200]
            return write()
    values = points.shape[1] * len(decoder.layers[-1][1])
    sizes = {min(batch, len(points)) for batch in BATCHES if batch * values <= MOST_VALUES}
    best = args.batch or min(sorted(sizes or {BATCHES[0]}), key=lambda batch: min(timed(batch)[0] for _ in range(3)))
    timed(best)
    warm_up = time.perf_counter() - begin
    seconds, result = timed(best)
    np.save(args.out / "metric.npy", result.numpy())
    run["timings"] = {"compute_seconds": seconds, "warm_up_seconds": warm_up}
    how = "torch.compile" if args.compile else "eager"
    run["settings"] = f"torch {torch.__version__}, {how}, {args.threads} threads, batches of {best}"
    write()


if __name__ == "__main__":
    main()
