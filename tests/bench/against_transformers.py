"""Decode and prefill of Switchyard's cpu or cuda backend beside transformers, interleaved in one run.

usage: against_transformers.py [--switchyard build/dev/bin/switchyard] [--model FOLDER] [--repeat 5]
                               [--prompt-tokens 64] [--new-tokens 128] [--threads 2] [--json]
                               [--dtypes float32 bfloat16] [--experts eager grouped_mm] [--backend cpu|cuda]
                               [--llama-bench PROGRAM --gguf FILE]

Run by hand with a Python that has transformers and torch (see tests/goldens/make_goldens.py); no test
needs it. Rounds are in turn: `switchyard bench`, then transformers with eager experts and with grouped_mm, in fp32
and in bf16; the same threads, prompt length and number of tokens, greedy, end of text ignored, one warm-up each.
With --backend cuda transformers runs on the GPU too (tests/gpu/run.sh calls it so); with --llama-bench the program of
llama.cpp takes its turns with the same tensors as GGUF, all layers on the GPU where there is one, decoding behind a prompt of the same length.
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
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--experts", nargs="+", default=["eager", "grouped_mm"])
    parser.add_argument("--backend", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--llama-bench", help="llama.cpp's program of that name")
    parser.add_argument("--gguf", help="the model's tensors for it")
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
    """Tokens per second of one `switchyard bench`, decode and prefill; its own warm-up is inside."""
    out = subprocess.run(
        [args.switchyard, "bench", args.model, "--backend", args.backend, "--threads", str(args.threads),
         "--prompt-tokens", str(args.prompt_tokens), "--new-tokens", str(args.new_tokens), "--repeat", "1", "--json"],
        check=True, capture_output=True, text=True).stdout
    document = json.loads(out)
    return {what: document[what]["tokens_per_s"]["median"] for what in ("decode", "prefill")}


def llama_bench(args):
    """The same of llama-bench: a prompt, then tokens behind one."""
    def speed(prompt, new, depth):
        out = subprocess.run(
            [args.llama_bench, "-m", args.gguf, "-p", str(prompt), "-n", str(new), "-d", str(depth), "-r", "1", "-t", str(args.threads),
             "-ngl", "99" if args.backend == "cuda" else "0", "-o", "json"], check=True, capture_output=True, text=True).stdout
        test, = json.loads(out)
        return test["avg_ts"]
    return {"prefill": speed(args.prompt_tokens, 0, 0), "decode": speed(0, args.new_tokens, args.prompt_tokens)}


class Peer:
    """One set of weights; the experts' implementation is chosen at every call."""

    def __init__(self, args, dtype):
        import torch
        from transformers import AutoModelForCausalLM
        self.torch, self.args = torch, args
        torch.set_num_threads(args.threads)
        self.model = AutoModelForCausalLM.from_pretrained(
            args.model, dtype=getattr(torch, dtype), attn_implementation="sdpa", experts_implementation="eager").to(args.backend).eval()
        # As `switchyard bench` has them: spread over the vocabulary, so that experts vary.
        ids = [(i * 7919 + 17) % self.model.config.vocab_size for i in range(args.prompt_tokens + args.new_tokens)]
        self.ids = torch.tensor([ids]).to(args.backend)

    def seconds(self):
        if self.args.backend == "cuda":
            self.torch.cuda.synchronize()
        return time.perf_counter()

    def __call__(self, experts):
        self.model.set_experts_implementation(experts)
        prompt = self.args.prompt_tokens
        with self.torch.inference_mode():
            start = self.seconds()
            out = self.model(self.ids[:, :prompt], use_cache=True, logits_to_keep=1)
            prefill = prompt / (self.seconds() - start)
            start = self.seconds()
            for i in range(prompt, self.ids.shape[1]):
                out = self.model(self.ids[:, i:i + 1], past_key_values=out.past_key_values, use_cache=True)
                out.logits[:, -1].argmax(-1)
            return {"prefill": prefill, "decode": self.args.new_tokens / (self.seconds() - start)}


def main():
    with_settings()
    args = arguments()
    import torch
    import transformers
    own = f"switchyard {args.backend}"
    runners = {own: lambda: switchyard(args)}
    for dtype in args.dtypes:
        peer = Peer(args, dtype)
        for experts in args.experts:
            runners[f"transformers {experts} {dtype}"] = lambda peer=peer, experts=experts: peer(experts)
    if args.llama_bench:
        runners["llama.cpp BF16"] = lambda: llama_bench(args)
    for run in runners.values():
        run()
    speeds = {name: {"decode": [], "prefill": []} for name in runners}
    with OtherLoad() as other:
        for _ in range(args.repeat):
            for name, run in runners.items():
                for what, speed in run().items():
                    speeds[name][what].append(speed)

    def spread(values):
        return {"median": statistics.median(values), "min": min(values), "max": max(values)}

    def times(name, what):
        pairs = zip(speeds[own][what], speeds[name][what])
        return spread([ours / theirs for ours, theirs in pairs])

    peers = list(runners)[1:]
    report = {"schema": 2, "model": args.model, "threads": args.threads, "repeat": args.repeat,
              "backend": args.backend, "prompt_tokens": args.prompt_tokens, "new_tokens": args.new_tokens,
              "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
              "tokens_per_s": {name: {what: spread(v) for what, v in of.items()} for name, of in speeds.items()},
              "times_faster": {name: {what: times(name, what) for what in ("decode", "prefill")} for name in peers},
              "other_load": other.share, "noisy": other.share > NOISE}
    if args.json:
        print(json.dumps(report, indent=1))
        return
    print("| | decode, tokens/s (min-max) | prefill | switchyard is … times, decode | prefill |\n|---|---|---|---|---|")
    for name, own in report["tokens_per_s"].items():
        cells = [f"{own[what]['median']:.1f} ({own[what]['min']:.1f}-{own[what]['max']:.1f})" for what in ("decode", "prefill")]
        faster = report["times_faster"].get(name)
        cells += [f"{faster[what]['median']:.1f}" if faster else "" for what in ("decode", "prefill")]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"other programs used {100 * other.share:.1f} % of the machine" + (": NOISY, no claim from this" if report["noisy"] else ""))


main()
