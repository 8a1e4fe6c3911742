"""The solver of pullback written in JAX the plain way: one curve as the formulas say it, vmap, jit, float32.

    python jax_plain_peer.py --decoder F.safetensors --starts A.npy --ends B.npy --out DIR [--segments 32] [--device auto]

Same algorithm and same files as jax_peer.py, where it is described. Here derivatives come from `jax.jacfwd` and
`jax.hessian`, all curves go through the loop together, finished ones frozen, until the last is done, and XLA decides
about threads. A first call, which compiles, is not part of `timings.solve_seconds`.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jax_peer import LENGTHS, LEVELS, MAX_PASSES, NEWTON_GAIN, TOLERANCE, read, write

PHI = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "identity": lambda h: h,
}


def decode(layers, names, z):
    """f(z): [d] -> [D]."""
    for (weight, bias), name in zip(layers, names):
        z = PHI[name](z @ weight + bias)
    return z


def chord_energy(f):
    """[N+1, D] -> the chord energy."""
    return 0.5 * (len(f) - 1) * jnp.sum(jnp.diff(f, axis=0) ** 2)


def tridiagonal(diagonal, upper, rhs):
    """A symmetric block-tridiagonal system, [n, d, d], [n, d, d] (the last unused), [n, d] -> [n, d]."""

    def down(carry, block):
        x, y, coupling = carry
        diagonal, upper, rhs = block
        right = jnp.concatenate([upper, (rhs - coupling.T @ y)[:, None]], axis=1)
        solved = jnp.linalg.solve(diagonal - coupling.T @ x, right)
        x, y = solved[:, :-1], solved[:, -1]
        return (x, y, upper), (x, y)

    def up(after, block):
        x, y = block
        here = y - x @ after
        return here, here

    zero = jnp.zeros_like(diagonal[0])
    _, (x, y) = lax.scan(down, (zero, zero[0], zero), (diagonal, upper, rhs))
    return lax.scan(up, zero[0], (x, y), reverse=True)[1]


def one_pass(f, start, end, z, energy, damping, newton):
    """One pass over the inner points z [n, d] of one curve: z, energy, damping, mode, and whether it has converged."""
    n, d = z.shape
    segments = n + 1

    def value(z):
        return jax.vmap(f)(jnp.concatenate([start[None], z, end[None]]))

    values = value(z)
    j = jax.vmap(jax.jacfwd(f))(z)  # [n, D, d]
    r = 2 * values[1:-1] - values[:-2] - values[2:]
    s = jax.vmap(lambda z, r: jax.hessian(lambda z: r @ f(z))(z))(z, r)
    gradient = segments * jnp.einsum("nkd,nk->nd", j, r)
    gram = 2 * segments * jnp.einsum("nki,nkj->nij", j, j)
    upper = -segments * jnp.einsum("nki,nkj->nij", j, jnp.roll(j, -1, axis=0))
    diagonal = gram + jnp.where(newton, segments * s, 0)
    scale = jnp.trace(gram, axis1=1, axis2=2).mean() / d

    def step(level):
        weight = level * scale * jnp.eye(d)
        return tridiagonal(diagonal + weight, upper - 0.5 * (1 - 1e-3) * weight, -gradient)

    levels = damping * jnp.array(LEVELS)
    steps = jax.vmap(step)(levels)
    slopes = jnp.sum(steps * gradient, axis=(1, 2))

    candidates = (z + jnp.array(LENGTHS)[:, None, None, None] * steps).reshape(-1, n, d)
    energies = jax.vmap(lambda z: chord_energy(value(z)))(candidates)
    energies = jnp.where((jnp.tile(slopes, len(LENGTHS)) < 0) & (energies < energy), energies, jnp.inf)
    winner = jnp.argmin(energies)
    lowest = energies[winner]
    better = lowest < energy
    return (
        jnp.where(better, candidates[winner], z),
        jnp.where(better, lowest, energy),
        jnp.clip(jnp.where(better, levels[winner % len(LEVELS)], 64 * damping), 1e-6, 1e12),
        better & (newton | (energy - lowest < NEWTON_GAIN * energy)),
        jnp.abs(slopes[0]) < TOLERANCE * energy,
    )


@partial(jax.jit, static_argnames=("names", "segments"))
def solve(layers, starts, ends, names, segments):
    """Curves [C, N+1, d], status [C] and passes [C]."""
    f = partial(decode, layers, names)
    t = jnp.linspace(0, 1, segments + 1)[:, None]
    straight = starts[:, None] * (1 - t) + ends[:, None] * t
    energy = jax.vmap(lambda curve: chord_energy(jax.vmap(f)(curve)))(straight)
    one, no = jnp.ones_like(energy), jnp.zeros_like(energy, bool)

    def body(state):
        curves, passes, count = state
        done = curves[-1]
        new = jax.vmap(partial(one_pass, f))(starts, ends, *curves[:-1])
        frozen = [jnp.where(done.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(curves, new)]
        return tuple(frozen), passes + ~done, count + 1

    def unfinished(state):
        return ~state[0][-1].all() & (state[2] < MAX_PASSES)

    curves, passes, _ = lax.while_loop(
        unfinished, body, ((straight[:, 1:-1], energy, one, no, no), jnp.zeros_like(energy, int), 0)
    )
    whole = jnp.concatenate([starts[:, None], curves[0], ends[:, None]], axis=1)
    return whole, jnp.where(curves[-1], 0, 1).astype(jnp.uint8), passes


def main():
    args, layers, names, starts, ends = read(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    run = partial(solve, layers, starts, ends, names, args.segments)
    begin = time.perf_counter()
    jax.block_until_ready(run())
    warm_up = time.perf_counter() - begin
    begin = time.perf_counter()
    results = jax.device_get(run())
    seconds = time.perf_counter() - begin
    write(args, layers, results, seconds, warm_up, "XLA's own threads, all curves at a time")


if __name__ == "__main__":
    main()
