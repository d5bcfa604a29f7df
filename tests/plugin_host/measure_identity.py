"""What a plugin's scheme costs: tokens per second of `run` on the cpu engine under the identity plugin, under the built-in
top_k and under no recipe, interleaved A-B-C, with median and spread. By hand; a timing decides no test.

usage: measure_identity.py PROGRAM [MODEL] [REPEATS] [TOKENS]
"""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

program = pathlib.Path(sys.argv[1]).resolve()
model = sys.argv[2] if len(sys.argv) > 2 else "demo"
repeats = int(sys.argv[3]) if len(sys.argv) > 3 else 11
tokens = sys.argv[4] if len(sys.argv) > 4 else "256"
plugins = program.parent.parent / "identity_plugin"

with tempfile.TemporaryDirectory() as room:
    env = os.environ | {f"XDG_{name}_HOME": room for name in ("CONFIG", "DATA", "STATE")} | {"SWITCHYARD_PLUGIN_PATH": str(plugins)}
    subprocess.run([program, "plugin", "trust", "identity"], env=env, check=True, capture_output=True)
    scripts = {"none": [], "top_k": "top_k", "plugin": "identity.scheme"}
    for name, scheme in scripts.items():
        if scheme:
            path = pathlib.Path(room) / f"{name}.json"
            path.write_text(json.dumps({"schema": 1, "edits": [{"kind": "scheme", "layer": "all", "name": scheme}]}))
            scripts[name] = ["--edits", path]
    speeds, texts = {name: [] for name in scripts}, {}
    for turn in range(repeats + 1):
        for name, edits in scripts.items():
            done = subprocess.run([program, "run", model, "--prompt", "The router", "--greedy", "--ignore-eos", "--max-new-tokens", tokens, "--backend", "cpu",
                                   "--threads", "1", "--capture", "off", "--json", *edits], env=env, check=True, capture_output=True)
            document = json.loads(done.stdout)
            texts[name] = document["generated_ids"]
            if turn > 0:  # the first warms up
                speeds[name].append(document["timing"]["decode_tokens_per_s"])
    assert texts["plugin"] == texts["top_k"], "the identity plugin decides like top_k"
    for name, values in speeds.items():
        print(f"{name:8s} {statistics.median(values):10.1f} tokens/s  {min(values):.1f} to {max(values):.1f}")
    for other in ("none", "top_k"):
        ratios = [plugin / base for plugin, base in zip(speeds["plugin"], speeds[other])]
        print(f"plugin against {other}: {100 * (statistics.median(ratios) - 1):+.2f} % (median of {repeats} pairs)")
