"""Checks on checkpoints that nobody has seen: random shapes, options, layouts and types for every family.

usage: unseen.py SEED N [FAMILY ...] [--test PROGRAM] [--keep DIR]

Writes N checkpoints a family with what transformers computes on them, in the form of the goldens, and runs
families_golden_test (default: build/dev/bin) over them: every backend, whole prompts and pieces, greedy decoding.
A case that transformers itself refuses is named and left out. Exit status 1 if a case fails.
"""
import argparse
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

import torch
import transformers

import cases
import make_goldens
import oracle
from cases import LLAMA3, Case, longrope, rope, yarn

ROOT = pathlib.Path(__file__).resolve().parents[2]


def any_rope(r, dims, **more):
    """A rope of any type for `dims` rotated dimensions."""
    theta = r.choice([100.0, 10000.0, 1e6])
    kind = r.choice(["default", "default", "linear", "llama3", "yarn", "longrope"])
    if kind == "linear":
        return rope("linear", theta, factor=r.choice([2.0, 3.5]), **more)
    if kind == "llama3":
        return dict(LLAMA3, rope_theta=theta, original_max_position_embeddings=r.choice([16, 32, 64]), **more)
    if kind == "yarn":
        extra = r.choice([{}, dict(beta_fast=16.0, beta_slow=2.0), dict(attention_factor=1.3), dict(truncate=False)])
        return rope("yarn", theta, factor=r.choice([2.0, 5.0]), original_max_position_embeddings=r.choice([24, 64]),
                    **extra, **more)
    if kind == "longrope":
        return dict(longrope(dims // 2), rope_theta=theta, original_max_position_embeddings=r.choice([16, 128]),
                    **r.choice([{}, dict(attention_factor=1.2), dict(factor=4.0)]), **more)
    return rope(theta=theta, **more)


def mscale_rope(r):
    return r.choice([rope(), rope(theta=500.0), yarn(mscale=1.0, mscale_all_dim=r.choice([0.5, 1.0])), yarn(mscale=0.707, mscale_all_dim=0.707)])


def base(r, layers=(1, 2, 3), explicit_head_dim=True):
    """What every family has; head_dim is given where the family reads it."""
    kv = r.choice([1, 2, 3])
    heads = kv * r.choice([1, 2, 3])
    dim = r.choice([6, 8, 10, 14])
    values = dict(cases.TOKENS, vocab_size=r.choice([50, 64, 77]), num_hidden_layers=r.choice(layers),
                  num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=128,
                  tie_word_embeddings=r.random() < 0.3, hidden_size=heads * dim)
    if explicit_head_dim and r.random() < 0.7:
        values |= dict(hidden_size=r.choice([20, 24, 36]), head_dim=dim)
    return values


def dim_of(values):
    return values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]


def experts(r, most=12):
    e = r.choice([2, 3, 5, 7, 8, 12])
    return e, r.choice([1, min(2, e), min(3, e), e])


def boolean(r):
    return r.random() < 0.5


def mixtral(r):
    v = base(r)
    e, k = experts(r)
    return v | dict(intermediate_size=r.choice([5, 8, 13]), num_local_experts=e, num_experts_per_tok=k,
                    sliding_window=r.choice([None, 3, 11]), rope_parameters=any_rope(r, dim_of(v)), rms_norm_eps=r.choice([1e-5, 1e-2]))


def olmoe(r):
    v = base(r, explicit_head_dim=False)
    e, k = experts(r)
    return v | dict(intermediate_size=r.choice([5, 8]), num_experts=e, num_experts_per_tok=k, norm_topk_prob=boolean(r),
                    clip_qkv=r.choice([None, 0.3, 2.0]), attention_bias=boolean(r), rope_parameters=any_rope(r, dim_of(v)))


def qwen2_moe(r):
    v = base(r, (2, 3, 4), explicit_head_dim=False)
    e, k = experts(r)
    sparse = r.choice([dict(mlp_only_layers=[0]), dict(decoder_sparse_step=2), {}])
    window = r.choice([{}, dict(use_sliding_window=True, sliding_window=5, max_window_layers=r.choice([1, 2, 4]))])
    return v | sparse | window | dict(
        intermediate_size=18, moe_intermediate_size=r.choice([5, 8]), shared_expert_intermediate_size=r.choice([7, 12]),
        num_experts=e, num_experts_per_tok=k, norm_topk_prob=boolean(r), qkv_bias=boolean(r),
        rope_parameters=any_rope(r, dim_of(v)))


def qwen3_moe(r):
    v = base(r, (2, 3))
    v["head_dim"] = dim_of(v)
    e, k = experts(r)
    sparse = r.choice([dict(mlp_only_layers=[0]), dict(decoder_sparse_step=2), {}])
    return v | sparse | dict(intermediate_size=18, moe_intermediate_size=r.choice([5, 8]), num_experts=e,
                             num_experts_per_tok=k, norm_topk_prob=boolean(r), attention_bias=boolean(r),
                             rope_parameters=any_rope(r, v["head_dim"]))


def latent(r):
    v = base(r, (2, 3), explicit_head_dim=False)
    v["num_key_value_heads"] = v["num_attention_heads"]
    return v | dict(q_lora_rank=r.choice([None, 10, 24]), kv_lora_rank=r.choice([6, 16]), v_head_dim=r.choice([5, 8, 14]),
                    qk_nope_head_dim=r.choice([6, 12]), qk_rope_head_dim=r.choice([4, 6, 8]), intermediate_size=18,
                    moe_intermediate_size=r.choice([4, 7]), attention_bias=boolean(r), rope_parameters=mscale_rope(r))


def groups(r):
    n = r.choice([1, 2, 4])
    kept = r.choice([g for g in (1, 2, 3, 4) if g <= n])
    e = n * r.choice([2, 3])
    return dict(n_group=n, topk_group=kept, n_routed_experts=e, num_experts_per_tok=r.choice([1, 2, kept * e // n]))


def deepseek_v2(r):
    routing = r.choice([dict(topk_method="greedy", n_group=None, topk_group=None, n_routed_experts=7,
                             num_experts_per_tok=r.choice([1, 3, 7])),
                        dict(groups(r), topk_method="group_limited_greedy")])
    return latent(r) | routing | dict(n_shared_experts=r.choice([1, 2]), first_k_dense_replace=r.choice([0, 1]),
                                      routed_scaling_factor=r.choice([1.0, 3.0]), norm_topk_prob=False)


def deepseek_v3(r):
    return latent(r) | groups(r) | dict(
        n_shared_experts=r.choice([1, 2]), first_k_dense_replace=r.choice([0, 1]), norm_topk_prob=boolean(r),
        routed_scaling_factor=r.choice([1.0, 2.5]), rope_interleave=boolean(r))


def gpt_oss(r):
    v = base(r, (2, 3))
    v["head_dim"] = dim_of(v)
    e, k = experts(r)
    return v | dict(intermediate_size=r.choice([5, 8]), num_local_experts=e, num_experts_per_tok=k,
                    sliding_window=r.choice([3, 9]), swiglu_limit=r.choice([1.0, 7.0]),
                    rope_parameters=r.choice([cases.GPT_OSS["rope_parameters"], any_rope(r, v["head_dim"])]))


def phimoe(r):
    v = base(r, explicit_head_dim=False)
    lrope = dict(longrope(dim_of(v) // 2, short_mscale=1.2, long_mscale=0.9),
                 original_max_position_embeddings=r.choice([8, 128]))
    return v | dict(intermediate_size=8, num_local_experts=r.choice([2, 5, 8]), num_experts_per_tok=2,
                    attention_bias=boolean(r), lm_head_bias=not v["tie_word_embeddings"] and boolean(r),
                    router_jitter_noise=r.choice([0.01, 0.2]), sliding_window=r.choice([None, 5]),
                    rope_parameters=r.choice([rope(), lrope]))


def granitemoe(r):
    v = base(r, explicit_head_dim=False)
    e, k = experts(r)
    return v | dict(intermediate_size=r.choice([5, 8]), num_local_experts=e, num_experts_per_tok=k,
                    attention_bias=boolean(r), embedding_multiplier=r.choice([1.0, 4.0]),
                    attention_multiplier=r.choice([0.1, 0.5]), residual_multiplier=r.choice([0.3, 1.0]),
                    logits_scaling=r.choice([0.5, 1.5]), rope_parameters=any_rope(r, dim_of(v)))


def granitemoeshared(r):
    return granitemoe(r) | dict(shared_intermediate_size=r.choice([0, 9]))


def dbrx(r):
    kv = r.choice([1, 2])
    heads = kv * r.choice([1, 2, 3])
    e, k = experts(r)
    hidden, theta = heads * r.choice([6, 10]), r.choice([100.0, 10000.0])
    return dict(cases.TOKENS, vocab_size=64, d_model=hidden, n_heads=heads, n_layers=r.choice([1, 2]), max_seq_len=128,
                rope_parameters=rope(theta=theta),
                attn_config=dict(kv_n_heads=kv, clip_qkv=r.choice([0.5, 8.0]), rope_theta=theta),
                ffn_config=dict(hidden_size=hidden, ffn_hidden_size=r.choice([5, 8]), moe_num_experts=e, moe_top_k=k,
                                moe_normalize_expert_weights=r.choice([None, 1.0, 2.0])))


def llama4_text(r):
    v = base(r, (2, 4))
    v["head_dim"] = dim_of(v)
    e, k = experts(r)
    return v | dict(intermediate_size=r.choice([5, 8]), intermediate_size_mlp=11, num_local_experts=e,
                    num_experts_per_tok=k, interleave_moe_layer_step=r.choice([1, 2]), use_qk_norm=boolean(r),
                    attention_chunk_size=r.choice([5, 16]), floor_scale=r.choice([2, 7]), attn_scale=0.3,
                    attn_temperature_tuning=boolean(r), no_rope_layer_interval=r.choice([2, 4]),
                    rope_parameters=r.choice([rope(), LLAMA3]))


def jetmoe(r):
    e, k = r.choice([(4, 1), (5, 2), (6, 3)])
    return cases.JETMOE | dict(num_local_experts=e, num_experts_per_tok=k, num_key_value_heads=r.choice([1, 3]),
                               kv_channels=r.choice([6, 10]), intermediate_size=r.choice([5, 8]),
                               tie_word_embeddings=boolean(r), rope_parameters=rope(theta=r.choice([100.0, 1e4])))


def qwen3_next(r):
    v = base(r, (2, 4))
    e, k = experts(r)
    v["head_dim"] = r.choice([8, 16])
    kh = r.choice([1, 2])
    return v | dict(intermediate_size=18, moe_intermediate_size=5, shared_expert_intermediate_size=7, num_experts=e,
                    num_experts_per_tok=k, norm_topk_prob=boolean(r), linear_conv_kernel_dim=r.choice([2, 4]),
                    linear_key_head_dim=r.choice([4, 8]), linear_value_head_dim=r.choice([6, 8]), linear_num_key_heads=kh,
                    linear_num_value_heads=kh * r.choice([1, 2, 3]), attention_bias=boolean(r),
                    layer_types=[r.choice(["linear_attention", "full_attention"]) for _ in range(v["num_hidden_layers"] - 1)]
                    + ["full_attention"], rope_parameters=rope(partial_rotary_factor=r.choice([0.25, 0.5])))


def ernie4_5_moe(r):
    v = base(r, (2, 3, 4))
    v.pop("head_dim", None)
    v["hidden_size"] = v["num_attention_heads"] * r.choice([6, 8])
    e, k = experts(r)
    return v | dict(intermediate_size=18, moe_intermediate_size=r.choice([4, 7]), moe_num_experts=e, moe_k=k,
                    moe_num_shared_experts=r.choice([0, 1, 2]), moe_layer_start_index=r.choice([0, 1]),
                    moe_layer_interval=r.choice([1, 2]) if v["num_hidden_layers"] > 2 else 1, use_bias=boolean(r))


def hunyuan_v1_moe(r):
    v = base(r)
    e, k = experts(r)
    alpha = rope("dynamic", alpha=30.0, factor=1.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0)
    return v | dict(head_dim=dim_of(v), intermediate_size=7, num_experts=e, moe_topk=k, attention_bias=boolean(r),
                    rope_parameters=r.choice([rope(), alpha]))


def minimax(r):
    v = base(r, (2, 3))
    e, k = experts(r)
    kinds = ["linear_attention", "full_attention"]
    return v | dict(head_dim=dim_of(v), intermediate_size=6, num_local_experts=e, num_experts_per_tok=k, block_size=r.choice([4, 16, 256]),
                    layer_types=[r.choice(kinds) for _ in range(v["num_hidden_layers"])], full_attn_alpha_factor=1.1,
                    full_attn_beta_factor=0.9, linear_attn_alpha_factor=0.8, mlp_beta_factor=1.2)


def minimax_m2(r):
    v = base(r)
    v["head_dim"] = r.choice([8, 12])
    e, k = experts(r)
    return v | dict(intermediate_size=6, num_local_experts=e, num_experts_per_tok=k,
                    rope_parameters=rope(partial_rotary_factor=r.choice([0.5, 1.0])))


def jamba(r):
    v = base(r, (2, 4), explicit_head_dim=False)
    e, k = experts(r)
    return v | dict(intermediate_size=6, num_experts=e, num_experts_per_tok=k, expert_layer_period=r.choice([1, 2]),
                    expert_layer_offset=0, attn_layer_period=2, attn_layer_offset=r.choice([0, 1]),
                    mamba_d_state=r.choice([4, 6]), mamba_d_conv=r.choice([2, 4]), mamba_dt_rank=r.choice([1, 3, "auto"]),
                    mamba_conv_bias=boolean(r), mamba_proj_bias=boolean(r), use_mamba_kernels=False)


def lfm2_moe(r):
    v = base(r, (2, 4), explicit_head_dim=False)
    e, k = experts(r)
    return v | dict(intermediate_size=18, moe_intermediate_size=6, num_dense_layers=r.choice([0, 1]), num_experts=e,
                    num_experts_per_tok=k, use_expert_bias=boolean(r), norm_topk_prob=boolean(r), conv_bias=boolean(r),
                    conv_L_cache=r.choice([2, 3, 4]), routed_scaling_factor=r.choice([1.0, 2.0]),
                    layer_types=[r.choice(["conv", "full_attention"]) for _ in range(v["num_hidden_layers"] - 1)]
                    + ["full_attention"])


def flex_olmo(r):
    v = base(r, explicit_head_dim=False)
    e, k = experts(r)
    return v | dict(intermediate_size=6, num_experts=e, num_experts_per_tok=k, norm_topk_prob=boolean(r),
                    attention_bias=boolean(r), rope_parameters=any_rope(r, dim_of(v)))


def glm4_moe(r):
    v = base(r, (2, 3))
    v["head_dim"] = r.choice([8, 12])
    return v | groups(r) | dict(
        intermediate_size=18, moe_intermediate_size=5, n_shared_experts=r.choice([1, 2]), first_k_dense_replace=r.choice([0, 1]),
        norm_topk_prob=boolean(r), routed_scaling_factor=1.5, attention_bias=boolean(r), use_qk_norm=boolean(r),
        rope_parameters=rope(partial_rotary_factor=r.choice([0.5, 1.0])))


def dots1(r):
    v = base(r, (2, 3))
    return v | groups(r) | dict(
        head_dim=dim_of(v), intermediate_size=18, moe_intermediate_size=5, n_shared_experts=r.choice([1, 2]),
        first_k_dense_replace=r.choice([0, 1]), norm_topk_prob=boolean(r), routed_scaling_factor=2.5,
        attention_bias=boolean(r), sliding_window=6, max_window_layers=r.choice([1, 62]))


def aria_text(r):
    v = base(r)
    e, k = experts(r)
    return v | dict(head_dim=dim_of(v), intermediate_size=7, moe_num_experts=e, moe_topk=k, moe_num_shared_experts=r.choice([1, 2]),
                    attention_bias=boolean(r))


def longcat_flash(r):
    e = r.choice([3, 6])
    z = r.choice([1, 4])
    return cases.LONGCAT | dict(n_routed_experts=e, zero_expert_num=z, moe_topk=r.choice([1, 2, e + z]), num_layers=r.choice([1, 2]),
                                q_lora_rank=r.choice([10, 24]), kv_lora_rank=r.choice([6, 16]), v_head_dim=r.choice([6, 12]),
                                rope_parameters=mscale_rope(r))


def doge(r):
    v = base(r, explicit_head_dim=False)
    keys = r.choice([2, 3, 4])
    return v | dict(intermediate_size=9, is_moe=True, num_experts=keys * keys, num_experts_per_tok=r.choice([1, 2, keys]),
                    norm_topk_prob=boolean(r), keep_window_size=r.choice([4, 16, 2048]), attention_bias=boolean(r))


def switch_transformers(r):
    n = r.choice([1, 2, 4])
    return cases.SWITCH | dict(d_kv=r.choice([5, 8]), num_heads=r.choice([1, 3]), d_model=r.choice([18, 24]), d_ff=11, num_layers=n,
                               num_sparse_encoder_layers=r.choice([1, n]), num_experts=r.choice([2, 5]),
                               expert_capacity=r.choice([1, 3, 64]), tie_word_embeddings=boolean(r), router_bias=boolean(r),
                               relative_attention_num_buckets=r.choice([8, 32]), relative_attention_max_distance=r.choice([20, 128]))


def nllb_moe(r):
    return cases.NLLB | dict(d_model=24, encoder_attention_heads=r.choice([2, 3]), decoder_attention_heads=r.choice([1, 4]),
                             encoder_ffn_dim=11, decoder_ffn_dim=13, num_experts=r.choice([2, 3, 7]),
                             encoder_layers=r.choice([2, 3]), encoder_sparse_step=r.choice([1, 2]), router_bias=boolean(r),
                             batch_prioritized_routing=boolean(r), normalize_router_prob_before_dropping=boolean(r),
                             moe_eval_capacity_token_fraction=r.choice([0.2, 0.5, 1.0]), moe_token_dropout=r.choice([0.0, 0.2]),
                             tie_word_embeddings=boolean(r), scale_embedding=boolean(r))


MODEL_TYPES = {"nllb_moe": "nllb-moe"}
COUPLED = ("doge", "switch_transformers", "nllb_moe")
FAMILIES = [mixtral, olmoe, qwen2_moe, qwen3_moe, deepseek_v2, deepseek_v3, gpt_oss, phimoe, granitemoe, granitemoeshared,
            dbrx, llama4_text, jetmoe, switch_transformers, nllb_moe, qwen3_next, ernie4_5_moe, hunyuan_v1_moe, minimax,
            minimax_m2, jamba, lfm2_moe, flex_olmo, glm4_moe, dots1, aria_text, longcat_flash, doge]


def write(name, family, r, seed):
    values = family(r)
    lengths = (r.randint(1, 20), r.randint(21, 60))
    case = Case(MODEL_TYPES.get(family.__name__, family.__name__), values, lengths=lengths, coupled=family.__name__ in COUPLED,
                cuts="longrope" not in str(values), cache_is_exact="longrope" not in str(values))
    case.clothes = tuple(r.sample(["sharded", "packed"], r.randint(0, 1))) + (("bf16",) if r.random() < 0.2 else ())
    make_goldens.write_case(name, case, seed)
    return values


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--test", default=str(ROOT / "build/dev/bin/families_golden_test"))
    parser.add_argument("--keep")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(arguments.keep or scratch)
        folder.mkdir(exist_ok=True)
        make_goldens.ROOT = folder
        described = {}
        for family in FAMILIES:
            if arguments.families and family.__name__ not in arguments.families:
                continue
            for index in range(arguments.count):
                name = f"{family.__name__}_s{arguments.seed}n{index}"
                r = random.Random(f"{arguments.seed} {family.__name__} {index}")
                try:
                    described[name] = write(name, family, r, arguments.seed * 1000 + index)
                except (Exception, SystemExit) as reason:
                    print(f"{name}: left out, no reference: {type(reason).__name__}: {str(reason)[:200]}", flush=True)
                    for leftover in folder.glob(name + "*"):
                        make_goldens.shutil.rmtree(leftover)
        run = subprocess.run([arguments.test], env=os.environ | {"SWITCHYARD_GOLDENS": str(folder)}, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(run.stdout)
        for failed in sorted(set(re.findall(r"FAILED  \].*/(\w+), where", run.stdout))):
            plain = next((n for n in described if failed.startswith(n)), failed)
            print(f"FAILED {failed}: {described.get(plain)}")
        return run.returncode


if __name__ == "__main__":
    sys.exit(main())
