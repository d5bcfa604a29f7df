"""What ptxas says of every kernel, as the table engine/backend/cuda/kernels.md, and bounds on it.

usage: kernel_table.py PTXAS_LOG TABLE [--write]

The log is written by the build (nvcc -Xptxas -v). Without --write the table must say what the log says and no kernel may
leave its bounds; exit 1 names what does. Occupancy: the share of a multiprocessor's threads that fit, for the shared memory
that the kernel asks for with the layers of OLMoE-1B-7B (hidden 2048, 64 experts, 8 a token, width 1024, heads of 128).
"""
import collections
import pathlib
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
SPILL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
# Threads of a block (the launch bounds) and bytes of dynamic shared memory with those layers.
KERNELS = {
    "embed": (256, 0), "norm_rows": (256, 8192), "project": (256, 8192), "project_heads": (256, 2048), "finish_heads": (128, 512),
    "finish_latents": (128, 2304), "attend": (128, 4 * 8 * 130 * 4), "attend_shares": (128, 256 * 4), "route": (256, 8192), "route_rows": (32, 5 * 64 * 4 + 56),
    "expert_units": (256, 8192), "expert_down": (512, 9 * 1024 * 4), "multiply_tiles": (256, 0), "count_slots": (32, 0), "place_slots": (32, 0),
    "group_units": (256, 0), "group_down": (256, 0), "multiply_tensor": (128, 0), "heads_tensor": (128, 0),
    "group_units_tensor": (128, 0), "group_down_tensor": (128, 0), "combine": (256, 0), "pick": (1024, 0), "tell_host": (32, 0),
}
# Multiprocessor: registers, threads, blocks, bytes of shared memory (CUDA programming guide, compute capabilities).
MACHINES = {"sm_80": (65536, 2048, 32, 164 << 10), "sm_90a": (65536, 2048, 32, 228 << 10), "sm_100": (65536, 2048, 32, 228 << 10)}
MOST_REGISTERS = 168  # three blocks of 128 threads
MOST_SPILLED = 128    # bytes; but the decision, which one warp makes:
MOST_SPILLED_BY = {"route": 1024, "route_rows": 1024}
LEAST_OCCUPANCY = 0.12


def kernel_name(mangled):
    text = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout
    match = re.search(r"cuda::(\w+)(?:<([^>]*)>)?\(", text)
    arguments = (match[2] or "").replace("unsigned short", "bf16").replace("float", "f32")
    return match[1], arguments


def occupancy(machine, threads, registers, shared):
    all_registers, all_threads, all_blocks, all_shared = MACHINES[machine]
    warps = threads // 32
    by_registers = all_registers // ((registers * 32 + 255) // 256 * 256) // warps
    by_shared = all_shared // (shared + 1024)  # a KiB of every block is the system's
    return min(by_registers, all_threads // threads, all_blocks, by_shared) * threads / all_threads


def kernels_of(log):
    found, entry, spilled = collections.OrderedDict(), None, 0
    for line in log.splitlines():
        if match := ENTRY.search(line):
            entry, spilled = (match[1], match[2]), None
        elif (match := SPILL.search(line)) and entry and spilled is None:
            spilled = int(match[2]) + int(match[3])
        elif (match := USED.search(line)) and entry:
            shared = SHARED.search(line)
            found[entry] = (int(match[1]), int(shared[1]) if shared else 0, spilled or 0)
            entry = None
    return found


def main():
    log, table = pathlib.Path(sys.argv[1]).read_text(), pathlib.Path(sys.argv[2])
    rows, problems = collections.defaultdict(dict), []
    for (mangled, machine), (registers, static, spilled) in kernels_of(log).items():
        name, arguments = kernel_name(mangled)
        label = f"{name}<{arguments}>" if arguments else name
        if name not in KERNELS:
            problems.append(f"{label}: not in KERNELS of this script")
            continue
        threads, dynamic = KERNELS[name]
        share = occupancy(machine, threads, registers, static + dynamic)
        rows[label][machine] = (threads, registers, static, dynamic, spilled, share)
        if registers > MOST_REGISTERS:
            problems.append(f"{label}, {machine}: {registers} registers, at most {MOST_REGISTERS}")
        if spilled > MOST_SPILLED_BY.get(name, MOST_SPILLED):
            problems.append(f"{label}, {machine}: {spilled} bytes spilled")
        if share < LEAST_OCCUPANCY:
            problems.append(f"{label}, {machine}: occupancy {share:.0%}")
    if missing := set(KERNELS) - {label.split("<")[0] for label in rows}:
        problems.append(f"no kernel {', '.join(sorted(missing))} in the log")
    if wrong := [label for label, by in rows.items() if set(by) != set(MACHINES)]:
        problems.append(f"not for every architecture: {', '.join(wrong)}")

    text = ["# Kernels of the cuda backend", "", "Written by `tests/cuda_on_cpu/kernel_table.py` from what ptxas (nvcc 13.0.88) says; the test `cuda_kernel_table` fails where this table",
            "is not true. Registers of a thread, bytes of shared memory of a block (static + dynamic with OLMoE's layers), bytes spilled, and the share", "of a multiprocessor's threads that then fit.", "",
            "| kernel | threads | " + " | ".join(f"{m}: registers, spilled, occupancy" for m in MACHINES) + " | shared |", "|---|---|" + "---|" * (len(MACHINES) + 1)]
    for label in sorted(rows):
        by = rows[label]
        threads, _, static, dynamic, _, _ = next(iter(by.values()))
        cells = [f"{by[m][1]}, {by[m][4]}, {by[m][5]:.0%}" if m in by else "–" for m in MACHINES]
        text.append(f"| `{label}` | {threads} | " + " | ".join(cells) + f" | {static} + {dynamic} |")
    text = "\n".join(text) + "\n"
    if "--write" in sys.argv[3:]:
        table.write_text(text)
    elif not table.exists() or table.read_text() != text:
        problems.append(f"{table.name} is not what ptxas says: run {' '.join(sys.argv[:3])} --write")
        print(text)
    print("\n".join(problems) or f"{sum(map(len, rows.values()))} kernels within their bounds")
    sys.exit(1 if problems else 0)


main()
