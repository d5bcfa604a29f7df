"""Exported checkpoints against transformers: the folder that `switchyard export` writes must give, in transformers, the
logits that `switchyard run` gives on the original under the same edits (largest difference 2e-4).

usage: check_transformers.py --switchyard PROGRAM --source SOURCE_ROOT [--only NAME ...]
Exit 77 (skipped) where no python with transformers is found: this one, or that of SWITCHYARD_PYTHON.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
except ImportError as missing:
    other = os.environ.get("SWITCHYARD_PYTHON")
    if other and os.path.abspath(other) != os.path.abspath(sys.executable):  # a venv's python is a link to another
        os.execv(other, [other, *sys.argv])
    print(f"skipped: {missing}. Set SWITCHYARD_PYTHON to a python that has transformers and torch.")
    sys.exit(77)

LARGEST = 2e-4
TOKENS = [3, 17, 5, 44, 9, 31, 2, 60, 12, 7, 28, 51]

MOVES = [
    {"kind": "swap", "layer": "all", "experts": [1, 4]},
    {"kind": "merge", "layer": "all", "experts": [0, 3], "weights": [3, 1]},
    {"kind": "unmute", "layer": "all", "expert": 3},
    {"kind": "clone", "layer": "all", "experts": [2, 5]},
    {"kind": "neuron_mask", "layer": "all", "expert": [1, 2, 5], "neurons": [0, 2, 5]},
    {"kind": "expert_scale", "layer": "all", "expert": 4, "value": 2},
]
ROWS = [
    {"kind": "router_row", "layer": "all", "expert": 5, "rotate_towards": 3, "angle": 40},
    {"kind": "router_row", "layer": "all", "expert": 4, "copy_from": 1},
    {"kind": "router_row", "layer": "all", "expert": [2, 4], "scale": 0.5},  # and no tie between 4 and 1
    {"kind": "temperature", "layer": "all", "value": 2},
]
PRUNED = [
    {"kind": "mute", "layer": "all", "expert": [1, 4]},
    {"kind": "swap", "layer": "all", "experts": [1, 2]},
    {"kind": "merge", "layer": "all", "experts": [3, 0, 5]},
]
TOP_1 = [{"kind": "top_k", "layer": "all", "k": 1}]
CASES = {
    "demo": [MOVES + ROWS, PRUNED + TOP_1],
    "mixtral": [MOVES + ROWS, PRUNED, [{"kind": "top_k", "layer": "all", "k": 5}, {"kind": "mute", "layer": "all", "expert": [0, 2, 4, 6]}]],
    "mixtral_sharded": [PRUNED + ROWS[:1]],
    "qwen3_moe": [MOVES + ROWS, PRUNED],
    "qwen2_moe": [MOVES + ROWS, PRUNED],
    "olmoe": [MOVES + ROWS, PRUNED + TOP_1],
    "olmoe_bf16": [MOVES + ROWS, PRUNED],
    "deepseek_v2": [MOVES + ROWS],
    "deepseek_v3": [MOVES + ROWS + [{"kind": "select_bias", "layer": "all", "expert": [0, 5], "value": 0.5}]],
    "deepseek_v3_plain": [PRUNED + ROWS[:1]],
    "glm4_moe": [MOVES + ROWS, PRUNED],
    "gpt_oss": [MOVES + ROWS + [{"kind": "bias", "layer": "all", "expert": [2, 3], "value": -1.25}], PRUNED],
    "granitemoe": [MOVES + ROWS, PRUNED],
    "phimoe": [MOVES + ROWS, PRUNED],
    "dbrx": [MOVES + ROWS, PRUNED],
    "jetmoe": [MOVES + ROWS, PRUNED],
    "jamba": [MOVES + ROWS, PRUNED],
    "llama4_text": [MOVES + ROWS, PRUNED],
    "qwen3_next": [MOVES + ROWS, PRUNED],
    "ernie4_5_moe": [MOVES + ROWS, PRUNED],
    "hunyuan_v1_moe": [MOVES + ROWS, PRUNED],
}


def program(*arguments):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or f"exit {done.returncode}")
    return done.stdout


def check(switchyard, load, model, edits, folder):
    script, ours, target = folder / "edits.json", folder / "ours.npy", folder / "exported"
    script.write_text(json.dumps({"schema": 1, "edits": edits}))
    program(switchyard, "export", model, "--edits", script, "--out", target)
    ids = ",".join(map(str, TOKENS))
    program(switchyard, "run", model, "--edits", script, "--token-ids", ids, "--max-new-tokens", 1, "--greedy", "--dump-logits", ours)
    import numpy
    expected = torch.from_numpy(numpy.load(ours))
    module = load(target)
    with torch.no_grad():
        logits = module(torch.tensor([TOKENS])).logits[0].float()
    return (logits - expected).abs().max().item()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--switchyard", required=True)
    arguments.add_argument("--source", type=pathlib.Path, required=True)
    arguments.add_argument("--only", nargs="*")
    options = arguments.parse_args()
    sys.path.insert(0, str(options.source / "tests/goldens"))
    import oracle

    transformers.utils.logging.disable_progress_bar()
    bad = 0
    for name, scripts in CASES.items():
        if options.only and name not in options.only:
            continue
        model = "demo" if name == "demo" else options.source / "tests/goldens" / name
        for number, edits in enumerate(scripts):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    difference = check(options.switchyard, oracle.load, model, edits, pathlib.Path(folder))
                    verdict = "ok" if difference <= LARGEST else "TOO FAR"
                    bad += difference > LARGEST
                    print(f"{name} script {number}: {difference:.2e} {verdict}", flush=True)
                except Exception as error:
                    bad += 1
                    print(f"{name} script {number}: FAILED {type(error).__name__}: {error}", flush=True)
    print(f"transformers {transformers.__version__}: {bad} bad" if bad else f"transformers {transformers.__version__}: all agree")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
