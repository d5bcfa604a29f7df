"""`inspect` says what a run takes: within 10 % of the peak resident set of `run`, on checkpoints of 80 to 260 MB.

Measured is ru_maxrss of the child: anonymous memory and the touched pages of mapped files (weights, program, libraries) at
their highest. A run of the whole context, through every expert, so that all that is counted is touched. Weights are noise.
"""
import json
import os
import pathlib
import random
import struct
import subprocess
import unittest

from support import PROGRAM, CliTest

H, HEADS, KV, HD, LAYERS, EXPERTS, WIDTH, VOCAB, CONTEXT = 1024, 8, 4, 128, 4, 8, 1024, 512, 512
PROMPT = CONTEXT - 32
LIMIT = 0.10
COMMON = dict(hidden_size=H, num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=HD, num_hidden_layers=LAYERS,
              vocab_size=VOCAB, max_position_embeddings=CONTEXT, num_experts_per_tok=2, tie_word_embeddings=False,
              bos_token_id=2, eos_token_id=3)
PIECE = 1 << 20
# Of each type: bytes a value, and what random bytes become, so that values are small and finite.
LARGE = bytes(0x3F if b < 128 else 0xBF for b in range(256))  # of about 1: embeddings, so that each token routes its own way
SMALL = bytes(0x3C if b < 128 else 0xBC for b in range(256))  # the high byte of a bf16 of about 0.01
FINITE = bytes(b & 0xBF for b in range(256))                  # an e4m3 below 2
EXPONENT = bytes(118 for _ in range(256))
ONE = bytes.fromhex("803f")


def noise(dtype, count, rng, high=SMALL):
    """The bytes of `count` values, in pieces."""
    while count > 0:
        n = min(count, PIECE)
        count -= n
        raw = rng.randbytes(n)
        if dtype == "BF16":
            out = bytearray(2 * n)
            out[0::2], out[1::2] = rng.randbytes(n), raw.translate(high)
            yield out
        elif dtype == "F32":
            out = bytearray(4 * n)
            out[2::4], out[3::4] = rng.randbytes(n), raw.translate(SMALL)
            yield out
        else:
            yield raw.translate({"F8_E4M3": FINITE, "E8M0": EXPONENT}.get(dtype, bytes(range(256))))


def write(folder, config, tensors):
    """tensors: name -> (dtype, shape). Norms are ones."""
    sizes, header, at = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1, "E8M0": 1}, {}, 0
    for name, (dtype, shape) in sorted(tensors.items()):
        count = 1
        for dim in shape:
            count *= dim
        header[name] = {"dtype": "U8" if dtype == "E8M0" else dtype, "shape": shape, "data_offsets": [at, at + count * sizes[dtype]]}
        at += count * sizes[dtype]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = random.Random(1)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, (dtype, shape) in sorted(tensors.items()):
            count = (header[name]["data_offsets"][1] - header[name]["data_offsets"][0]) // sizes[dtype]
            if name.endswith("norm.weight"):
                file.write(ONE * count)
            else:
                for piece in noise(dtype, count, rng, LARGE if "embed_tokens" in name else SMALL):
                    file.write(piece)
    (folder / "config.json").write_text(json.dumps(config))


def frame(dtype="BF16"):
    tensors = {"model.embed_tokens.weight": (dtype, [VOCAB, H]), "lm_head.weight": (dtype, [VOCAB, H]), "model.norm.weight": (dtype, [H])}
    for n in range(LAYERS):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{n}.{norm}.weight"] = (dtype, [H])
    return tensors


def gqa(prefix, dtype="BF16"):
    return {f"{prefix}{p}_proj.weight": (dtype, shape) for p, shape in
            (("q", [HEADS * HD, H]), ("k", [KV * HD, H]), ("v", [KV * HD, H]), ("o", [H, HEADS * HD]))}


def experts(prefix, names, dtype="BF16", width=WIDTH, count=EXPERTS):
    gate, up, down = names
    return {f"{prefix}experts.{e}.{name}.weight": (dtype, shape) for e in range(count)
            for name, shape in ((gate, [width, H]), (up, [width, H]), (down, [H, width]))}


def with_scales(tensors):
    """FP8 in blocks of 128 x 128 where the name says a projection."""
    for name, (_, shape) in list(tensors.items()):
        if name.endswith("_proj.weight"):
            tensors[name] = ("F8_E4M3", shape)
            tensors[name + "_scale_inv"] = ("F32", [-(-shape[0] // 128), -(-shape[1] // 128)])
    return tensors


def mixtral():
    tensors = frame()
    for n in range(LAYERS):
        p = f"model.layers.{n}."
        tensors |= gqa(p + "self_attn.") | experts(p + "block_sparse_moe.", ("w1", "w3", "w2"))
        tensors[p + "block_sparse_moe.gate.weight"] = ("BF16", [EXPERTS, H])
    return dict(COMMON, model_type="mixtral", intermediate_size=WIDTH, num_local_experts=EXPERTS), tensors


def latent():
    rank, nope, rope, value = 256, 128, 64, 128
    tensors = frame()
    for n in range(LAYERS):
        p, a = f"model.layers.{n}.", f"model.layers.{n}.self_attn."
        tensors |= experts(p + "mlp.", ("gate_proj", "up_proj", "down_proj"))
        tensors |= {a + "q_proj.weight": ("BF16", [HEADS * (nope + rope), H]), a + "kv_a_proj_with_mqa.weight": ("BF16", [rank + rope, H]),
                    a + "kv_a_layernorm.weight": ("BF16", [rank]), a + "kv_b_proj.weight": ("BF16", [HEADS * (nope + value), rank]),
                    a + "o_proj.weight": ("BF16", [H, HEADS * value]), p + "mlp.gate.weight": ("BF16", [EXPERTS, H])}
        tensors |= {f"{p}mlp.shared_experts.{m}_proj.weight": ("BF16", [H, WIDTH] if m == "down" else [WIDTH, H]) for m in ("gate", "up", "down")}
    config = dict(COMMON, model_type="deepseek_v2", num_key_value_heads=HEADS, q_lora_rank=None, kv_lora_rank=rank, qk_nope_head_dim=nope,
                  qk_rope_head_dim=rope, v_head_dim=value, n_routed_experts=EXPERTS, n_shared_experts=1, moe_intermediate_size=WIDTH,
                  intermediate_size=WIDTH, first_k_dense_replace=0)
    del config["head_dim"]
    return config, tensors


def recurrent():
    """Lightning layers, whose state is [heads, head_dim, head_dim] a layer."""
    tensors = frame()
    for n in range(LAYERS):
        p, a = f"model.layers.{n}.", f"model.layers.{n}.self_attn."
        tensors |= experts(p + "block_sparse_moe.", ("w1", "w3", "w2"))
        tensors[p + "block_sparse_moe.gate.weight"] = ("BF16", [EXPERTS, H])
        if n == LAYERS - 1:
            tensors |= gqa(a)
        else:
            tensors |= {a + "qkv_proj.weight": ("BF16", [3 * HEADS * HD, H]), a + "out_proj.weight": ("BF16", [H, HEADS * HD]),
                        a + "output_gate.weight": ("BF16", [HEADS * HD, H]), a + "norm.weight": ("BF16", [HEADS * HD])}
    return dict(COMMON, model_type="minimax", intermediate_size=WIDTH, num_local_experts=EXPERTS, block_size=64, rms_norm_eps=1e-5,
                layer_types=["linear_attention"] * (LAYERS - 1) + ["full_attention"]), tensors


def fp8():
    tensors = frame()
    for n in range(LAYERS):
        p = f"model.layers.{n}."
        tensors |= gqa(p + "self_attn.") | experts(p + "mlp.", ("gate_proj", "up_proj", "down_proj"))
        tensors |= {p + "mlp.gate.weight": ("BF16", [EXPERTS, H]), p + "self_attn.q_norm.weight": ("BF16", [HD]), p + "self_attn.k_norm.weight": ("BF16", [HD])}
    return dict(COMMON, model_type="qwen3_moe", num_experts=EXPERTS, moe_intermediate_size=WIDTH, intermediate_size=WIDTH, norm_topk_prob=True,
                quantization_config=dict(quant_method="fp8", fmt="e4m3", weight_block_size=[128, 128])), with_scales(tensors)


def mxfp4():
    tensors = frame()
    for n in range(LAYERS):
        p, m = f"model.layers.{n}.self_attn.", f"model.layers.{n}.mlp."
        tensors |= gqa(p)
        tensors |= {f"{p}{name}_proj.bias": ("BF16", [rows]) for name, rows in (("q", HEADS * HD), ("k", KV * HD), ("v", KV * HD), ("o", H))}
        tensors |= {p + "sinks": ("BF16", [HEADS]), m + "router.weight": ("BF16", [EXPERTS, H]), m + "router.bias": ("BF16", [EXPERTS])}
        for name, rows, cols in (("gate_up", 2 * WIDTH, H), ("down", H, WIDTH)):
            tensors |= {f"{m}experts.{name}_proj_blocks": ("U8", [EXPERTS, rows, cols // 32, 16]), f"{m}experts.{name}_proj_bias": ("BF16", [EXPERTS, rows]),
                        f"{m}experts.{name}_proj_scales": ("E8M0", [EXPERTS, rows, cols // 32])}
    return dict(COMMON, model_type="gpt_oss", intermediate_size=WIDTH, num_local_experts=EXPERTS, sliding_window=128, attention_bias=True,
                quantization_config=dict(quant_method="mxfp4")), tensors


class Memory(CliTest):
    def peak_of(self, model, backend):
        """ru_maxrss of one run, in bytes. The child is started by a small process: an exec keeps its parent's mark."""
        rng = random.Random(2)
        ids = ",".join(str(rng.randrange(4, VOCAB)) for _ in range(PROMPT))
        log = self.folder / "log"
        with open(log, "wb") as out:
            child = subprocess.Popen([PROGRAM, "run", str(model), "--backend", backend, "--threads", "2", "--token-ids", ids,
                                      "--max-new-tokens", str(CONTEXT - PROMPT), "--greedy", "--ignore-eos", "--json"], stdout=out, stderr=out)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(child.returncode, 0, log.read_text())
        self.assertIn('"generated', log.read_text())
        return usage.ru_maxrss * 1024

    def check(self, build, backends=("cpu", "reference")):
        config, tensors = build()
        model = self.folder / "model"
        model.mkdir()
        write(model, config, tensors)
        said = self.json_of("inspect", "inspect", model)
        self.assertEqual(said["memory_context"], CONTEXT)
        size = (model / "model.safetensors").stat().st_size
        self.assertGreater(size, 80e6)
        for backend in backends:
            peak, terms = self.peak_of(model, backend), said["memory"][backend]
            line = f"{build.__name__} on {backend}: file {size / 1e6:.0f} MB, said {terms['total'] / 1e6:.0f}, took {peak / 1e6:.0f} MB " \
                   f"({terms['total'] / peak - 1:+.1%}; {terms})"
            print(line)
            with self.subTest(backend=backend):
                self.assertLess(abs(terms["total"] - peak) / peak, LIMIT, line)

    def test_grouped_query_bf16(self):
        self.check(mixtral)

    def test_latent_attention_bf16(self):
        self.check(latent)

    def test_recurrent_bf16(self):
        self.check(recurrent, ("reference",))

    def test_fp8(self):
        self.check(fp8)

    def test_mxfp4(self):
        self.check(mxfp4)


if __name__ == "__main__":
    unittest.main()
