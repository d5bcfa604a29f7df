"""Writes tests/data/quantised: random stored blocks of every quantised format, and the values that the formats' own
packages give for them.

usage: make_quantised_blocks.py SOURCE_ROOT
Run by hand, with: pip install gguf==0.19 compressed-tensors==0.20 transformers==5.23 torch safetensors numpy

ggml.safetensors   TYPE.blocks (U8) and TYPE.expected (F32), by gguf.quants.dequantize
FORM.safetensors   the parts of X.weight as a checkpoint stores them, and "expected" [rows, cols]:
  fp8, fp8_e8m0, fp8_row, fp8_one   torch.float8_e4m3fn times its scale, in fp32
  fp8_packed, mxfp4                 3-D tensors; MXFP4 by transformers' convert_moe_packed_tensors
  gptq, gptq_act, gptq_v2           the unpacking of AutoGPTQ (qlinear_cuda_old: zeros + 1, then 4 bits)
  awq                               the unpacking of AutoAWQ (reverse order 0 4 1 5 2 6 3 7)
  packed, packed_zero, packed_row   compressed_tensors' PackedQuantizationCompressor.decompress
"""
import pathlib
import sys

import gguf
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

OUT = pathlib.Path(sys.argv[1]) / "tests/data/quantised"
TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
         "MXFP4"]
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0]}
random = np.random.default_rng(20261125)
torch.manual_seed(20261125)


def halves(n):
    """Finite scales of both signs, subnormal ones and zero too."""
    values = (random.standard_normal(n) * 10.0 ** random.integers(-7, 2, n)).astype(np.float16)
    values[0] = 0
    return values


def ggml():
    tensors = {}
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        n = 24 if elements > 1 else 96
        blocks = random.integers(0, 256, (n, size), dtype=np.uint8)
        if name in ("F32", "F16", "BF16"):
            blocks = gguf.quants.quantize(random.standard_normal((1, n)).astype(np.float32), kind).view(np.uint8).reshape(n, size)
        for at in HALVES.get(name, []):
            blocks[:, at:at + 2] = halves(n).view(np.uint8).reshape(n, 2)
        if name == "MXFP4":
            blocks[:, 0] = random.integers(0, 255, n)
            blocks[:3, 0] = [0, 1, 2]
        expected = gguf.quants.dequantize(blocks.reshape(1, -1), kind).reshape(-1).astype(np.float32)
        tensors[name + ".blocks"] = torch.from_numpy(blocks.reshape(-1).copy())
        tensors[name + ".expected"] = torch.from_numpy(expected.copy())
    save_file(tensors, OUT / "ggml.safetensors")


def save(name, expected, **parts):
    save_file({"expected": expected.float().contiguous()} | {k.replace("__", "."): v.contiguous() for k, v in parts.items()},
              OUT / f"{name}.safetensors")


def blocked(scale, rows, cols, r, c):
    return scale.repeat_interleave(r, -2)[..., :rows, :].repeat_interleave(c, -1)[..., :cols]


def fp8():
    def draw(*shape):
        return (torch.randn(shape) * 100).clamp(-448, 448).to(torch.float8_e4m3fn)
    w = draw(40, 52)
    w.view(torch.uint8)[0, :8] = torch.tensor([0, 0x80, 1, 0x81, 7, 8, 0x7E, 0xFE], dtype=torch.uint8)
    s = torch.rand(3, 4) * 0.01
    save("fp8", w.float() * blocked(s, 40, 52, 16, 16), X__weight=w, X__weight_scale_inv=s)
    e = torch.randint(100, 140, (3, 4), dtype=torch.uint8)
    save("fp8_e8m0", w.float() * blocked(torch.exp2(e.float() - 127), 40, 52, 16, 16), X__weight=w,
         X__weight_scale_inv=e.view(torch.float8_e8m0fnu))
    row = torch.rand(40, 1).to(torch.bfloat16)
    save("fp8_row", w.float() * row.float(), X__weight=w, X__weight_scale=row)
    one = torch.tensor(0.037)
    save("fp8_one", w.float() * one, X__weight=w, X__weight_scale=one)
    w, s = draw(3, 40, 52), torch.rand(3, 3, 4) * 0.01
    save("fp8_packed", w.float() * blocked(s, 40, 52, 16, 16), X__gate_up_proj=w, X__gate_up_proj_scale_inv=s)


def mxfp4():
    blocks = torch.randint(0, 256, (3, 10, 2, 16), dtype=torch.uint8)
    scales = torch.randint(110, 140, (3, 10, 2), dtype=torch.uint8)
    scales[0, 0, 0], scales[0, 0, 1] = 3, 250
    expected = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2)  # [3, 10, 64]
    save("mxfp4", expected, X__down_proj_blocks=blocks, X__down_proj_scales=scales)


SHIFTS = torch.arange(0, 32, 4, dtype=torch.int32)


def words(*shape):
    return torch.randint(-2**31, 2**31, shape, dtype=torch.int64).to(torch.int32)


def scales_of(*shape):
    return (torch.randn(shape) * 0.02).half()


def gptq(name, v1, act):
    rows, cols, group = 72, 96, 16
    qweight, qzeros, scales = words(cols // 8, rows), words(cols // group, rows // 8), scales_of(cols // group, rows)
    zeros = (qzeros.unsqueeze(2) >> SHIFTS) & 15
    if v1:
        zeros = (zeros + 1) & 15
    zeros = zeros.reshape(cols // group, rows)
    weight = ((qweight.unsqueeze(1) >> SHIFTS.unsqueeze(-1)) & 15).reshape(cols, rows)
    g_idx = torch.arange(cols, dtype=torch.int32) // group
    if act:
        g_idx = g_idx[torch.randperm(cols)]
    expected = scales[g_idx.long()].float() * (weight - zeros[g_idx.long()]).float()
    save(name, expected.T, X__qweight=qweight, X__qzeros=qzeros, X__scales=scales, X__g_idx=g_idx)


def awq():
    rows, cols, group = 72, 96, 16
    qweight, qzeros, scales = words(cols, rows // 8), words(cols // group, rows // 8), scales_of(cols // group, rows)

    def unpack(packed):
        values = ((packed.unsqueeze(2) >> SHIFTS) & 15)[..., [0, 4, 1, 5, 2, 6, 3, 7]]
        return values.reshape(packed.shape[0], -1)
    g = torch.arange(cols) // group
    expected = (unpack(qweight) - unpack(qzeros)[g]).float() * scales[g].float()
    save("awq", expected.T, X__qweight=qweight, X__qzeros=qzeros, X__scales=scales)


def packed(name, symmetric, strategy):
    rows, cols, group = 44, 96, 16
    args = QuantizationArgs(num_bits=4, symmetric=symmetric, strategy=strategy, group_size=group if strategy == "group" else None)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    groups = cols // group if strategy == "group" else 1
    weight = torch.randn(rows, cols)
    state = {"weight": weight, "weight_scale": torch.rand(rows, groups) * 0.3 + 0.05,
             "weight_zero_point": torch.zeros(rows, groups, dtype=torch.int8) if symmetric
             else torch.randint(-8, 8, (rows, groups), dtype=torch.int8)}
    stored = PackedQuantizationCompressor.compress(state, scheme)
    expected = PackedQuantizationCompressor.decompress(dict(stored), scheme)["weight"]
    save(name, expected, **{"X__" + k: v for k, v in stored.items() if v is not None})


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    ggml()
    fp8()
    mxfp4()
    gptq("gptq", v1=True, act=False)
    gptq("gptq_act", v1=True, act=True)
    gptq("gptq_v2", v1=False, act=False)
    awq()
    packed("packed", True, "group")
    packed("packed_zero", False, "group")
    packed("packed_row", True, "channel")


main()
