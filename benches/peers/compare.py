"""pullback against the same algorithm in JAX, tuned and plain, GEORCE, stochman and PyTorch: same inputs, cores and judge.

    python compare.py [--pullback PATH] [--fixtures DIR] [--device DEVICE] [--json FILE] [NAME ...]

For each fixture the endpoint pairs are written once; every solver then runs in a process of its own on the same cores,
the solvers taking turns, and the medians of the repeats are reported. What a curve is worth is decided here, for all
solvers alike: its chord energy in float64. PyTorch computes metrics, which are held against float64 here as well. A solver
whose package is missing is skipped. Results go to stdout, progress to stderr.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from decoders import Decoder, pick_pairs, pick_points

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CLOSE = 1e-3  # relative energy above the lowest that still counts as the same answer
METRIC_ERROR = 1e-4  # relative, from which a float32 metric counts as worse
SPREAD = 1.3  # slowest over fastest repeat from which the machine must have been busy with something else


def commands(args):
    """What starts each solver of geodesics, and each of metrics; paths and segments follow for all of them."""

    def peer(name, *more):
        return [sys.executable, str(HERE / name), "--device", args.device, *more]

    pullback = [str(args.pullback.resolve())]
    ours = ["--quiet", "--device", args.device]
    if args.precision:
        ours += ["--precision", args.precision]
    threads, products = ["--threads", str(args.cores)], ["--precision", args.jax_precision]
    geodesics = {
        "pullback": [*pullback, "geodesics", *ours],
        "jax-tuned": peer("jax_peer.py", *threads, *products),
        "jax-plain": peer("jax_plain_peer.py", *products),
        "georce": peer("georce_peer.py", *threads, *products),
        "stochman": [sys.executable, str(HERE / "stochman_peer.py"), *threads],
    }
    metrics = {
        "pullback": [*pullback, "metric", "--compute", "metric", *ours],
        "torch-eager": peer("torch_peer.py", *threads),
        "torch-compile": peer("torch_peer.py", *threads, "--compile"),
    }
    return geodesics, metrics


def missing(solver):
    """The first package that a solver needs and this Python does not have."""
    kind = solver.partition("-")[0]
    needed = {"pullback": [], "georce": ["jax"], "stochman": ["stochman", "torch"]}.get(kind, [kind])
    return next((package for package in needed if importlib.util.find_spec(package) is None), None)


class Failed(Exception):
    """A peer that cannot run here: the others go on without it."""


def run(command, cores, folder, peer):
    """Runs a solver on `cores`: seconds of the whole process, and its run.json. Where pullback fails all ends."""
    threads = str(len(cores))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
    begin = time.perf_counter()
    result = subprocess.run(
        [*command, "--out", str(folder)], env=environment, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    seconds = time.perf_counter() - begin
    if result.returncode != 0:
        print(f"{' '.join(command)}\nfailed with exit code {result.returncode}:\n{result.stderr}", file=sys.stderr)
        if not peer:
            sys.exit(1)
        raise Failed(f"failed with exit code {result.returncode}: {(result.stderr.strip().splitlines() or [''])[-1]}")
    record = json.loads((folder / "run.json").read_text())
    if "unavailable" in record:
        raise Failed(record["unavailable"])
    return seconds, record


def read(folder, starts, ends, segments, solver):
    """Curves and status of one run; curves that do not join the pairs end the comparison."""
    curves, status = np.load(folder / "curves.npy"), np.load(folder / "status.npy")
    expected = (len(starts), segments + 1, starts.shape[1])
    if curves.shape != expected or status.shape != expected[:1]:
        sys.exit(f"{solver}: expected curves {expected} with one status each, found {curves.shape}, {status.shape}")
    fixed = np.isfinite(curves).all(axis=(1, 2))
    for found, wanted in ((curves[:, 0], starts), (curves[:, -1], ends)):
        if not np.allclose(found[fixed], wanted[fixed], rtol=1e-5, atol=1e-5):
            sys.exit(f"{solver}: its curves do not start and end at the given points")
    return curves, status


def describe(record):
    """Where and how a solver ran, from its run.json."""
    found = {key: record.get(key) for key in ("device", "device_name", "precision")}
    return {"device": "cpu", **{key: value for key, value in found.items() if value}, "settings": record.get("settings", "")}


def compare_geodesics(name, args, solvers, cores, scratch):
    """All solvers on one fixture's pairs: a dictionary that goes into the JSON as it is."""
    path = args.fixtures / f"{name}.safetensors"
    decoder = Decoder.open(path)
    starts, ends = pick_pairs(np.load(args.fixtures / f"{name}.latents.npy"), args.pairs)
    t = np.linspace(0, 1, args.segments + 1)[:, None]
    straight = decoder.chord_energy(starts[:, None].astype(np.float64) * (1 - t) + ends[:, None] * t)

    scratch.mkdir(parents=True)
    np.save(scratch / "starts.npy", starts)
    np.save(scratch / "ends.npy", ends)
    inputs = ["--decoder", str(path), "--starts", str(scratch / "starts.npy"), "--ends", str(scratch / "ends.npy")]
    inputs += ["--segments", str(args.segments)]

    results, energies, failed = {}, {}, {}
    for repeat in range(args.repeats):
        for solver, command in solvers.items():
            if solver in failed:
                continue
            print(f"{name}: {solver}, run {repeat + 1} of {args.repeats}", file=sys.stderr, flush=True)
            folder = scratch / f"{solver}-{repeat}"
            try:
                process, record = run([*command, *inputs], cores, folder, solver != "pullback")
            except Failed as reason:
                failed[solver] = str(reason)
                continue
            curves, status = read(folder, starts, ends, args.segments, solver)
            energy = decoder.chord_energy(curves)
            energies[solver] = np.where(np.isfinite(energy), energy, np.inf)
            result = results.setdefault(solver, {"solve_seconds": [], "process_seconds": [], "mean_energies": []})
            result["solve_seconds"].append(record["timings"]["solve_seconds"])
            result["process_seconds"].append(process)
            result["mean_energies"].append(float(energies[solver].mean()))
            result["converged"] = float((status == 0).mean())
            result.update(describe(record))

    results = {solver: result for solver, result in results.items() if solver not in failed}
    energies = {solver: energies[solver] for solver in results}
    if not results:
        sys.exit(f"{name}: no solver succeeded")
    lowest = np.min(list(energies.values()), axis=0)
    best = min(energy.mean() for energy in energies.values())  # infinite where any curve is not finite
    for solver, result in results.items():
        energy = energies[solver]
        result["curves_per_second"] = args.pairs / median(result["solve_seconds"])
        result["mean_energy"] = float(energy.mean())
        result["above_best_mean"] = float(energy.mean() / best - 1) if np.isfinite(best) else float("inf")
        result["close_to_lowest"] = float((np.isfinite(energy) & (energy <= lowest * (1 + CLOSE))).mean())
        result["non_finite"] = int(np.isinf(energy).sum())
    return {
        "pairs": args.pairs,
        "segments": args.segments,
        "straight_energy": float(straight.mean()),
        "solvers": results,
        "failed": failed,
    }


def compare_metrics(name, args, solvers, cores, scratch):
    """All solvers on one fixture's points, likewise."""
    path = args.fixtures / f"{name}.safetensors"
    points = pick_points(np.load(args.fixtures / f"{name}.latents.npy"), args.points)
    scratch.mkdir(parents=True)
    np.save(scratch / "points.npy", points)
    inputs = ["--decoder", str(path), "--points", str(scratch / "points.npy")]

    parts = np.array_split(points, max(1, len(points) // 4096))
    truth = np.concatenate([Decoder.open(path).metric(part) for part in parts])
    norms = np.linalg.norm(truth, axis=(1, 2))
    results, failed = {}, {}
    for repeat in range(args.repeats):
        for solver, command in solvers.items():
            if solver in failed:
                continue
            print(f"{name}: metric, {solver}, run {repeat + 1} of {args.repeats}", file=sys.stderr, flush=True)
            folder = scratch / f"{solver}-{repeat}"
            try:
                process, record = run([*command, *inputs], cores, folder, solver != "pullback")
            except Failed as reason:
                failed[solver] = str(reason)
                continue
            metric = np.load(folder / "metric.npy")
            if metric.shape != truth.shape:
                sys.exit(f"{solver}: expected metrics {truth.shape}, found {metric.shape}")
            error = float((np.linalg.norm(metric - truth, axis=(1, 2)) / norms).max())
            result = results.setdefault(solver, {"compute_seconds": [], "process_seconds": []})
            result["compute_seconds"].append(record["timings"]["compute_seconds"])
            result["process_seconds"].append(process)
            result["worst_error"] = error if np.isfinite(error) else float("inf")
            result.update(describe(record))
    results = {solver: result for solver, result in results.items() if solver not in failed}
    for result in results.values():
        result["points_per_second"] = args.points / median(result["compute_seconds"])
    return {"points": args.points, "solvers": results, "failed": failed}


def ratio(solver, solvers, rate):
    """How many times as fast pullback is."""
    if "pullback" not in solvers or solver == "pullback":
        return ""
    return f"{solvers['pullback'][rate] / solvers[solver][rate]:.2f}x"


def report_devices(solvers):
    """One line per device, where there is any but the processor."""
    found = {}
    for solver, result in solvers.items():
        name = " ".join(dict.fromkeys([result["device"], result.get("device_name", "")])).strip()
        found.setdefault(name, []).append(solver)
    if list(found) != ["cpu"]:
        print("\n".join(f"On {device}: {', '.join(names)}." for device, names in found.items()))
    if len({result["device"].partition(":")[0] for result in solvers.values()}) > 1:
        print("DIFFERENT DEVICES: these solvers did not all run on the same one.")


def report_failed(fixture):
    for solver, reason in fixture["failed"].items():
        print(f"{solver}: not available here: {reason}")


def report_spread(solver, seconds):
    if max(seconds) > SPREAD * min(seconds):
        print(f"UNSTEADY: {solver} took from {min(seconds):.3f} to {max(seconds):.3f} s;", end=" ")
        print("use a machine with nothing else to do.")


def report_metrics(name, fixture):
    solvers = fixture["solvers"]
    print(f"\n{name}: metric at {fixture['points']} points\n")
    print(f"{'solver':<14}{'points/s':>13}{'pullback is':>13}{'worst error':>13}{'compute s':>11}{'process s':>11}")
    for solver, result in solvers.items():
        print(
            f"{solver:<14}{result['points_per_second']:>13.0f}{ratio(solver, solvers, 'points_per_second'):>13}"
            f"{result['worst_error']:>13.1e}{median(result['compute_seconds']):>11.4f}"
            f"{median(result['process_seconds']):>11.2f}"
        )
    report_failed(fixture)
    for solver, result in solvers.items():
        report_spread(solver, result["compute_seconds"])
        if not result["worst_error"] <= METRIC_ERROR:
            print(f"WORSE ANSWER: a metric of {solver} is off by more than {METRIC_ERROR:.0e}.")
    report_devices(solvers)


def report_geodesics(name, fixture):
    solvers = fixture["solvers"]
    print(f"\n{name}: {fixture['pairs']} pairs, {fixture['segments']} segments, ", end="")
    print(f"mean energy of straight lines {fixture['straight_energy']:.5f}\n")
    print(f"{'solver':<10}{'curves/s':>11}{'pullback is':>13}{'mean energy':>13}{'above best':>12}", end="")
    print(f"{'within 0.1 %':>14}{'converged':>11}{'solve s':>10}{'process s':>11}")
    for solver, result in solvers.items():
        print(
            f"{solver:<10}{result['curves_per_second']:>11.1f}{ratio(solver, solvers, 'curves_per_second'):>13}"
            f"{result['mean_energy']:>13.5f}{result['above_best_mean']:>12.3%}{result['close_to_lowest']:>14.1%}"
            f"{result['converged']:>11.1%}{median(result['solve_seconds']):>10.3f}{median(result['process_seconds']):>11.2f}"
        )
    report_failed(fixture)
    for solver, result in solvers.items():
        report_spread(solver, result["solve_seconds"])
        if result["non_finite"]:
            print(f"WORSE ANSWER: {result['non_finite']} curves of {solver} are not finite.")
        elif result["above_best_mean"] > CLOSE:
            print(f"WORSE ANSWER: the mean energy of {solver} is {result['above_best_mean']:.2%} above the best solver's;")
            print(f"{'':14}its curves per second buy less than the others'.")
    report_devices(solvers)


def cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def gpus():
    """Names and drivers of the NVIDIA GPUs, as nvidia-smi tells them."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True)
    return answer.stdout.strip().splitlines() if answer.returncode == 0 else []


def versions(args, solvers):
    found = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "numpy", "torch", "stochman"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    if "pullback" in solvers:
        answer = subprocess.run([args.pullback.resolve(), "--version"], capture_output=True, text=True)
        found["pullback"] = answer.stdout.strip() or None
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=["digits-d2-tanh", "digits-d8-softplus"])
    parser.add_argument("--pullback", type=Path, default=ROOT / "target/release/pullback")
    parser.add_argument("--fixtures", type=Path, default=ROOT / "fixtures")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--solvers", help="leave some out; the default is all of them, separated by commas")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N, or auto: a GPU where a solver finds one")
    parser.add_argument("--precision", help="of pullback's products on a GPU; its own default otherwise")
    parser.add_argument("--jax-precision", default="highest", help="of JAX's products on a GPU, as JAX names them")
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--segments", type=int, default=32)
    parser.add_argument("--points", type=int, default=65536, help="of the metric")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="cores, and threads of every solver")
    args = parser.parse_args()

    geodesics, metrics = commands(args)
    known = list(dict.fromkeys([*geodesics, *metrics]))
    wanted = args.solvers.split(",") if args.solvers else known
    if unknown := [solver for solver in wanted if solver not in known]:
        parser.error(f"unknown solver {unknown[0]!r}; known: {', '.join(known)}")
    if "pullback" in wanted and not args.pullback.is_file():
        parser.error(f"{args.pullback} is missing: cargo build --release, or --solvers with the peers alone")
    for name in args.names:
        if not (args.fixtures / f"{name}.safetensors").is_file():
            parser.error(f"{args.fixtures / name}.safetensors is missing: see --fixtures")
    skipped = {solver: package for solver in wanted if (package := missing(solver))}
    for solver, package in skipped.items():
        print(f"{solver}: skipped, as the package {package} is missing")
    solvers = [solver for solver in wanted if solver not in skipped]
    geodesics, metrics = ({name: table[name] for name in solvers if name in table} for table in (geodesics, metrics))
    if not set(metrics) & set(solvers) - {"pullback"}:
        metrics = {}  # nothing to hold pullback against
    elif set(wanted) <= {"pullback", "torch-eager", "torch-compile"}:
        geodesics = {}
    if not geodesics and not metrics:
        sys.exit("no solver is left")
    cores = sorted(os.sched_getaffinity(0))[: args.cores]

    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        curves, points = {}, {}
        for name in args.names:
            if geodesics:
                curves[name] = compare_geodesics(name, args, geodesics, cores, scratch / name / "geodesics")
            if metrics:
                points[name] = compare_metrics(name, args, metrics, cores, scratch / name / "metric")
    machine = {"cpu": cpu_model(), "cores_online": os.cpu_count(), "cores_used": len(cores), "load": os.getloadavg()}
    machine["gpus"] = gpus()
    print(f"{machine['cpu']}, {machine['cores_used']} of {machine['cores_online']} cores, median of {args.repeats} runs")
    for gpu in machine["gpus"]:
        print(f"GPU, driver: {gpu}")
    for name in args.names:
        if name in curves:
            report_geodesics(name, curves[name])
        if name in points:
            report_metrics(name, points[name])
    if args.json:
        date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        options = ("device", "precision", "jax_precision", "pairs", "segments", "points", "repeats", "cores")
        everything = {
            "date": date,
            "machine": machine,
            "versions": versions(args, solvers),
            "options": {option: getattr(args, option) for option in options},
            "skipped": {solver: f"the package {package} is missing" for solver, package in skipped.items()},
            "fixtures": curves,
            "metrics": points,
        }
        strict = json.loads(json.dumps(everything), parse_constant=lambda _: None)  # JSON has no infinity
        args.json.write_text(json.dumps(strict, indent=2) + "\n")


if __name__ == "__main__":
    main()
