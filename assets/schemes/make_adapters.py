"""Writes the demo's example of routed adapters: assets/schemes/adapters.safetensors and a script for each router.

usage: make_adapters.py [--out FOLDER]     (numpy; the same bytes every time)

Random low-rank matrices, large enough to be seen in the text and small enough to leave it one: what they show is the
routing, not a skill. Names and shapes: engine/routing/adapter_files.h.
"""
import argparse
import json
import pathlib
import struct

import numpy

LAYERS, HIDDEN, KEYS = 8, 256, 64
random = numpy.random.default_rng(20260)
tensors = {}


def add(name, *shape, scale):
    tensors[name] = (random.standard_normal(shape) * scale).astype(numpy.float16)


for layer in range(LAYERS):
    at = f"lora.model.layers.{layer}.self_attn"
    for expert in range(4):  # q_proj: four adapters, gates and task logits
        add(f"{at}.q_proj.{expert}.A", 4, HIDDEN, scale=1 / 16)
        add(f"{at}.q_proj.{expert}.B", HIDDEN, 4, scale=0.2)
    add(f"{at}.q_proj.gate", 4, HIDDEN, scale=1 / 16)
    add(f"{at}.q_proj.z", 2, 4, 2, scale=1.5)
    for expert in range(2):  # o_proj: two adapters and MoGU's networks
        add(f"{at}.o_proj.{expert}.A", 4, HIDDEN, scale=1 / 16)
        add(f"{at}.o_proj.{expert}.B", HIDDEN, 4, scale=0.1)
    for network in ("alpha", "beta"):
        add(f"{at}.o_proj.{network}.w0", 8, HIDDEN, scale=1 / 4)
        add(f"{at}.o_proj.{network}.w1", 16, 8, scale=0.5)
        add(f"{at}.o_proj.{network}.b1", 16, scale=0.1)
        add(f"{at}.o_proj.{network}.w2", 1, 16, scale=0.5)
        add(f"{at}.o_proj.{network}.b2", 1, scale=0.5)
    rank = 16  # k_proj: FlyLoRA, each row of A with int(d k / r) numbers
    a = numpy.zeros((rank, HIDDEN), numpy.float16)
    for row in a:
        row[random.choice(HIDDEN, HIDDEN * 4 // rank, replace=False)] = random.standard_normal(HIDDEN * 4 // rank) / rank
    tensors[f"{at}.k_proj.0.A"] = a
    add(f"{at}.k_proj.0.B", KEYS, rank, scale=0.1)
    add(f"{at}.k_proj.bias", rank, scale=0.05)
add("lora.embeddings", 4, 8, scale=1)
add("lora.instruction", 8, scale=1)

SCRIPTS = {
    "fixed": ("q_proj", {"weights": [1, 0, 0, 0], "alpha": 16}),
    "phatgoose": ("q_proj", {"alpha": 16}),
    "glider": ("q_proj", {"alpha": 4, "lambda": 3}),
    "arrow": ("q_proj", {}),
    "poly": ("q_proj", {"alpha": 16, "task": 1}),
    "dynmole": ("q_proj", {"h": 0.85, "alpha": 16}),
    "lora_mixer": ("q_proj", {"alpha": 16}),
    "flylora": ("k_proj", {"k": 4, "alpha": 32}),
    "mogu": ("o_proj", {}),
}

options = argparse.ArgumentParser()
options.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
out = options.parse_args().out
header, body = {}, b""
for name in sorted(tensors):
    data = tensors[name].tobytes()
    header[name] = {"dtype": "F16", "shape": list(tensors[name].shape), "data_offsets": [len(body), len(body) + len(data)]}
    body += data
text = json.dumps(header, separators=(",", ":")).encode()
text += b" " * (-len(text) % 8)
(out / "adapters.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
for router, (module, parameters) in SCRIPTS.items():
    entry = {"kind": "adapters", "layer": "all", "modules": [module], "files": ["adapters.safetensors"], "adapter_router": router}
    if parameters:
        entry["parameters"] = parameters
    (out / f"adapters_{router}.json").write_text(json.dumps({"schema": 1, "edits": [entry]}) + "\n")
