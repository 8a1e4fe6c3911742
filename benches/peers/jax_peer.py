"""The solver of pullback written in JAX and tuned: the same algorithm, jitted, float32, batched over curves.

    python jax_peer.py --decoder F.safetensors --starts A.npy --ends B.npy --out DIR [--segments 32] [--device auto]

Writes DIR/curves.npy [C, N+1, d], DIR/status.npy [C] (0 converged, 1 max iterations), DIR/iterations.npy [C] and
DIR/run.json. A warm-up on the same curves compiles and picks the number of curves worked on at a time; it is not part
of `timings.solve_seconds`, which on a GPU holds the transfers of the pairs to it and of the curves from it.

Per curve and pass: Gauss-Newton blocks of the chord energy, to which Newton's S is added once an accepted step gains
less than 1e-3 E; steps damped in the H1 norm at three levels; six candidates by values only; the lowest energy wins.
How it is made fast: tangents go forward through the layers explicitly, S costs one adjoint row, d x d blocks are
eliminated with curves in the SIMD lanes, a slot whose curve is done takes the next curve within the loop, and each
core runs its own share of the curves with single-threaded operations; a GPU gets all curves, in far more slots.
jax_plain_peer.py does none of this; georce_peer.py runs another algorithm in the same way.
"""

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from decoders import Decoder

TOLERANCE, NEWTON_GAIN, MAX_PASSES = 1e-6, 1e-3, 200
LEVELS, LENGTHS = (1 / 8, 1.0, 8.0), (1.0, 0.4)
SLOTS = (16, 32, 64)  # of each core
GPU_VALUES = 2**22  # slots times the decoder's widest layer, at most: what fits in the memory of a GPU


def tanh(h):
    a = jnp.tanh(h)
    return a, 1 - a * a, -2 * a * (1 - a * a)


def sigmoid(h):
    a = jax.nn.sigmoid(h)
    return a, a * (1 - a), a * (1 - a) * (1 - 2 * a)


def softplus(h):
    e = jnp.exp(-jnp.abs(h))
    p = jnp.where(h >= 0, 1.0, e) / (1 + e)
    return jnp.maximum(h, 0) + jnp.log(1 + e), p, p * (1 - p)


def silu(h):
    p = jax.nn.sigmoid(h)
    q = p * (1 - p)
    return h * p, p + h * q, q * (2 + h * (1 - 2 * p))


# phi, phi' and phi'' of the pre-activation; XLA drops what is not used.
PHI = {"tanh": tanh, "sigmoid": sigmoid, "softplus": softplus, "silu": silu, "identity": None}


def values(layers, phis, z):
    """f(z): [P, d] -> [P, D]."""
    for (weight, bias), phi in zip(layers, phis):
        z = z @ weight + bias
        if phi:
            z = phi(z)[0]
    return z


def linearise(layers, phis, z):
    """Values [P, D], tangents J [P, d, D], and what the adjoint needs of each layer."""
    points, d = z.shape
    a, tangents, tape = z, None, []
    for (weight, bias), phi in zip(layers, phis):
        h = a @ weight + bias
        if tangents is None:
            tangents = jnp.broadcast_to(weight, (points, *weight.shape))
        else:
            tangents = (tangents.reshape(points * d, -1) @ weight).reshape(points, d, -1)
        a, slope, bend = phi(h) if phi else (h, None, None)
        tape.append((tangents, slope, bend))
        if phi:
            tangents = tangents * slope[:, None]
    return a, tangents, tape


def curvature(layers, tape, r):
    """S = sum_k r_k Hessian(f_k) [P, d, d] by one adjoint row: sum_l T_l diag(adjoint * phi'') T_l^T."""
    total = 0.0
    for k in reversed(range(len(layers))):
        tangents, slope, bend = tape[k]
        if slope is not None:
            q = r * bend
            if k == 0:
                weight = layers[0][0]
                squares = (weight[:, None] * weight[None]).reshape(-1, weight.shape[1])
                total += (q @ squares.T).reshape(-1, *tangents.shape[1:2] * 2)
            else:
                total += inner(tangents * q[:, None], tangents)
            r = r * slope
        r = r @ layers[k][0].T
    return total


def inner(a, b):
    """[..., d, D], [..., d, D] -> [..., d, d]."""
    return jnp.einsum("...ik,...jk->...ij", a, b)


def eliminate(a, d):
    """[d, d+m, B] -> [d, m, B]: Gauss-Jordan with row pivoting, one system per lane; finished rows move to the end."""
    for left in range(d, 0, -1):
        pivot = jnp.argmax(jnp.abs(a[:left, 0]), axis=0)
        at_pivot = (jnp.arange(left)[:, None] == pivot)[:, None]
        row = jnp.where(at_pivot, a[:left], 0).sum(0)
        row = row[1:] / row[0]
        rest = jnp.concatenate([jnp.where(at_pivot[1:], a[0], a[1:left]), a[left:]])
        a = jnp.concatenate([rest[:, 1:] - rest[:, :1] * row, row[None]])
    return a


def tridiagonal(diagonal, upper, rhs):
    """Symmetric block-tridiagonal systems, [n, d, d, B], [n, d, d, B] (the last unused), [n, d, B] -> [n, d, B]."""
    d = rhs.shape[1]

    def down(carry, block):
        x, y, coupling = carry
        diagonal, upper, rhs = block
        pivot = diagonal - sum(coupling[k][:, None] * x[k][None] for k in range(d))
        right = rhs - sum(coupling[k] * y[k] for k in range(d))
        solved = eliminate(jnp.concatenate([pivot, upper, right[:, None]], axis=1), d)
        return (solved[:, :d], solved[:, d], upper), (solved[:, :d], solved[:, d])

    zero = jnp.zeros_like(diagonal[0])
    _, (x, y) = lax.scan(down, (zero, jnp.zeros_like(rhs[0]), zero), (diagonal, upper, rhs))

    def up(after, block):
        x, y = block
        here = y - sum(x[:, k] * after[k] for k in range(d))
        return here, here

    return lax.scan(up, jnp.zeros_like(rhs[0]), (x, y), reverse=True)[1]


def chord_energy(first, inside, last):
    """[C, D], [..., C, n, D], [C, D] -> [..., C]."""
    chords = inside[..., 1:, :] - inside[..., :-1, :]
    ends = (inside[..., 0, :] - first) ** 2 + (last - inside[..., -1, :]) ** 2
    return 0.5 * (inside.shape[-2] + 1) * ((chords**2).sum((-2, -1)) + ends.sum(-1))


def one_pass(layers, phis, z, energy, damping, newton, first, last):
    """One pass over C curves z [C, n, d]: the accepted curves, their energies, dampings, modes, and who converged."""
    c, n, d = z.shape
    segments = n + 1
    f, tangents, tape = linearise(layers, phis, z.reshape(-1, d))
    f, j = f.reshape(c, n, -1), tangents.reshape(c, n, d, -1)
    r = 2 * f - jnp.concatenate([first[:, None], f[:, :-1]], 1) - jnp.concatenate([f[:, 1:], last[:, None]], 1)
    gradient = segments * jnp.einsum("cidk,cik->cid", j, r)
    gram = 2 * segments * inner(j, j)
    upper = -segments * inner(j, jnp.concatenate([j[:, 1:], jnp.zeros_like(j[:, :1])], 1))
    s = lax.cond(
        newton.any(),
        lambda: curvature(layers, tape, r.reshape(c * n, -1)).reshape(c, n, d, d),
        lambda: jnp.zeros_like(gram),
    )
    diagonal = gram + jnp.where(newton[:, None, None, None], segments * s, 0.0)

    # (H + lambda s Lambda) delta = -gradient at three levels; systems lie along the last axis.
    scale = jnp.trace(gram, axis1=2, axis2=3).mean(1) / d
    levels = jnp.array(LEVELS)[:, None] * damping
    weight = (levels * scale).reshape(-1)
    eye = jnp.eye(d)[:, :, None]

    def lanes(block):
        return jnp.tile(jnp.moveaxis(block, 0, -1), 3)

    delta = tridiagonal(
        lanes(diagonal) + weight * eye,
        lanes(upper) - 0.5 * (1 - 1e-3) * weight * eye,
        -lanes(gradient),
    ).reshape(n, d, 3, c).transpose(2, 3, 0, 1)
    slope = (delta * gradient).sum((2, 3))

    candidates = z + jnp.array(LENGTHS)[:, None, None, None, None] * delta
    there = values(layers, phis, candidates.reshape(-1, d)).reshape(2, 3, c, n, -1)
    energies = chord_energy(first, there, last)
    energies = jnp.where((slope < 0) & (energies < energy), energies, jnp.inf).reshape(6, c)
    winner = jnp.argmin(energies, axis=0)
    lowest = energies.min(0)
    better = lowest < energy
    chosen = jnp.take_along_axis(candidates.reshape(6, c, n, d), winner[None, :, None, None], 0)[0]
    level = jnp.take_along_axis(levels, (winner % 3)[None], 0)[0]

    done = jnp.abs(slope[0]) < TOLERANCE * energy
    small = energy - lowest < NEWTON_GAIN * energy
    return (
        jnp.where(better[:, None, None], chosen, z),
        jnp.where(better, lowest, energy),
        jnp.clip(jnp.where(better, level, 64 * damping), 1e-6, 1e12),
        better & (newton | small),
        done,
    )


def in_slots(count, slots, load, advance, limit):
    """Inner points [C, n, d], status [C] and passes [C] of `count` curves, of which `slots` are worked on at a time.

    `load(who)` gives the fresh state of the curves `who`, a tuple whose first array holds the inner points; `advance`
    makes one pass over it and gives each slot's verdict, 255 as long as the curve needs more. At most `limit` passes.
    """

    def fresh(who):
        """Beyond the last curve the slot idles on curve 0."""
        return load(jnp.where(who < count, who, 0)), jnp.zeros(slots, jnp.int32)

    def body(state):
        who, following, (slot, age), curves, passes, status = state
        slot, verdict = advance(slot)
        age = age + 1
        leaves = ((verdict < 255) | (age >= limit)) & (who < count)
        to = jnp.where(leaves, who, count)
        curves = curves.at[to].set(slot[0], mode="drop")
        passes = passes.at[to].set(age, mode="drop")
        status = status.at[to].set(jnp.where(verdict < 255, verdict, 1).astype(jnp.uint8), mode="drop")
        taken = jnp.where(leaves, following + jnp.cumsum(leaves) - 1, who)
        slot = jax.tree.map(
            lambda new, old: jnp.where(leaves.reshape(-1, *[1] * (old.ndim - 1)), new, old), fresh(taken), (slot, age)
        )
        return taken, following + leaves.sum(), slot, curves, passes, status

    who = jnp.arange(slots)
    first = fresh(who)
    curves = jnp.zeros((count, *first[0][0].shape[1:]))
    empty = curves, jnp.zeros(count, jnp.int32), jnp.full(count, 255, jnp.uint8)
    state = lax.while_loop(lambda s: (s[0] < count).any(), body, (who, jnp.array(slots), first, *empty))
    return state[3], state[5], state[4]


def straight_lines(starts, ends, segments):
    """Inner points of the straight lines [C, N-1, d]."""
    t = (jnp.arange(1, segments) / segments)[:, None]
    return starts[:, None] * (1 - t) + ends[:, None] * t


@partial(jax.jit, static_argnames=("names", "segments", "slots"))
def solve(layers, starts, ends, names, segments, slots, limit):
    """Curves [C, N+1, d], status [C] and passes [C]."""
    phis = [PHI[name] for name in names]
    count, d = starts.shape
    straight = straight_lines(starts, ends, segments)
    first, last = values(layers, phis, starts), values(layers, phis, ends)
    inside = values(layers, phis, straight.reshape(-1, d)).reshape(count, segments - 1, -1)
    straight_energy = chord_energy(first, inside, last)

    def load(who):
        ones = jnp.ones(slots)
        return straight[who], straight_energy[who], ones, ones > 2, first[who], last[who]

    def advance(slot):
        *new, done = one_pass(layers, phis, *slot)
        return (*new, *slot[4:]), jnp.where(done, 0, 255)

    curves, status, passes = in_slots(count, slots, load, advance, limit)
    return jnp.concatenate([starts[:, None], curves, ends[:, None]], axis=1), status, passes


def read(parser):
    """Adds the peers' arguments and parses; decoder and pairs as `solve` takes them: args, layers, names, starts, ends.

    To be called before JAX's first operation, as it chooses the device."""
    for name in ("decoder", "starts", "ends", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--segments", type=int, default=32)
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N, or auto: a GPU where JAX has one")
    parser.add_argument("--precision", default="highest", help="of products on a GPU: jax_default_matmul_precision")
    args = parser.parse_args()
    kind, _, number = args.device.partition(":")
    if kind != "auto":
        jax.config.update("jax_platforms", kind)
    try:
        device = jax.devices()[int(number or 0)]
    except (RuntimeError, AssertionError, ValueError, IndexError):
        parser.error(f"--device {args.device}: JAX has no such device here")
    if number:
        jax.config.update("jax_default_device", device)
    if device.platform != "cpu":
        jax.config.update("jax_default_matmul_precision", args.precision)
    decoder = Decoder.open(args.decoder)
    layers = [(jnp.asarray(w.T, jnp.float32), jnp.asarray(b, jnp.float32)) for w, b in decoder.layers]
    names = (decoder.activation,) * (len(layers) - 1) + (decoder.output,)
    return args, layers, names, np.load(args.starts), np.load(args.ends)


def gpu_with(layers):
    """The name of the GPU that holds the weights, None where it is the processor."""
    device = next(iter(layers[0][0].devices()))
    return None if device.platform == "cpu" else device.device_kind


def write(args, layers, results, seconds, warm_up, settings):
    """curves.npy, status.npy, iterations.npy and run.json."""
    args.out.mkdir(parents=True, exist_ok=True)
    for name, array in zip(("curves", "status", "iterations"), results):
        np.save(args.out / f"{name}.npy", array)
    gpu = gpu_with(layers)
    run = {
        "device": "cuda" if gpu else "cpu",
        "device_name": gpu,
        "precision": f"float32, products: {args.precision}" if gpu else "float32",
        "timings": {"solve_seconds": seconds, "warm_up_seconds": warm_up},
        "settings": f"jax {jax.__version__}, float32, {settings}",
    }
    (args.out / "run.json").write_text(json.dumps(run, indent=2))


def run_in_slots(description, solve, limit, warm_up_limit):
    """A peer's whole run: arguments, warm-up, the choice of the slots, the measured solve and its files."""
    # Before the first operation; jax_plain_peer.py keeps XLA's threads.
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=2, help="on the CPU")
    args, layers, names, starts, ends = read(parser)
    gpu = gpu_with(layers)
    threads, choice = args.threads, SLOTS
    if gpu:
        threads = 1
        most = min(len(starts), GPU_VALUES // max(len(bias) for _, bias in layers))
        choice = sorted({max(1, most // k) for k in (1, 2, 4)})
    shares = list(zip(*(np.array_split(points, threads) for points in (starts, ends))))
    pool = ThreadPoolExecutor(threads)

    def timed(slots, limit):
        one = lambda share: jax.device_get(solve(layers, *share, names, args.segments, slots, limit))
        begin = time.perf_counter()
        results = list(pool.map(one, shares))
        return time.perf_counter() - begin, results

    begin = time.perf_counter()
    slots = min(choice, key=lambda slots: min(timed(slots, warm_up_limit)[0] for _ in range(3)))
    warm_up = time.perf_counter() - begin
    seconds, results = timed(slots, limit)
    results = [np.concatenate(parts) for parts in zip(*results)]
    how = f"{slots} curves at a time" if gpu else f"{threads} threads, {slots} curves at a time in each"
    write(args, layers, results, seconds, warm_up, how)


if __name__ == "__main__":
    run_in_slots(__doc__.splitlines()[0], solve, MAX_PASSES, MAX_PASSES)
