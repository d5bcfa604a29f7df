#!/usr/bin/env python3
"""Makes the example weight files of gating schemes for the demo model, from a seed.

  python3 assets/schemes/make.py PROGRAM [OUT]

PROGRAM is the built command line (build/dev/bin/switchyard): tables and thresholds are distilled from a trace of the
shipped prompts, the bank of exemplars from the shipped texts. OUT is this folder by default. The files of arrays()
need no program.
"""
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

import numpy

HERE = pathlib.Path(__file__).resolve().parent
DEMO = HERE.parent / "models/demo"
SEED = 20261129
LAYERS, EXPERTS, WIDTH, VOCAB = 8, 32, 256, 4096
NULLS = 4


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    kinds = {"F32": "<f4", "I32": "<i4", "BF16": "<u2"}
    out = {}
    for name, one in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = one["data_offsets"]
        values = numpy.frombuffer(data[8 + size + begin:8 + size + end], kinds[one["dtype"]])
        if one["dtype"] == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        out[name] = values.reshape(one["shape"])
    return out


def write_safetensors(path, tensors):
    header, body = {}, b""
    for name, values in tensors.items():
        kind = {"float32": "F32", "int32": "I32"}[values.dtype.name]
        begin = len(body)
        body += values.tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [begin, len(body)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + body)


def routers():
    """The demo's router rows, [layers][experts, width]."""
    tensors = read_safetensors(DEMO / "model.safetensors")
    return [tensors[f"model.layers.{layer}.mlp.gate.weight"].astype("f4") for layer in range(LAYERS)]


def noise(source, *shape):
    """Python's generator gives the same numbers everywhere."""
    count = int(numpy.prod(shape))
    return numpy.array([source.gauss(0, 1) for _ in range(count)], "f8").reshape(shape)


def recurrent(source):
    """Near the model's own router: u = z / 4, s mostly tanh(u), logits 4 s; a little of the layers before."""
    out, eye = {}, numpy.eye(EXPERTS)
    for part in ("ir", "hr", "iz", "hz", "in", "hn"):
        weight = 0.02 * noise(source, EXPERTS, EXPERTS) + (eye if part == "in" else 0)
        bias = 0.1 * noise(source, EXPERTS) - (2 if part == "iz" else 0)
        if part in ("in", "hn"):
            bias = 0 * bias
        out[f"rmoe.gru.{part}.weight"] = weight.astype("f4")
        out[f"rmoe.gru.{part}.bias"] = bias.astype("f4")
    for layer, rows in enumerate(routers()):
        out[f"layers.{layer}.rmoe.w1"] = rows / numpy.float32(4)
        out[f"layers.{layer}.rmoe.w2"] = (4 * eye).astype("f4")
    return out


def adamoe(source):
    """Each null expert stands for a group of experts: the mean of their rows, disturbed."""
    out = {}
    for layer, rows in enumerate(routers()):
        means = rows.astype("f8").reshape(NULLS, EXPERTS // NULLS, WIDTH).mean(axis=1)
        out[f"layers.{layer}.gate.null.weight"] = (means + 0.01 * noise(source, NULLS, WIDTH)).astype("f4")
    return out


def prototype(source):
    """The router's rows, turned a little and of length 1."""
    out = {}
    for layer, rows in enumerate(routers()):
        rows = rows.astype("f8")
        rows = rows / numpy.sqrt((rows * rows).sum(axis=1, keepdims=True)) + 0.01 * noise(source, EXPERTS, WIDTH)
        out[f"layers.{layer}.gate.proto"] = (rows / numpy.sqrt((rows * rows).sum(axis=1, keepdims=True))).astype("f4")
    return out


def similarity(source):
    """Near 1, so that alike still is alike."""
    return {"gate.similarity": (numpy.eye(WIDTH) + 0.01 * noise(source, WIDTH, WIDTH)).astype("f4")}


def hash_table(source):
    """Four tables, each a shuffle of the token ids dealt to the experts in turn."""
    table = numpy.empty((VOCAB, 4), "i4")
    for column in range(4):
        ids = list(range(VOCAB))
        source.shuffle(ids)
        table[ids, column] = (numpy.arange(VOCAB) + 8 * column) % EXPERTS
    return {"table": table}


def chain_of_experts(source):
    """The gate of the second of two passes: the router's rows, disturbed."""
    return {f"layers.{layer}.coe.1.weight": (rows.astype("f8") + 0.01 * noise(source, EXPERTS, WIDTH)).astype("f4") for layer, rows in enumerate(routers())}


def union_of_experts(source):
    """Four slices, a gate of noise: no slice means anything in a model that was not trained so."""
    out = {}
    for layer in range(LAYERS):
        out[f"layers.{layer}.uoe.weight"] = (0.05 * noise(source, 4, WIDTH)).astype("f4")
        out[f"layers.{layer}.uoe.bias"] = numpy.zeros(4, "f4")
    return out


ARRAYS = {"chain_of_experts": chain_of_experts, "union_of_experts": union_of_experts, "recurrent": recurrent, "adamoe": adamoe, "prototype": prototype, "similarity": similarity, "hash": hash_table}


def arrays(name):
    return ARRAYS[name](random.Random(f"{SEED} {name}"))


def main():
    program, out = sys.argv[1], pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else HERE
    for name in ARRAYS:
        write_safetensors(out / f"{name}.safetensors", arrays(name))
    with tempfile.TemporaryDirectory() as folder:
        texts, trace = pathlib.Path(folder) / "texts.jsonl", pathlib.Path(folder) / "texts.moetrace.h5"
        lines = [json.dumps({"text": path.read_text()}) for path in sorted((HERE.parent / "prompts").glob("*.txt"))]
        lines += [line for path in sorted((HERE.parent / "contrast").glob("*.jsonl")) for line in path.read_text().splitlines()]
        texts.write_text("\n".join(lines) + "\n")
        call = lambda *arguments: subprocess.run([program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
        call("score", "demo", "--texts", texts, "--trace", trace, "--capture", "logits", "--backend", "cpu")
        call("recipe", "distil", trace, "demo", "-o", out / "stable_moe.safetensors", "--force")
        call("recipe", "distil", trace, "demo", "--kind", "threshold", "-o", out / "expert_choice.safetensors", "--force")
        call("calibrate", "bank", "demo", "--texts", texts, "--most", 48, "--out", out / "sdm.safetensors", "--force", "--backend", "cpu")


if __name__ == "__main__":
    main()
