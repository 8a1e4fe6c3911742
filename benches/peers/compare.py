"""pullback against the same algorithm in JAX, tuned and plain, and against stochman: same pairs, cores and energy.

    python compare.py [--pullback PATH] [--fixtures DIR] [--json FILE] [NAME ...]

For each fixture the endpoint pairs are written once; every solver then runs in a process of its own on the same cores,
the solvers taking turns, and the medians of the repeats are reported. What a curve is worth is decided here, for all
solvers alike: its chord energy in float64. Results go to stdout, progress to stderr.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from decoders import Decoder, pick_pairs

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CLOSE = 1e-3  # relative energy above the lowest that still counts as the same answer
SPREAD = 1.3  # slowest over fastest repeat from which the machine must have been busy with something else


def commands(pullback):
    """What starts each solver; --decoder, --starts, --ends, --segments and --out follow for all of them."""
    peer = lambda name: ([sys.executable, str(HERE / name)], [])
    return {
        "pullback": ([str(pullback), "geodesics"], ["--quiet"]),
        "jax-tuned": peer("jax_peer.py"),
        "jax-plain": peer("jax_plain_peer.py"),
        "stochman": peer("stochman_peer.py"),
    }


def run(command, cores):
    """Runs a solver on `cores`: seconds of the whole process. Ends the comparison where it fails."""
    threads = str(len(cores))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
    begin = time.perf_counter()
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    seconds = time.perf_counter() - begin
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}\nfailed with exit code {result.returncode}:\n{result.stderr}")
    return seconds


def read(folder, starts, ends, segments, solver):
    """Curves, status and run.json of one run; curves that do not join the pairs end the comparison."""
    curves, status = np.load(folder / "curves.npy"), np.load(folder / "status.npy")
    expected = (len(starts), segments + 1, starts.shape[1])
    if curves.shape != expected or status.shape != expected[:1]:
        sys.exit(f"{solver}: expected curves {expected} with one status each, found {curves.shape}, {status.shape}")
    fixed = np.isfinite(curves).all(axis=(1, 2))
    for found, wanted in ((curves[:, 0], starts), (curves[:, -1], ends)):
        if not np.allclose(found[fixed], wanted[fixed], rtol=1e-5, atol=1e-5):
            sys.exit(f"{solver}: its curves do not start and end at the given points")
    return curves, status, json.loads((folder / "run.json").read_text())


def compare(name, args, solvers, cores, scratch):
    """All solvers on one fixture: a dictionary that goes into the JSON as it is."""
    path = args.fixtures / f"{name}.safetensors"
    decoder = Decoder.open(path)
    starts, ends = pick_pairs(np.load(args.fixtures / f"{name}.latents.npy"), args.pairs)
    t = np.linspace(0, 1, args.segments + 1)[:, None]
    straight = decoder.chord_energy(starts[:, None].astype(np.float64) * (1 - t) + ends[:, None] * t)

    scratch.mkdir()
    np.save(scratch / "starts.npy", starts)
    np.save(scratch / "ends.npy", ends)
    inputs = ["--decoder", str(path), "--starts", str(scratch / "starts.npy"), "--ends", str(scratch / "ends.npy")]
    inputs += ["--segments", str(args.segments)]

    results, energies = {}, {}
    for repeat in range(args.repeats):
        for solver, (before, after) in solvers.items():
            print(f"{name}: {solver}, run {repeat + 1} of {args.repeats}", file=sys.stderr, flush=True)
            folder = scratch / f"{solver}-{repeat}"
            process = run([*before, *inputs, "--out", str(folder), *after], cores)
            curves, status, record = read(folder, starts, ends, args.segments, solver)
            energy = decoder.chord_energy(curves)
            energies[solver] = np.where(np.isfinite(energy), energy, np.inf)
            result = results.setdefault(solver, {"solve_seconds": [], "process_seconds": [], "mean_energies": []})
            result["solve_seconds"].append(record["timings"]["solve_seconds"])
            result["process_seconds"].append(process)
            result["mean_energies"].append(float(energies[solver].mean()))
            result["converged"] = float((status == 0).mean())
            result["settings"] = record.get("settings", "")

    lowest = np.min(list(energies.values()), axis=0)
    best = min(energy.mean() for energy in energies.values())  # infinite where any curve is not finite
    for solver, result in results.items():
        energy = energies[solver]
        result["curves_per_second"] = args.pairs / median(result["solve_seconds"])
        result["mean_energy"] = float(energy.mean())
        result["above_best_mean"] = float(energy.mean() / best - 1) if np.isfinite(best) else float("inf")
        result["close_to_lowest"] = float((np.isfinite(energy) & (energy <= lowest * (1 + CLOSE))).mean())
        result["non_finite"] = int(np.isinf(energy).sum())
    return {"pairs": args.pairs, "segments": args.segments, "straight_energy": float(straight.mean()), "solvers": results}


def report(name, fixture):
    solvers = fixture["solvers"]
    print(f"\n{name}: {fixture['pairs']} pairs, {fixture['segments']} segments, ", end="")
    print(f"mean energy of straight lines {fixture['straight_energy']:.5f}\n")
    print(f"{'solver':<10}{'curves/s':>11}{'pullback is':>13}{'mean energy':>13}{'above best':>12}", end="")
    print(f"{'within 0.1 %':>14}{'converged':>11}{'solve s':>10}{'process s':>11}")
    for solver, result in solvers.items():
        ratio = ""
        if "pullback" in solvers and solver != "pullback":
            ratio = f"{solvers['pullback']['curves_per_second'] / result['curves_per_second']:.2f}x"
        print(
            f"{solver:<10}{result['curves_per_second']:>11.1f}{ratio:>13}{result['mean_energy']:>13.5f}"
            f"{result['above_best_mean']:>12.3%}{result['close_to_lowest']:>14.1%}{result['converged']:>11.1%}"
            f"{median(result['solve_seconds']):>10.3f}{median(result['process_seconds']):>11.2f}"
        )
    for solver, result in solvers.items():
        seconds = result["solve_seconds"]
        if max(seconds) > SPREAD * min(seconds):
            print(f"UNSTEADY: {solver} took from {min(seconds):.3f} to {max(seconds):.3f} s; use a machine with nothing else to do.")
        if result["non_finite"]:
            print(f"WORSE ANSWER: {result['non_finite']} curves of {solver} are not finite.")
        elif result["above_best_mean"] > CLOSE:
            print(f"WORSE ANSWER: the mean energy of {solver} is {result['above_best_mean']:.2%} above the best solver's;")
            print(f"{'':14}its curves per second buy less than the others'.")


def cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions(solvers):
    found = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "numpy", "torch", "stochman"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    if "pullback" in solvers:
        answer = subprocess.run([solvers["pullback"][0][0], "--version"], capture_output=True, text=True)
        found["pullback"] = answer.stdout.strip() or None
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=["digits-d2-tanh", "digits-d8-softplus"])
    parser.add_argument("--pullback", type=Path, default=ROOT / "target/release/pullback")
    parser.add_argument("--fixtures", type=Path, default=ROOT / "fixtures")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--solvers", default="pullback,jax-tuned,jax-plain,stochman", help="leave some out")
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--segments", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    known = commands(args.pullback.resolve())
    wanted = args.solvers.split(",")
    if unknown := [solver for solver in wanted if solver not in known]:
        parser.error(f"unknown solver {unknown[0]!r}; known: {', '.join(known)}")
    if "pullback" in wanted and not args.pullback.is_file():
        parser.error(f"{args.pullback} is missing: cargo build --release, or --solvers jax-tuned,jax-plain,stochman")
    for name in args.names:
        if not (args.fixtures / f"{name}.safetensors").is_file():
            parser.error(f"{args.fixtures / name}.safetensors is missing: see --fixtures")
    solvers = {solver: known[solver] for solver in wanted}
    cores = sorted(os.sched_getaffinity(0))[:2]  # the peers run two threads

    with tempfile.TemporaryDirectory() as scratch:
        fixtures = {name: compare(name, args, solvers, cores, Path(scratch) / name) for name in args.names}
    machine = {"cpu": cpu_model(), "cores_online": os.cpu_count(), "cores_used": len(cores), "load": os.getloadavg()}
    print(f"{machine['cpu']}, {machine['cores_used']} of {machine['cores_online']} cores, median of {args.repeats} runs")
    for name, fixture in fixtures.items():
        report(name, fixture)
    if args.json:
        date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        everything = {"date": date, "machine": machine, "versions": versions(solvers), "fixtures": fixtures}
        strict = json.loads(json.dumps(everything), parse_constant=lambda _: None)  # JSON has no infinity
        args.json.write_text(json.dumps(strict, indent=2) + "\n")


if __name__ == "__main__":
    main()
