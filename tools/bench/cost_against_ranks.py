#!/usr/bin/python3
"""Runs shardsim folded and unfolded over rank counts and draws time and memory against ranks.

    tools/bench/cost_against_ranks.py -o cost.svg [--csv cost.csv]

Time is the processor time of the whole command, compiling included, the least of a few runs; memory is its peak.
Each series stops where one run takes longer than --seconds. Needs Debian's python3-matplotlib.
"""
import argparse
import csv
import importlib.util
import math
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def cost(program, args, limit):
    """Seconds and MiB of one run, or None if it takes longer than the limit."""
    child = subprocess.Popen(["timeout", str(limit), program, *args], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode == 124:
        return None
    if child.returncode != 0:
        sys.exit(f"{' '.join(args)}: exit code {child.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(options):
    rows = []
    for series, extra in (("folded", []), ("unfolded", ["--no-fold"])):
        ranks = 8
        while ranks <= options.up_to:
            args = ["run", "--model", options.model, "--topology", options.topology, "--gpus", str(ranks),
                    "--micro-batch", str(options.micro_batch), "--checkpointing", "full", "--no-advice", *extra]
            runs = [cost(options.program, args, options.seconds) for _ in range(options.runs)]
            if None in runs:
                print(f"{series:9} {ranks:8} ranks: over {options.seconds:g} s, left out", file=sys.stderr)
                break
            rows.append((series, ranks, min(s for s, _ in runs), max(m for _, m in runs)))
            print("{:9} {:8} ranks {:9.3f} s {:9.1f} MiB".format(*rows[-1]), file=sys.stderr)
            if rows[-1][2] > options.seconds / options.step:
                break
            ranks *= options.step
    return rows


def draw(rows, options):
    # Not before measuring: a child's peak memory is at least what this process held when it began.
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "shardsim"  # with no date: the same figures, the same bytes
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), constrained_layout=True)
    for axis, column, title in ((axes[0], 2, "Processor time, s"), (axes[1], 3, "Peak memory, MiB")):
        for series, marker in (("folded", "o"), ("unfolded", "s")):
            points = [(row[1], row[column]) for row in rows if row[0] == series]
            axis.loglog(*zip(*points), marker=marker, label=series, base=10)
        axis.set_title(title, loc="left")
        axis.set_xlabel("simulated GPUs")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))
        low, high = (f(math.log10(v)) for f, v in zip((math.floor, math.ceil), axis.dataLim.intervaly))
        axis.set_ylim(10**low, 10**high)  # whole decades, so that each axis has labels
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(True, which="major", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.suptitle(f"What one step of {options.model} costs to simulate", x=0.01, ha="left")
    date = {"Date": None} if options.output.endswith(".svg") else None
    figure.savefig(options.output, metadata=date)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("-o", "--output", required=True, help="the picture: .svg, .png or .pdf")
parser.add_argument("--csv", help="also write the figures, or with --draw-only read them")
parser.add_argument("--draw-only", action="store_true", help="draw the figures of --csv, run nothing")
parser.add_argument("--program", default=str(ROOT / "build/release/bin/shardsim"))
parser.add_argument("--model", default="t5-11b")
parser.add_argument("--topology", default="a100-80gb-roce-2000")
parser.add_argument("--micro-batch", type=int, default=8)
parser.add_argument("--up-to", type=int, default=131072, help="ranks")
parser.add_argument("--step", type=int, default=4, help="from one number of ranks to the next")
parser.add_argument("--runs", type=int, default=3)
parser.add_argument("--seconds", type=float, default=60, help="that one run may take")
options = parser.parse_args()
if not importlib.util.find_spec("matplotlib"):
    sys.exit("this script draws with matplotlib: apt-get install python3-matplotlib")

if options.draw_only:
    with open(options.csv, newline="") as file:
        figures = [(r["series"], int(r["ranks"]), float(r["cpu_s"]), float(r["peak_mib"]))
                   for r in csv.DictReader(file)]
else:
    figures = measure(options)
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(("series", "ranks", "cpu_s", "peak_mib"))
            out.writerows(figures)
draw(figures, options)
