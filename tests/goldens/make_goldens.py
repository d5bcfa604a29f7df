"""Writes the tiny checkpoints and what transformers computes on them, for tests/backend and tests/model.

usage: make_goldens.py [CASE ...]     (default: all, into the folder of this script)

Run by hand, outside the build, with: pip install "transformers==5.23.*" torch==2.11.0 safetensors numpy
The tests read only what it writes. Method: specs/families.md section 5. Every parameter is overwritten
with seeded noise, so that no norm is 1 and no bias 0; a seed is taken only if no routing decision and no
greedy choice hangs on a difference that rounding could turn. Run twice, it writes the same bytes.

Each family has one fp32 checkpoint per configuration and the same weights in other clothes:
  _sharded  several files with an index, config keys as the hub spells them
  _packed   all experts of a layer in one tensor (transformers 5, save_original_format=False)
  _bf16, _f16   rounded; computed in fp32 on the rounded weights
"""
import json
import pathlib
import shutil
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, MixtralConfig, OlmoeConfig, Qwen3MoeConfig

ROOT = pathlib.Path(__file__).resolve().parent
PROMPT_LENGTHS = (24, 37)
GREEDY_TOKENS = 24
ROUTER_MARGIN = 2e-3  # logits of rank k and k + 1
GREEDY_MARGIN = 1e-2  # best and second logit

COMMON = dict(vocab_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=128, tie_word_embeddings=False, initializer_range=0.1,
              pad_token_id=1, bos_token_id=2, eos_token_id=3)
MIXTRAL = dict(COMMON, hidden_size=48, head_dim=16, intermediate_size=24, num_local_experts=8,
               num_experts_per_tok=2)
OLMOE = dict(COMMON, hidden_size=64, intermediate_size=24, num_experts=8, num_experts_per_tok=3)
QWEN3 = dict(COMMON, hidden_size=48, head_dim=32, intermediate_size=40, moe_intermediate_size=24,
             num_hidden_layers=3, mlp_only_layers=[1], num_experts=8, num_experts_per_tok=3,
             norm_topk_prob=True)
CASES = {
    "mixtral": (MixtralConfig, MIXTRAL),
    "mixtral_window": (MixtralConfig, dict(MIXTRAL, sliding_window=8)),
    "olmoe": (OlmoeConfig, dict(OLMOE, clip_qkv=0.5, norm_topk_prob=False)),
    "olmoe_norm": (OlmoeConfig, dict(OLMOE, norm_topk_prob=True, attention_bias=True)),
    "qwen3_moe": (Qwen3MoeConfig, QWEN3),
    "qwen3_moe_yarn": (Qwen3MoeConfig, dict(QWEN3, num_hidden_layers=2, mlp_only_layers=[], rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32))),
}
CLOTHED = ("mixtral", "olmoe", "qwen3_moe")
EAGER = dict(attn_implementation="eager", experts_implementation="eager")


def build(config_class, values, seed):
    model = AutoModelForCausalLM.from_config(config_class(**values), dtype=torch.float32, **EAGER).eval()
    noise = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        n = torch.randn(parameter.shape, generator=noise)
        if "norm" in name:
            value = 1 + 0.2 * n
        elif name.endswith("bias"):
            value = 0.2 * n
        elif name.endswith("gate.weight"):  # the router
            value = 0.3 * n
        elif "embed_tokens" in name:
            value = n
        else:
            value = 1.3 * n / parameter.shape[-1] ** 0.5
        parameter.data.copy_(value)
    return model


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **EAGER).eval()


def routers(model):
    """(layer, gate module) of every MoE layer; the gate returns (logits, weights, ids)."""
    for layer, block in enumerate(model.model.layers):
        if hasattr(block.mlp, "experts"):
            yield layer, block.mlp.gate


def by_weight(weights, ids):
    """Slots in order of falling weight, then lower id, as a routing frame holds them."""
    order = sorted(range(len(ids)), key=lambda slot: (-weights[slot], ids[slot]))
    return [weights[slot] for slot in order], [ids[slot] for slot in order]


class Unsafe(Exception):
    pass


def margin_of(logits, k):
    ranked = logits.sort(dim=-1, descending=True).values
    return (ranked[..., k - 1] - ranked[..., k]).min().item()


def checked_forward(model, **inputs):
    seen = {}
    hooks = [gate.register_forward_hook(lambda _m, _i, out, layer=layer: seen.__setitem__(layer, out))
             for layer, gate in routers(model)]
    out = model(**inputs, use_cache=True)
    for hook in hooks:
        hook.remove()
    for logits, _, ids in seen.values():
        if margin_of(logits.float(), ids.shape[-1]) < ROUTER_MARGIN:
            raise Unsafe("a routing decision is nearly a tie")
    return out, seen


def numbers(tensor):
    return [[float(f"{x:.7g}") for x in row] for row in tensor.double().tolist()]


@torch.no_grad()
def expected(model, prompt):
    ids = torch.tensor([prompt])
    out, seen = checked_forward(model, input_ids=ids)
    result = {"ids": prompt, "logits": numbers(out.logits[0]), "routing": []}
    for layer, (logits, weights, chosen) in seen.items():
        slots = [by_weight(w, i) for w, i in zip(weights.double().tolist(), chosen.tolist())]
        result["routing"].append({
            "layer": layer, "logits": numbers(logits), "experts": [i for _, i in slots],
            "weights": [[float(f"{x:.7g}") for x in w] for w, _ in slots]})
    greedy, cache, row = [], out.past_key_values, out.logits[0, -1]
    for _ in range(GREEDY_TOKENS):
        if margin_of(row, 1) < GREEDY_MARGIN:
            raise Unsafe("a greedy choice is nearly a tie")
        greedy.append(int(row.argmax()))
        out, _ = checked_forward(model, input_ids=torch.tensor([[greedy[-1]]]), past_key_values=cache)
        cache, row = out.past_key_values, out.logits[0, -1]
    whole = model(input_ids=torch.tensor([prompt + greedy])).logits[0, -1]
    assert torch.allclose(whole, row, atol=1e-4), "cached and uncached decoding differ"
    result["greedy_ids"] = greedy
    return result


def write_expected(folder, model, prompts, seed):
    data = {"made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, fp32, eager attention and experts",
            "seed": seed, "prompts": [expected(model, prompt) for prompt in prompts]}
    (folder / "expected.json").write_text(json.dumps(data, separators=(",", ":")))


def hub_spelling(folder):
    """config.json with the keys of the models published before transformers 5."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"], config["rope_scaling"] = rope["rope_theta"], None
    config["torch_dtype"] = config.pop("dtype")
    if config["model_type"] == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts", config.get("num_experts"))
    path.write_text(json.dumps(config, indent=2))


def fresh(name):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def same_logits(folder, reference, prompt):
    with torch.no_grad():
        ids = torch.tensor([prompt])
        assert torch.equal(load(folder)(ids).logits, reference(ids).logits), f"{folder.name} is not the same model"


def write_case(name, seed):
    config_class, values = CASES[name]
    model = build(config_class, values, seed)
    draw = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(4, values["vocab_size"], (n,), generator=draw).tolist() for n in PROMPT_LENGTHS]

    folder = fresh(name)
    model.save_pretrained(folder)
    loaded = load(folder)
    write_expected(folder, loaded, prompts, seed)
    if name not in CLOTHED:
        return
    sharded = fresh(name + "_sharded")
    model.save_pretrained(sharded, max_shard_size="200KB")
    hub_spelling(sharded)
    packed = fresh(name + "_packed")
    model.save_pretrained(packed, save_original_format=False)
    for folder in (sharded, packed):
        same_logits(folder, loaded, prompts[1])
    for suffix, dtype in (("_bf16", torch.bfloat16), ("_f16", torch.float16)):
        rounded = fresh(name + suffix)
        build(config_class, values, seed).to(dtype).save_pretrained(rounded)
        write_expected(rounded, load(rounded), prompts, seed)


def main():
    torch.set_num_threads(1)  # sums in one order: the same bytes again
    for name in sys.argv[1:] or CASES:
        for seed in range(1, 200):
            try:
                write_case(name, seed)
            except Unsafe as reason:
                print(f"{name}: seed {seed}: {reason}")
                continue
            print(f"{name}: seed {seed} taken")
            break
        else:
            sys.exit(f"{name}: no seed keeps its margins")


main()
