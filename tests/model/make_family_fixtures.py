"""Writes tests/data/families/*.json: config.json and the tensors (name, dtype, shape) of tiny checkpoints, as transformers saves them.

usage: make_family_fixtures.py OUT_FOLDER     (transformers >= 5.15; made with 5.23.0, torch 2.11.0)

No weights: the tests fill in zeros. `packed` is save_pretrained(save_original_format=False), the layout of
transformers 5 in memory. The test also reads each config in the spelling of transformers 4 (see config_v4).
"""
import json
import pathlib
import sys
import tempfile

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, MixtralConfig, OlmoeConfig, Qwen3MoeConfig

SMALL = dict(vocab_size=256, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=128, tie_word_embeddings=False, pad_token_id=1, bos_token_id=2, eos_token_id=3)
MODELS = {
    "mixtral": MixtralConfig(**SMALL, intermediate_size=32, num_local_experts=8, num_experts_per_tok=2),
    "mixtral_window": MixtralConfig(**SMALL, intermediate_size=32, num_local_experts=4, num_experts_per_tok=2, sliding_window=8, head_dim=32),
    "olmoe": OlmoeConfig(**SMALL, intermediate_size=32, num_experts=8, num_experts_per_tok=3, clip_qkv=0.5, norm_topk_prob=True),
    "olmoe_bias": OlmoeConfig(**SMALL, intermediate_size=32, num_experts=4, num_experts_per_tok=2, attention_bias=True),
    "qwen3_moe": Qwen3MoeConfig(**(SMALL | dict(num_hidden_layers=4, eos_token_id=[3, 4])), head_dim=32, moe_intermediate_size=32,
                                intermediate_size=48, num_experts=8, num_experts_per_tok=3, norm_topk_prob=True, mlp_only_layers=[1]),
    "qwen3_moe_step": Qwen3MoeConfig(**(SMALL | dict(num_hidden_layers=4, tie_word_embeddings=True)), moe_intermediate_size=32,
                                     intermediate_size=48, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=2,
                                     use_sliding_window=True, sliding_window=16, attention_bias=True),
}
DTYPES = {"mixtral_window": torch.float16, "olmoe_bias": torch.bfloat16}


def config_v4(config):
    """The same config as transformers 4 spelled it."""
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype", "num_local_experts")}
    rope = dict(config["rope_parameters"])
    old["rope_theta"] = rope.pop("rope_theta")
    old["rope_scaling"] = None if rope == {"rope_type": "default"} else rope
    old["torch_dtype"] = config["dtype"]
    if "num_local_experts" in config:
        old["num_local_experts" if config["model_type"] == "mixtral" else "num_experts"] = config["num_local_experts"]
    return old


for name, config in MODELS.items():
    model = AutoModelForCausalLM.from_config(config, dtype=DTYPES.get(name, torch.float32))
    fixture = {"made_by": "tests/model/make_family_fixtures.py, transformers 5.23.0"}
    for layout, original in (("tensors", True), ("packed", False)):
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, save_original_format=original)
            saved = json.loads((pathlib.Path(folder) / "config.json").read_text())
            with safe_open(pathlib.Path(folder) / "model.safetensors", "pt") as file:
                fixture[layout] = {key: [file.get_slice(key).get_dtype(), file.get_slice(key).get_shape()] for key in file.keys()}
    fixture["parameters"] = sum(p.numel() for p in model.parameters())
    fixture["config_v5"] = saved
    fixture["config_v4"] = config_v4(saved)
    # One line per key keeps the diff readable.
    text = "{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in fixture.items()) + "\n}\n"
    (pathlib.Path(sys.argv[1]) / f"{name}.json").write_text(text)
