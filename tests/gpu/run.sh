#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: builds, runs the parity tests of the CUDA kernels on the device, compute-sanitizer where it
# is there, and the benchmark of our own kernels; without --quick also the program beside transformers, and beside llama.cpp,
# where a python3 with transformers and a torch that sees the GPU, and llama-bench, are on the path. Writes
# OUT/gpu-report.json and OUT/gpu-report.md. Needs nvcc, g++, CMake, Ninja and the Debian packages of
# packaging/packages.debian, but no network. Within 30 minutes, with --quick within 10.
#   tests/gpu/run.sh [--quick] [--out DIR] [--build DIR]
# Without a GPU it says so and exits 0, with nothing claimed. Exits 1 when a parity test fails, 3 when the build does.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
quick= out=$root/build/gpu build=$root/build/gpu
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=1 ;;
    --out) out=$2; shift ;;
    --build) build=$2; shift ;;
    *) echo "usage: tests/gpu/run.sh [--quick] [--out DIR] [--build DIR]" >&2; exit 2 ;;
  esac
  shift
done

if ! ls /dev/nvidia[0-9]* >/dev/null 2>&1; then
  echo "no GPU: there is no /dev/nvidia0 on this machine. Nothing was run on a device and nothing is claimed."
  echo "The same kernels are checked on the CPU: ctest -L cuda_on_cpu"
  exit 0
fi
command -v nvcc >/dev/null || { echo "a GPU, but no nvcc: put a CUDA 13 toolkit on the path" >&2; exit 3; }
mkdir -p "$out"
started=$SECONDS
log=$out/build.log
if ! { cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSWITCHYARD_WITH_GUI=OFF -DSWITCHYARD_WITH_REFERENCE=OFF \
         -DSWITCHYARD_WITH_PARQUET=OFF && cmake --build "$build" --target cuda_on_device; } >"$log" 2>&1; then
  tail -30 "$log" >&2
  echo "the build failed; all of it is in $log" >&2
  exit 3
fi
built=$((SECONDS - started))

tests="cuda_gate cuda_kernels cuda_experts cuda_tensor cuda_model cuda_host cuda_way"
failed=
for test in $tests; do
  # A test has a time limit of its own, so that a hanging kernel does not take the rest with it.
  timeout 300 "$build/bin/${test}_on_device" --gtest_output=json:"$out/$test.json" >"$out/$test.log" 2>&1
  status=$?
  echo "$test: exit $status"
  [ $status = 0 ] || failed="$failed $test"
done
sanitizer=absent
if command -v compute-sanitizer >/dev/null; then
  sanitizer=passed
  for tool in memcheck $([ -n "$quick" ] || echo racecheck); do
    timeout 420 compute-sanitizer --tool "$tool" --error-exitcode 9 "$build/bin/cuda_experts_on_device" --gtest_filter=-Tile* >"$out/sanitizer-$tool.log" 2>&1 ||
      { sanitizer="$tool failed"; failed="$failed compute-sanitizer"; }
  done
fi
bench=failed
timeout 300 "$build/bin/cuda_bench" --layers "$([ -n "$quick" ] && echo 4 || echo 16)" --tokens "$([ -n "$quick" ] && echo 16 || echo 64)" \
  >"$out/bench.json" 2>"$out/bench.log" && bench=ran
not_run="prefill by LibTorch's grouped GEMM: not built, prefill runs kernels of our own"
not_run_too() { not_run="$not_run
$1"; }

# Four layers of OLMoE's shape, the same tensors for all; a prompt of 512 tokens, then 128 more.
compare() {
  local model=$out/olmoe llama=()
  cmake --build "$build" --target switchyard switchyard_cuda >>"$log" 2>&1 || return 1
  if command -v llama-bench >/dev/null && python3 -c "import gguf" 2>/dev/null; then
    llama=(--llama-bench "$(command -v llama-bench)" --gguf "$model/model-bf16.gguf")
  else
    not_run_too "comparison with llama.cpp (needs llama-bench on the path, and Python with gguf): not run"
  fi
  [ -e "$model/config.json" ] || timeout 300 python3 "$root/tests/bench/make_olmoe.py" "$model" $([ ${#llama[@]} -gt 0 ] || echo --no-gguf) || return 1
  timeout 600 python3 "$root/tests/bench/against_transformers.py" --backend cuda --switchyard "$build/bin/switchyard" --model "$model" \
    --dtypes bfloat16 --prompt-tokens 512 --new-tokens 128 --json "${llama[@]}" >"$out/beside.json"
}
rm -f "$out/beside.json"
if [ -n "$quick" ]; then
  not_run_too "comparisons with transformers and llama.cpp: not run with --quick"
elif ! python3 -c "import numpy, torch, transformers; assert torch.cuda.is_available()" 2>/dev/null; then
  not_run_too "comparisons with transformers and llama.cpp (need python3 with numpy, transformers and a torch that sees the GPU): not run"
elif ! compare 2>"$out/beside.log"; then
  rm -f "$out/beside.json"
  failed="$failed comparison"
fi

SANITIZER=$sanitizer BENCH=$bench FAILED=$failed NOT_RUN=$not_run BUILT=$built QUICK=$quick python3 - "$out" $tests <<'PYTHON'
import json, os, pathlib, subprocess, sys, time
out, tests = pathlib.Path(sys.argv[1]), sys.argv[2:]
def parity(name):
    try:
        document = json.loads((out / f"{name}.json").read_text())
    except (OSError, ValueError):
        return {"tests": 0, "failures": 1, "note": "did not finish"}
    return {"tests": document["tests"], "failures": document["failures"] + document["errors"]}
def words(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except OSError:
        return ""
report = {"written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "quick": bool(os.environ["QUICK"]), "build_seconds": int(os.environ["BUILT"]),
          "gpu": words("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"), "nvcc": words("nvcc", "--version").splitlines()[-2:],
          "parity": {name: parity(name) for name in tests}, "compute_sanitizer": os.environ["SANITIZER"], "failed": os.environ["FAILED"].split(),
          "not_run": os.environ["NOT_RUN"].splitlines(),
          "beside": json.loads((out / "beside.json").read_text()) if (out / "beside.json").exists() else None,
          "bench": json.loads((out / "bench.json").read_text()) if os.environ["BENCH"] == "ran" else None}
(out / "gpu-report.json").write_text(json.dumps(report, indent=1) + "\n")
lines = ["# CUDA backend on a GPU", "", f"{report['gpu']}, {report['written']}{', quick' if report['quick'] else ''}", "", "| parity on the device | tests | failed |", "|---|---|---|"]
lines += [f"| {name} | {p['tests']} | {p['failures']} {p.get('note', '')} |" for name, p in report["parity"].items()]
lines += ["", f"compute-sanitizer: {report['compute_sanitizer']}", ""]
if bench := report["bench"]:
    lines += [f"Copy within the card (read + write): {bench['copy_bytes_per_second'] / 1e9:.0f} GB/s. {bench['layers']} layers of OLMoE's shape, bf16, batch 1.", "",
              "| context | tokens/s | share of copy bandwidth | with capture | slower by capture |", "|---|---|---|---|---|"]
    for at in bench["decode"]:
        plain, captured = at["token"], at["token_with_capture"]
        lines.append(f"| {at['position']} | {plain['tokens_per_second']:.0f} | {plain['share_of_copy_bandwidth']:.0%} | {captured['tokens_per_second']:.0f} | "
                     f"{captured['seconds']['median'] / plain['seconds']['median'] - 1:.1%} |")
    names = list(bench["decode"][0]["kernels"])
    lines += ["", "| kernel, microseconds a layer | " + " | ".join(f"context {at['position']}" for at in bench["decode"]) + " |", "|---|" + "---|" * len(bench["decode"])]
    lines += [f"| {name} | " + " | ".join(f"{at['kernels'][name] * 1e6:.1f}" for at in bench["decode"]) + " |" for name in names]
    lines += ["", "Products of a prompt, bf16 matrices on the tensor cores; multiplications of the model, each of which is three of the unit:", "",
              "| tokens | dense, ms a layer | 10^12 a second | experts, ms a layer | 10^12 a second |", "|---|---|---|---|---|"]
    lines += [f"| {p['tokens']} | {p['dense_seconds_a_layer']['median'] * 1e3:.3f} | {p['dense_multiplications_per_second'] / 1e12:.1f} | "
              f"{p['experts_seconds_a_layer']['median'] * 1e3:.3f} | {p['expert_multiplications_per_second'] / 1e12:.1f} |" for p in bench["prompt"]]
else:
    lines.append("The benchmark did not run; see bench.log.")
if beside := report["beside"]:
    lines += ["", f"Beside others: {beside['prompt_tokens']} tokens of prompt, {beside['new_tokens']} new ones, tokens/s, median of {beside['repeat']} rounds in turn"
              + (f"; other programs used {beside['other_load']:.0%} of the machine: NOISY, no claim from this" if beside["noisy"] else ""), "",
              "| | decode | prefill |", "|---|---|---|"]
    lines += [f"| {name} | {of['decode']['median']:.1f} | {of['prefill']['median']:.0f} |" for name, of in beside["tokens_per_s"].items()]
lines += ["", "Not run:", ""] + [f"- {line}" for line in report["not_run"]]
(out / "gpu-report.md").write_text("\n".join(lines) + "\n")
print(f"{out}/gpu-report.md")
PYTHON
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
[ "$bench" = ran ] || { tail -3 "$out/bench.log" >&2; exit 1; }
