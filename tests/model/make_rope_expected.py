"""Writes tests/data/rope/expected.json: inverse frequencies and attention factors as transformers computes them.

usage: make_rope_expected.py OUT.json     (transformers >= 5.15; made with 5.23.0, torch 2.11.0)

Each case is the part of a config.json that our reader sees, in the spelling of transformers 4 or 5, and what
MixtralRotaryEmbedding makes of it (where a part of the head is rotated, which Mixtral ignores, Glm4MoeRotaryEmbedding). `context` is max_position_embeddings; for longrope our plan ends at the original one.
"""
import json
import sys

from transformers import Glm4MoeConfig, MixtralConfig
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeRotaryEmbedding
from transformers.models.mixtral.modeling_mixtral import MixtralRotaryEmbedding

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
LONG = {"rope_type": "longrope", "short_factor": [1.0 + 0.05 * i for i in range(16)],
        "long_factor": [2.0 + i for i in range(16)], "original_max_position_embeddings": 4096}

CASES = {  # name: (head_dim, max_position_embeddings, config keys)
    "default": (128, 40960, {"rope_theta": 1000000.0}),
    "default, theta absent": (64, 4096, {}),
    "default, transformers 5": (32, 2048, {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    "default, partial": (64, 2048, {"rope_parameters": {"rope_type": "default", "rope_theta": 50000.0, "partial_rotary_factor": 0.5}}),
    "linear": (64, 8192, {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.5}}),
    "llama3": (128, 131072, {"rope_theta": 500000.0, "rope_scaling": LLAMA3}),
    "llama3, transformers 5": (64, 131072, {"rope_parameters": dict(LLAMA3, rope_theta=10000.0, factor=32.0)}),
    "yarn": (128, 131072, {"rope_theta": 1000000.0, "rope_scaling": YARN}),
    "yarn, mscale": (64, 163840, {"rope_theta": 10000.0, "rope_scaling": dict(YARN, factor=40.0, original_max_position_embeddings=4096,
                                                                         mscale=1.0, mscale_all_dim=0.707)}),
    "yarn, not truncated": (64, 131072, {"rope_theta": 150000.0, "rope_scaling": dict(YARN, factor=32.0, beta_fast=32.0, beta_slow=1.0,
                                                                            truncate=False, original_max_position_embeddings=4096)}),
    "yarn, attention factor given": (64, 131072, {"rope_theta": 10000.0, "rope_scaling": dict(YARN, attention_factor=1.25)}),
    "yarn, ramp of no width": (4, 64, {"rope_theta": 10000.0, "rope_scaling": dict(YARN, original_max_position_embeddings=4)}),
    "longrope, short": (32, 131072, {"rope_theta": 10000.0, "rope_scaling": LONG}),
    "longrope, factor given": (32, 8192, {"rope_theta": 10000.0, "rope_scaling": dict(LONG, factor=3.0)}),
}

cases = []
for name, (head_dim, context, keys) in CASES.items():
    # MixtralConfig's own default theta is 1e6; the reader is told the same default by the test.
    partial = "partial_rotary_factor" in json.dumps(keys)
    config_class, rope_class = (Glm4MoeConfig, Glm4MoeRotaryEmbedding) if partial else (MixtralConfig, MixtralRotaryEmbedding)
    config = config_class(hidden_size=head_dim * 2, num_attention_heads=2, head_dim=head_dim,
                          max_position_embeddings=context, **json.loads(json.dumps(keys)))
    rope = rope_class(config)
    cases.append({"name": name, "head_dim": head_dim, "context": context, "config": keys,
                  "inv_freq": [float(x) for x in rope.inv_freq], "attention_factor": float(rope.attention_scaling)})
with open(sys.argv[1], "w") as out:
    json.dump({"made_by": "tests/model/make_rope_expected.py, transformers 5.23.0, torch 2.11.0", "cases": cases}, out, indent=1)
