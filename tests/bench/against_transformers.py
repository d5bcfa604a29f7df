"""Decode speed of Switchyard's cpu backend beside transformers, interleaved in one run.

usage: against_transformers.py [--switchyard build/dev/bin/switchyard] [--model FOLDER] [--repeat 5]
                               [--prompt-tokens 64] [--new-tokens 128] [--threads 2] [--json]

Run by hand with a Python that has transformers and torch (see tests/goldens/make_goldens.py); no test
needs it. Rounds are A-B-C-A-B-C: `switchyard bench`, transformers eager fp32, transformers eager bf16;
the same threads, prompt length and number of tokens, greedy, end of text ignored, one warm-up each.
Transformers gets its better settings: OpenMP threads that sleep while they wait (spinning ones collapse
on shared cores) and malloc that keeps its pages. A report taken while other programs used more than 3 %
of the machine is marked noisy: no claim from it.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

SETTINGS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "MALLOC_MMAP_MAX_": "0",
            "MALLOC_TRIM_THRESHOLD_": str(1 << 33), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
ROOT = pathlib.Path(__file__).resolve().parents[2]
NOISE = 0.03


def with_settings():
    """OpenMP and malloc read these when a program starts: start again with them."""
    if any(os.environ.get(key) != value for key, value in SETTINGS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--switchyard", default=str(ROOT / "build/dev/bin/switchyard"))
    parser.add_argument("--model", default=str(ROOT / "assets/models/demo"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")
    return parser.parse_args()


def busy_and_total():
    fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def own_ticks():
    t = os.times()
    return (t.user + t.system + t.children_user + t.children_system) * os.sysconf("SC_CLK_TCK")


class OtherLoad:
    """Share of the machine used by other programs between start and stop."""

    def __enter__(self):
        self.start = (*busy_and_total(), own_ticks())
        return self

    def __exit__(self, *_):
        busy, total = busy_and_total()
        own = own_ticks() - self.start[2]
        self.share = max(0.0, (busy - self.start[0] - own) / max(1, total - self.start[1]))


def switchyard(args):
    """Tokens per second of one `switchyard bench`; its own warm-up is inside."""
    out = subprocess.run(
        [args.switchyard, "bench", args.model, "--backend", "cpu", "--threads", str(args.threads),
         "--prompt-tokens", str(args.prompt_tokens), "--new-tokens", str(args.new_tokens), "--repeat", "1", "--json"],
        check=True, capture_output=True, text=True).stdout
    return json.loads(out)["decode"]["tokens_per_s"]["median"]


class Peer:
    def __init__(self, args, dtype):
        import torch
        from transformers import AutoModelForCausalLM
        self.torch, self.args = torch, args
        torch.set_num_threads(args.threads)
        self.model = AutoModelForCausalLM.from_pretrained(
            args.model, dtype=dtype, attn_implementation="eager", experts_implementation="eager").eval()
        draw = torch.Generator().manual_seed(1)
        self.prompt = torch.randint(4, self.model.config.vocab_size, (1, args.prompt_tokens), generator=draw)

    def __call__(self):
        with self.torch.inference_mode():
            out = self.model(self.prompt, use_cache=True)
            start = time.perf_counter()
            for _ in range(self.args.new_tokens):
                token = out.logits[:, -1].argmax(-1, keepdim=True)
                out = self.model(token, past_key_values=out.past_key_values, use_cache=True)
            return self.args.new_tokens / (time.perf_counter() - start)


def main():
    with_settings()
    args = arguments()
    import torch
    import transformers
    runners = {"switchyard cpu": lambda: switchyard(args),
               "transformers eager fp32": Peer(args, torch.float32),
               "transformers eager bf16": Peer(args, torch.bfloat16)}
    for run in runners.values():
        run()
    speeds = {name: [] for name in runners}
    with OtherLoad() as other:
        for _ in range(args.repeat):
            for name, run in runners.items():
                speeds[name].append(run())

    medians = {name: statistics.median(values) for name, values in speeds.items()}
    report = {"schema": 1, "model": args.model, "threads": args.threads, "repeat": args.repeat,
              "prompt_tokens": args.prompt_tokens, "new_tokens": args.new_tokens,
              "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
              "decode_tokens_per_s": {name: {"median": medians[name], "min": min(v), "max": max(v)} for name, v in speeds.items()},
              "times_faster": {name: medians["switchyard cpu"] / medians[name] for name in list(runners)[1:]},
              "other_load": other.share, "noisy": other.share > NOISE}
    if args.json:
        print(json.dumps(report, indent=1))
        return
    for name, values in speeds.items():
        print(f"{name:26} {medians[name]:9.1f} tokens/s   ({min(values):.1f} to {max(values):.1f}, {args.repeat} runs)")
    for name, times in report["times_faster"].items():
        print(f"switchyard is {times:.1f} times {name}")
    print(f"other programs used {100 * other.share:.1f} % of the machine" + (": NOISY, no claim from this" if report["noisy"] else ""))


main()
