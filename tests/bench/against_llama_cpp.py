"""The cpu backend beside llama.cpp: BF16 against BF16, the same tensors, ids and threads, in turn in one process.

usage: against_llama_cpp.py WORK [--rounds 8] [--new-tokens 48] [--threads 2] [--layers 4] [--prompts 128 512]
                                 [--archive llama_cpp_python-0.3.36.tar.gz] [--json]

By hand, with a Python that has numpy and gguf; no test needs it. In the folder WORK it unpacks and builds llama.cpp
(GGML_NATIVE=ON) from the archive that packaging/setup.sh fetched, builds against_llama_cpp with it, makes a random
checkpoint of OLMoE's shape, and prints a Markdown table, or JSON: medians with quartiles, the median of the paired
ratios with a bootstrap 95 % interval, and the share of what the machine can read. llama.cpp's OpenMP threads sleep
while they wait, the better setting for them where two engines share the cores. A report taken while other programs
used more than 3 % of the machine is marked noisy: no claim from it.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/bench"
CACHE = pathlib.Path(os.environ.get("SWITCHYARD_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "switchyard")
NOISE = 0.03


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--prompts", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--archive", type=pathlib.Path, default=CACHE / "downloads/llama_cpp_python-0.3.36.tar.gz")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr, **options)


def llama(work, archive):
    source = work / "llama.cpp"
    if not source.exists():
        with tarfile.open(archive) as tar:
            inside = "/vendor/llama.cpp/"
            for member in tar:
                if inside in member.name:
                    member.name = member.name.split(inside, 1)[1]
                    tar.extract(member, source)
    build = source / "build"
    if not (build / "bin/libllama.so").exists():
        off = [f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "TOOLS", "SERVER", "COMMON")]
        run("cmake", "-S", source, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", *off)
        run("ninja", "-C", build, "llama")
    return source


def interval(ratios, draws=4000):
    """Bootstrap over rounds of the median ratio; seeded."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]


def quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive")


def table(result):
    yield f"{result['machine']['processor']}, {result['threads']} threads, {result['machine']['kernel']}; other load {100 * result['other_load']:.1f} %" + (": NOISY" if result["noisy"] else "")
    yield f"switchyard: {result['switchyard']}; llama.cpp: {' '.join(result['llama.cpp'].split())}"
    yield f"read ceiling {result['read_gb_per_s']:.1f} GB/s; a token reads {result['bytes_per_token'] / 1e6:.0f} MB; logits apart by at most {result['agreement']['largest_difference']:.2g} of {result['agreement']['rms_logit']:.2g} (rms)"
    yield ""
    yield "| | switchyard, tokens/s (quartiles) | llama.cpp | paired ratio, 95 % interval |"
    yield "|---|---|---|---|"
    for what, row in result["table"].items():
        ours, theirs = (f"{row[name]['median']:.1f} ({row[name]['quartiles'][0]:.1f}-{row[name]['quartiles'][2]:.1f})" for name in ("switchyard", "llama.cpp"))
        yield f"| {what} | {ours} | {theirs} | {row['ratio']:.2f}, {row['interval'][0]:.2f}-{row['interval'][1]:.2f} |"
    yield ""
    yield f"decode: {100 * result['share_of_ceiling']:.0f} % of the read ceiling, llama.cpp {100 * result['their_share_of_ceiling']:.0f} %"


def main():
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    source = llama(args.work, args.archive)
    run("cmake", "--preset", "dev", f"-DSWITCHYARD_LLAMA_CPP={source}", cwd=ROOT)
    run("ninja", "-C", ROOT / "build/dev", "against_llama_cpp")
    model = args.work / f"olmoe-{args.layers}"
    if not (model / "model-bf16.gguf").exists():
        run(sys.executable, HERE / "make_olmoe.py", model, "--layers", args.layers)
    out = subprocess.run(
        [ROOT / "build/dev/bin/against_llama_cpp", model, *map(str, (args.rounds, args.new_tokens, args.threads)), *map(str, args.prompts)],
        check=True, capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}).stdout
    result = json.loads(out)
    result["noisy"] = result["other_load"] > NOISE
    result["table"] = {}
    for what, speeds in result["speeds"].items():
        ratios = [a / b for a, b in zip(speeds["switchyard"], speeds["llama.cpp"])]
        result["table"][what] = {name: {"median": statistics.median(v), "quartiles": quartiles(v)} for name, v in speeds.items()}
        result["table"][what].update(ratio=statistics.median(ratios), interval=interval(ratios))
    ceiling = result["read_gb_per_s"] * 1e9
    for key, name in (("share_of_ceiling", "switchyard"), ("their_share_of_ceiling", "llama.cpp")):
        result[key] = result["bytes_per_token"] * result["table"]["decode"][name]["median"] / ceiling
    print(json.dumps(result, indent=1) if args.json else "\n".join(table(result)))


main()
