"""What a plugin's scheme costs on the cpu engine: `bench --edits` decodes the same tokens in turn with no recipe and under the
identity plugin, then under the built-in top_k. By hand; a timing decides no test.

usage: measure_identity.py PROGRAM [MODEL] [NEW_TOKENS] [REPEAT] [THREADS]
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

program = pathlib.Path(sys.argv[1]).resolve()
model, tokens, repeat, threads = (sys.argv[2:] + ["demo", "512", "8", "1"][len(sys.argv) - 2:])[:4]
plugins = program.parent.parent / "identity_plugin"

with tempfile.TemporaryDirectory() as room:
    env = os.environ | {f"XDG_{name}_HOME": room for name in ("CONFIG", "DATA", "STATE")} | {"SWITCHYARD_PLUGIN_PATH": str(plugins)}
    subprocess.run([program, "plugin", "trust", "identity"], env=env, check=True, capture_output=True)
    for scheme in ("identity.scheme", "top_k"):
        edits = pathlib.Path(room) / f"{scheme}.json"
        edits.write_text(json.dumps({"schema": 1, "edits": [{"kind": "scheme", "layer": "all", "name": scheme}]}))
        done = subprocess.run([program, "bench", model, "--new-tokens", tokens, "--repeat", repeat, "--threads", threads, "--edits", edits, "--json"],
                              env=env, check=True, capture_output=True)
        report = json.loads(done.stdout)
        edited = report["edited"]
        low, high = edited["cost_95"]
        print(f"{scheme:16s} {edited['tokens_per_s']['median']:8.1f} tokens/s, costs {100 * edited['cost']:+.2f} % "
              f"(95 %: {100 * low:+.2f} to {100 * high:+.2f}); other load {100 * report['other_load']:.1f} %")
