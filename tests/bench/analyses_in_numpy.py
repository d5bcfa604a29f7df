"""The analyses of analysis_bench once more, in vectorised numpy on the same trace: what the C++ saves.

Not a test. Usage: analyses_in_numpy.py TRACE.moetrace.h5 [switchyard]. Wall and processor seconds of each, this process
alone, then `switchyard analyze` of the same names; the numbers of both are compared where both give them.
"""
import json
import subprocess
import sys
import time

import h5py
import numpy


def main():
    path = sys.argv[1]
    with h5py.File(path) as file:
        ids = file["/routing/expert_id"][:].astype(numpy.int64)
        experts = int(file.attrs["E"])
        offsets = file["/sequences/offset"][:]
    layers, tokens, k = ids.shape
    starts = numpy.zeros(tokens, bool)
    starts[offsets[:-1]] = True
    found = {}

    def load():
        found["load"] = [numpy.bincount(ids[row].ravel(), minlength=experts).tolist() for row in range(layers)]

    def coactivation():
        for row in range(layers):
            chosen = numpy.zeros((tokens, experts), numpy.float32)
            numpy.put_along_axis(chosen, ids[row], 1, 1)
            chosen.T @ chosen

    def affinity():
        for row in range(layers - 1):
            numpy.bincount(ids[row, :, 0] * experts + ids[row + 1, :, 0], minlength=experts * experts)
            for i in range(k):
                for j in range(k):
                    numpy.bincount(ids[row, :, i] * experts + ids[row + 1, :, j], minlength=experts * experts)

    def repetition():
        inside = ~starts[1:]
        overlaps = []
        for row in range(layers):
            shared = (ids[row, 1:, :, None] == ids[row, :-1, None, :]).any(2)
            overlaps.append(float(shared.sum(1)[inside].mean() / k))
        found["repetition"] = overlaps

    def srp(window):
        best = []
        for row in range(layers):
            chosen = numpy.zeros((tokens, experts), numpy.int16)
            numpy.put_along_axis(chosen, ids[row], 1, 1)
            sums = numpy.cumsum(numpy.concatenate([numpy.zeros((1, experts), numpy.int32), chosen]), 0, dtype=numpy.int32)
            counts = sums[window:] - sums[:-window]
            last = numpy.searchsorted(offsets, numpy.arange(tokens - window + 1), "right")
            whole = numpy.arange(tokens - window + 1) + window <= offsets[last]
            histogram = numpy.bincount(counts[whole].ravel(), minlength=window + 1).astype(float)
            levels = numpy.arange(window + 1)
            hits, windows = numpy.cumsum((histogram * levels)[::-1])[::-1], numpy.cumsum(histogram[::-1])[::-1]
            best.append(float((2 * hits / (window * windows + hits[0])).max()))
        found[f"srp {window}"] = best

    total = 0
    for name, work in [("load", load), ("coactivation", coactivation), ("affinity", affinity), ("repetition", repetition)] + [
            (f"srp {m}", lambda m=m: srp(m)) for m in (4, 16, 64, 256)]:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        total += time.process_time() - cpu
        print(f"numpy {name:14s} {time.perf_counter() - wall:8.2f} s wall {time.process_time() - cpu:8.2f} s cpu", flush=True)
    print(f"numpy together {total:.2f} s cpu")
    if len(sys.argv) < 3:
        return
    for name, options in [("load", []), ("coactivation", []), ("affinity", []), ("repetition", []), ("srp", ["--windows", "4,16,64,256", "--resamples", "0"])]:
        wall = time.perf_counter()
        document = json.loads(subprocess.run([sys.argv[2], "analyze", path, name, "--json", *options], check=True, capture_output=True).stdout)
        print(f"switchyard {name:14s} {time.perf_counter() - wall:8.2f} s wall, with opening and checking the file")
        if name == "load":
            assert [one["counts"] for one in document["layers"]] == found["load"]
        if name == "repetition":
            numpy.testing.assert_allclose([one["mean_overlap"] for one in document["layers"]], found["repetition"], rtol=1e-12)
        for one in document.get("windows", []):
            numpy.testing.assert_allclose([row["srp"] for row in one["layers"]], found[f"srp {one['m']}"], rtol=1e-12)
    print("the numbers of both agree")


if __name__ == "__main__":
    main()
