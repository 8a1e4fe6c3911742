"""GEORCE (F. M. Rygaard and S. Hauberg, "GEORCE: A Fast New Control Algorithm for Computing Geodesics", 2025) in JAX.

    python georce_peer.py --decoder F.safetensors --starts A.npy --ends B.npy --out DIR [--segments 32] [--device auto]

Written from the paper's equations, jitted, float32, batched over curves. Files, warm-up, slots and threads are those of
jax_peer.py; the warm-up makes a few passes per curve only. Status 2 is a line search that found nothing lower.

A curve is a sequence of controls, z_{t+1} = z_t + u_t for t = 0 ... N-1, with z_0 = a and z_N = b, and its discrete
energy takes the metric at the left end of each segment: E = sum_t u_t^T G(z_t) u_t. In each iteration

    nu_t  = d/dz (u_t^T G(z) u_t) at z_t                                       for t = 1 ... N-1
    mu    = (sum_t G_t^-1)^-1 (2 (a - b) - sum_t G_t^-1 sum_{j>t} nu_j)        the multiplier of the last step
    w_t   = -1/2 G_t^-1 (mu + sum_{j>t} nu_j)                                  new controls, which join a and b
    u    <- alpha w + (1 - alpha) u                                            alpha = 1, 1/2, 1/4 ... until E falls

alpha must give 1e-4 of the decrease that the slope promises (Armijo). By the second and third line the slope of E along
w - u is -2 sum_t (w_t - u_t)^T G_t (w_t - u_t), so every step goes down; a curve has converged where this slope is below
1e-6 E, the rule of the other peers. What is tuned: G_t comes from explicit forward-mode rows, nu_t = 2 S(J u) u from one
adjoint row, trial energies |J u|^2 from one forward-mode row, and inverses are formed with points in the SIMD lanes.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jax_peer import MAX_PASSES, PHI, TOLERANCE
from jax_peer import curvature, eliminate, in_slots, inner, linearise, run_in_slots, straight_lines

WARM_UP_PASSES = 8
ARMIJO, HALVINGS = 1e-4, 30


def push(layers, phis, z, u):
    """The tangents u at z pushed forward by the decoder: J u, [P, d], [P, d] -> [P, D]."""
    for (weight, bias), phi in zip(layers, phis):
        z, u = z @ weight + bias, u @ weight
        if phi:
            z, slope, _ = phi(z)
            u = u * slope
    return u


def controls(z, start, end):
    """Left ends and controls of the segments, [C, N, d] each, of curves with inner points z [..., C, N-1, d]."""
    left = jnp.concatenate([start[:, None], z], axis=1)
    return left, jnp.concatenate([z, end[:, None]], axis=1) - left


def energy_of(layers, phis, z, start, end):
    """sum_t u_t^T G(z_t) u_t: [C]."""
    left, u = controls(z, start, end)
    rows = push(layers, phis, left.reshape(-1, left.shape[-1]), u.reshape(-1, u.shape[-1]))
    return (rows.reshape(len(z), -1) ** 2).sum(1)


def one_pass(layers, phis, z, energy, start, end):
    """One iteration of C curves: the new inner points and energies, and each curve's verdict."""
    c, n, d = z.shape
    left, u = controls(z, start, end)
    _, tangents, tape = linearise(layers, phis, left.reshape(-1, d))
    tangents = jnp.broadcast_to(tangents, (c * (n + 1), *tangents.shape[1:]))
    metric = inner(tangents, tangents)
    flat = u.reshape(-1, d)
    s = curvature(layers, tape, jnp.einsum("pdk,pd->pk", tangents, flat))
    nu = 2 * jnp.einsum("pij,pj->pi", s, flat).reshape(c, n + 1, d)
    after = jnp.flip(jnp.cumsum(jnp.flip(nu[:, 1:], 1), axis=1), 1)
    after = jnp.concatenate([after, jnp.zeros_like(after[:, :1])], axis=1)  # sum_{j>t} nu_j

    # Inverses of G_t: systems lie along the last axis.
    unit = jnp.broadcast_to(jnp.eye(d)[:, :, None], (d, d, len(flat)))
    inverse = eliminate(jnp.concatenate([metric.transpose(1, 2, 0), unit], axis=1), d)
    inverse = inverse.transpose(2, 0, 1).reshape(c, n + 1, d, d)
    right = 2 * (start - end) - jnp.einsum("ctij,ctj->ci", inverse, after)
    mu = eliminate(jnp.concatenate([inverse.sum(1).transpose(1, 2, 0), right.T[:, None]], axis=1), d)[:, 0].T
    w = -0.5 * jnp.einsum("ctij,ctj->cti", inverse, mu[:, None] + after)

    delta = start[:, None] + jnp.cumsum(w[:, :-1], axis=1) - z
    change = jnp.einsum("pdk,pd->pk", tangents, (w - u).reshape(-1, d))
    slope = -2 * (change.reshape(c, -1) ** 2).sum(1)
    done = -slope < TOLERANCE * energy

    def search(state):
        alpha, found, tried, count = state
        wants = ~done & ~(tried <= energy + ARMIJO * alpha * slope)
        return wants.any() & (count < HALVINGS)

    def halve(state):
        alpha, found, tried, count = state
        alpha = jnp.where(~(tried <= energy + ARMIJO * alpha * slope), 0.5 * alpha, alpha)
        found = z + alpha[:, None, None] * delta
        return alpha, found, energy_of(layers, phis, found, start, end), count + 1

    alpha, found, tried, _ = lax.while_loop(
        search, halve, (jnp.ones(c), z + delta, energy_of(layers, phis, z + delta, start, end), 0)
    )
    better = ~done & (tried <= energy + ARMIJO * alpha * slope)
    verdict = jnp.where(done, 0, jnp.where(better, 255, 2))
    return jnp.where(better[:, None, None], found, z), jnp.where(better, tried, energy), verdict


@partial(jax.jit, static_argnames=("names", "segments", "slots"))
def solve(layers, starts, ends, names, segments, slots, limit):
    """Curves [C, N+1, d], status [C] and passes [C]."""
    phis = [PHI[name] for name in names]
    straight = straight_lines(starts, ends, segments)
    energies = energy_of(layers, phis, straight, starts, ends)

    def load(who):
        return straight[who], energies[who], starts[who], ends[who]

    def advance(slot):
        z, energy, verdict = one_pass(layers, phis, *slot)
        return (z, energy, *slot[2:]), verdict

    curves, status, passes = in_slots(len(starts), slots, load, advance, limit)
    return jnp.concatenate([starts[:, None], curves, ends[:, None]], axis=1), status, passes


if __name__ == "__main__":
    run_in_slots(__doc__.splitlines()[0], solve, MAX_PASSES, WARM_UP_PASSES)
