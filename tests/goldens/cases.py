"""The table of golden cases: model_type, config values and what is special about a case.

Shapes are as small as the kinds allow (vocabulary 64, hidden size 32, 2 to 4 layers), so that all cases
together stay a few megabytes. The first word of each comment is the option of the case.
"""
import dataclasses
import typing


@dataclasses.dataclass
class Case:
    model_type: str
    values: dict
    lengths: tuple = (24, 37)       # tokens of the two prompts
    clothes: tuple = ()             # the same weights as "sharded", "packed", "bf16", "f16"
    coupled: bool = False           # tokens of one prefill share capacity or routing
    cache_is_exact: bool = True     # False: transformers' cached decoding differs from one forward
    cuts: bool = True               # False: a prompt read in pieces gives other numbers than in one
    tweak: typing.Callable | None = None


TOKENS = dict(pad_token_id=1, bos_token_id=2, eos_token_id=3)
BASE = dict(TOKENS, vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=128, tie_word_embeddings=False)


def rope(kind="default", theta=10000.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


def yarn(**more):
    return rope("yarn", factor=4.0, original_max_position_embeddings=32, **more)


LLAMA3 = rope("llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)

MIXTRAL = dict(BASE, head_dim=12, intermediate_size=8, num_local_experts=8, num_experts_per_tok=2)
OLMOE = dict(BASE, intermediate_size=8, num_experts=8, num_experts_per_tok=3)
QWEN2 = dict(BASE, num_hidden_layers=3, mlp_only_layers=[1], intermediate_size=24, moe_intermediate_size=8,
             shared_expert_intermediate_size=24, num_experts=8, num_experts_per_tok=3)
QWEN3 = dict(BASE, num_hidden_layers=3, mlp_only_layers=[1], head_dim=16, intermediate_size=24,
             moe_intermediate_size=8, num_experts=8, num_experts_per_tok=3, norm_topk_prob=True)
MLA = dict(BASE, num_key_value_heads=4, num_hidden_layers=3, kv_lora_rank=16, q_lora_rank=24, qk_nope_head_dim=12,
           qk_rope_head_dim=8, v_head_dim=10, intermediate_size=24, moe_intermediate_size=12, n_routed_experts=8,
           n_shared_experts=2, num_experts_per_tok=3, first_k_dense_replace=1)
DEEPSEEK2 = dict(MLA, topk_method="greedy", n_group=None, topk_group=None)
DEEPSEEK3 = dict(MLA, n_shared_experts=1, n_group=4, topk_group=2, norm_topk_prob=True, routed_scaling_factor=2.5)
GPT_OSS = dict(BASE, head_dim=12, intermediate_size=8, num_local_experts=8, num_experts_per_tok=2, sliding_window=8,
               layer_types=["sliding_attention", "full_attention"],
               rope_parameters=rope("yarn", 150000.0, factor=4.0, original_max_position_embeddings=32,
                                    beta_fast=32.0, beta_slow=1.0, truncate=False))
PHIMOE = dict(BASE, intermediate_size=8, num_local_experts=8, num_experts_per_tok=2, attention_bias=True,
              lm_head_bias=True, router_jitter_noise=0.01)
GRANITE = dict(BASE, intermediate_size=8, num_local_experts=8, num_experts_per_tok=2, embedding_multiplier=3.0,
               attention_multiplier=0.2, residual_multiplier=0.6, logits_scaling=0.8)
DBRX = dict(TOKENS, vocab_size=64, d_model=32, n_heads=4, n_layers=2, max_seq_len=128, tie_word_embeddings=False,
            rope_parameters=rope(),
            attn_config=dict(kv_n_heads=2, clip_qkv=1.0, rope_theta=10000.0),
            ffn_config=dict(hidden_size=32, ffn_hidden_size=8, moe_num_experts=8, moe_top_k=2))
LLAMA4 = dict(BASE, num_hidden_layers=4, head_dim=12, intermediate_size=8, intermediate_size_mlp=24,
              num_local_experts=6, num_experts_per_tok=1, interleave_moe_layer_step=2, attention_chunk_size=8,
              floor_scale=4, attn_scale=0.1, attn_temperature_tuning=True, rope_parameters=rope(theta=500000.0))


def exceed_clamp(stored, _noise):
    """gpt_oss: gate and up beyond the limit of 7 for many tokens."""
    for name, tensor in stored.items():
        if name.endswith("gate_up_proj"):
            tensor.data.mul_(3)


def deep_negative_bias(stored, noise):
    """Selection biases below -1: score + bias is negative, so a mask of 0 would win over it."""
    for name, tensor in stored.items():
        if name.endswith("correction_bias"):
            tensor.data.copy_(0.4 * tensor.new_empty(tensor.shape).normal_(generator=noise) - 1.3)


def longrope(pairs, **more):
    return rope("longrope", short_factor=[1.0 + 0.1 * i for i in range(pairs)],
                long_factor=[2.0 + 0.4 * i for i in range(pairs)], **more)


def dynamic(theta=10000.0):
    return rope("dynamic", theta, factor=2.0)


CASES = {
    # mixtral
    "mixtral": Case("mixtral", MIXTRAL, clothes=("sharded", "packed", "bf16", "f16")),
    "mixtral_window": Case("mixtral", dict(MIXTRAL, sliding_window=8)),
    "mixtral_linear": Case("mixtral", dict(MIXTRAL, rope_parameters=rope("linear", factor=4.0))),
    "mixtral_tied": Case("mixtral", dict(MIXTRAL, tie_word_embeddings=True, num_local_experts=5, num_experts_per_tok=5)),
    # olmoe
    "olmoe": Case("olmoe", dict(OLMOE, clip_qkv=0.5, norm_topk_prob=False), clothes=("packed", "bf16")),
    "olmoe_norm": Case("olmoe", dict(OLMOE, norm_topk_prob=True, attention_bias=True)),
    "olmoe_dynamic": Case("olmoe", dict(OLMOE, max_position_embeddings=72, rope_parameters=dynamic())),
    "olmoe_dynamic_long": Case("olmoe", dict(OLMOE, max_position_embeddings=32, rope_parameters=dynamic()),
                               lengths=(40, 57), cache_is_exact=False),
    # qwen2_moe
    "qwen2_moe": Case("qwen2_moe", QWEN2, clothes=("packed", "bf16")),
    "qwen2_moe_step": Case("qwen2_moe", dict(QWEN2, num_hidden_layers=4, mlp_only_layers=[], decoder_sparse_step=2,
                                             norm_topk_prob=True, qkv_bias=False)),
    "qwen2_moe_window": Case("qwen2_moe", dict(QWEN2, use_sliding_window=True, sliding_window=8, max_window_layers=3)),
    # qwen3_moe
    "qwen3_moe": Case("qwen3_moe", QWEN3, clothes=("sharded", "packed", "bf16")),
    "qwen3_moe_yarn": Case("qwen3_moe", dict(QWEN3, num_hidden_layers=2, mlp_only_layers=[], rope_parameters=yarn())),
    "qwen3_moe_llama3": Case("qwen3_moe", dict(QWEN3, num_hidden_layers=2, mlp_only_layers=[], attention_bias=True,
                                               norm_topk_prob=False, rope_parameters=LLAMA3)),
    # deepseek_v2
    "deepseek_v2": Case("deepseek_v2", DEEPSEEK2, clothes=("sharded",)),
    "deepseek_v2_lite": Case("deepseek_v2", dict(DEEPSEEK2, q_lora_rank=None, attention_bias=True,
                                                 rope_parameters=yarn(mscale=0.707, mscale_all_dim=0.707))),
    "deepseek_v2_groups": Case("deepseek_v2", dict(DEEPSEEK2, topk_method="group_limited_greedy", n_group=4,
                                                   topk_group=2, routed_scaling_factor=4.0)),
    # deepseek_v3
    "deepseek_v3": Case("deepseek_v3", DEEPSEEK3, clothes=("sharded", "packed", "bf16")),
    "deepseek_v3_negative_bias": Case("deepseek_v3", dict(DEEPSEEK3, norm_topk_prob=False), tweak=deep_negative_bias),
    "deepseek_v3_yarn": Case("deepseek_v3", dict(DEEPSEEK3, rope_parameters=yarn(mscale=1.0, mscale_all_dim=1.0))),
    "deepseek_v3_plain": Case("deepseek_v3", dict(DEEPSEEK3, n_group=1, topk_group=1, q_lora_rank=None,
                                                  rope_interleave=False)),
    # gpt_oss
    "gpt_oss": Case("gpt_oss", GPT_OSS, clothes=("sharded", "bf16"), tweak=exceed_clamp),
    "gpt_oss_limits": Case("gpt_oss", dict(GPT_OSS, swiglu_limit=2.0, swiglu_alpha=1.1, num_experts_per_tok=4)),
    # phimoe
    "phimoe": Case("phimoe", PHIMOE, clothes=("sharded", "packed", "bf16")),
    "phimoe_jitter": Case("phimoe", dict(PHIMOE, attention_bias=False, lm_head_bias=False, router_jitter_noise=0.2,
                                         sliding_window=8)),
    "phimoe_longrope": Case("phimoe", dict(PHIMOE, rope_parameters=longrope(
        4, short_mscale=1.1, long_mscale=1.3, original_max_position_embeddings=60)), lengths=(24, 64), cuts=False),
    "phimoe_longrope_long": Case("phimoe", dict(PHIMOE, rope_parameters=longrope(
        4, short_mscale=1.1, long_mscale=1.3, original_max_position_embeddings=20)), cuts=False),
    # granitemoe, granitemoeshared
    "granitemoe": Case("granitemoe", GRANITE, clothes=("sharded", "packed", "bf16")),
    "granitemoe_tied": Case("granitemoe", dict(GRANITE, tie_word_embeddings=True, attention_bias=True)),
    "granitemoeshared": Case("granitemoeshared", dict(GRANITE, shared_intermediate_size=20)),
    "granitemoeshared_none": Case("granitemoeshared", dict(GRANITE, shared_intermediate_size=0)),
    # dbrx
    "dbrx": Case("dbrx", DBRX, clothes=("bf16",)),
    "dbrx_p2": Case("dbrx", dict(DBRX, ffn_config=dict(DBRX["ffn_config"], moe_normalize_expert_weights=2.0, moe_top_k=3))),
    # llama4
    "llama4_text": Case("llama4_text", LLAMA4, clothes=("sharded", "bf16")),
    "llama4_text_llama3": Case("llama4_text", dict(LLAMA4, use_qk_norm=False, attn_temperature_tuning=False,
                                                   num_experts_per_tok=2, interleave_moe_layer_step=1,
                                                   num_hidden_layers=3, no_rope_layers=[1, 0, 1], rope_parameters=LLAMA3)),
}

# ---- second tier and the families outside the common frame ----------------------------------------

JETMOE = dict(TOKENS, vocab_size=64, hidden_size=32, num_hidden_layers=2, num_key_value_heads=2, kv_channels=12,
              intermediate_size=8, num_local_experts=6, num_experts_per_tok=2, max_position_embeddings=128)
QWEN3_NEXT = dict(BASE, num_hidden_layers=4, head_dim=16, intermediate_size=24, moe_intermediate_size=8,
                  shared_expert_intermediate_size=12, num_experts=6, num_experts_per_tok=3, linear_conv_kernel_dim=4,
                  linear_key_head_dim=8, linear_value_head_dim=10, linear_num_key_heads=2, linear_num_value_heads=4)
ERNIE = dict(BASE, num_hidden_layers=3, intermediate_size=24, moe_intermediate_size=12, moe_num_experts=8, moe_k=3,
             moe_num_shared_experts=2, moe_layer_start_index=1, tie_word_embeddings=True)
HUNYUAN = dict(BASE, head_dim=12, intermediate_size=8, num_experts=8, moe_topk=2)
MINIMAX = dict(BASE, num_hidden_layers=3, head_dim=12, intermediate_size=12, num_local_experts=6, num_experts_per_tok=2,
               block_size=8, layer_types=["linear_attention", "full_attention", "linear_attention"],
               full_attn_alpha_factor=1.2, full_attn_beta_factor=0.8, linear_attn_alpha_factor=0.9,
               linear_attn_beta_factor=1.1, mlp_alpha_factor=1.3, mlp_beta_factor=0.7)
MINIMAX_M2 = dict(BASE, head_dim=16, intermediate_size=8, num_local_experts=8, num_experts_per_tok=3,
                  rope_parameters=rope(partial_rotary_factor=0.5))
JAMBA = dict(BASE, num_hidden_layers=4, intermediate_size=8, num_experts=6, num_experts_per_tok=2,
             expert_layer_period=2, expert_layer_offset=1, attn_layer_period=3, attn_layer_offset=1,
             mamba_d_state=6, mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=4, use_mamba_kernels=False)
LFM2 = dict(BASE, num_hidden_layers=4, intermediate_size=24, moe_intermediate_size=12, num_dense_layers=1,
            num_experts=8, num_experts_per_tok=3, tie_word_embeddings=True,
            layer_types=["conv", "full_attention", "conv", "full_attention"])
FLEX_OLMO = dict(BASE, intermediate_size=8, num_experts=7, num_experts_per_tok=5)
GLM4 = dict(BASE, num_hidden_layers=3, head_dim=16, intermediate_size=24, moe_intermediate_size=12, n_routed_experts=8,
            n_shared_experts=1, num_experts_per_tok=3, first_k_dense_replace=1, attention_bias=True, use_qk_norm=True,
            n_group=1, topk_group=1, norm_topk_prob=True, routed_scaling_factor=1.5,
            rope_parameters=rope(partial_rotary_factor=0.5))
DOTS1 = dict(BASE, num_hidden_layers=3, head_dim=12, intermediate_size=24, moe_intermediate_size=12,
             n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3, first_k_dense_replace=1, n_group=1,
             topk_group=1, norm_topk_prob=True, routed_scaling_factor=2.5)
ARIA = dict(BASE, intermediate_size=8, moe_num_experts=8, moe_topk=3, moe_num_shared_experts=2)
LONGCAT = dict(TOKENS, vocab_size=64, hidden_size=32, num_layers=2, num_attention_heads=4, max_position_embeddings=128,
               q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=12, qk_rope_head_dim=8, head_dim=8, v_head_dim=10,
               ffn_hidden_size=24, expert_ffn_hidden_size=8, n_routed_experts=6, zero_expert_num=3, moe_topk=3,
               routed_scaling_factor=3.0, tie_word_embeddings=False)
DOGE = dict(BASE, intermediate_size=24, is_moe=True, num_experts=16, num_experts_per_tok=3, keep_window_size=16)
SWITCH = dict(vocab_size=64, d_model=32, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=2, num_heads=4,
              num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, expert_capacity=4,
              relative_attention_num_buckets=8, relative_attention_max_distance=20, decoder_start_token_id=0,
              pad_token_id=0, eos_token_id=1, dropout_rate=0.0)
NLLB = dict(vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=24, decoder_ffn_dim=24,
            encoder_attention_heads=4, decoder_attention_heads=4, num_experts=4, encoder_sparse_step=2,
            decoder_sparse_step=2, max_position_embeddings=128, dropout=0.0, attention_dropout=0.0,
            pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2)


def llama4_wrapper():
    vision = dict(hidden_size=16, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=28,
                  patch_size=14, vision_output_dim=16, projector_input_dim=16, projector_output_dim=16,
                  pixel_shuffle_ratio=0.5)
    return dict(text_config=LLAMA4, vision_config=vision, image_token_index=63, boi_token_index=62, eoi_token_index=61)


CASES |= {
    "llama4": Case("llama4", llama4_wrapper()),
    "jetmoe": Case("jetmoe", JETMOE, clothes=("bf16",)),
    "jetmoe_untied": Case("jetmoe", dict(JETMOE, tie_word_embeddings=False, num_experts_per_tok=3, rms_norm_eps=1e-3)),
    "qwen3_next": Case("qwen3_next", QWEN3_NEXT, clothes=("sharded", "packed")),
    "qwen3_next_dense": Case("qwen3_next", dict(QWEN3_NEXT, num_hidden_layers=3, mlp_only_layers=[1], norm_topk_prob=False,
                                                attention_bias=True, layer_types=["full_attention", "linear_attention",
                                                                                  "linear_attention"])),
    "ernie4_5_moe": Case("ernie4_5_moe", ERNIE, clothes=("packed", "bf16")),
    "ernie4_5_moe_bias": Case("ernie4_5_moe", dict(ERNIE, num_hidden_layers=4, use_bias=True, moe_layer_interval=2,
                                                   moe_layer_start_index=0, moe_num_shared_experts=0,
                                                   tie_word_embeddings=False)),
    "hunyuan_v1_moe": Case("hunyuan_v1_moe", HUNYUAN, clothes=("packed",)),
    "hunyuan_v1_moe_alpha": Case("hunyuan_v1_moe", dict(HUNYUAN, moe_topk=[1, 3], attention_bias=True, rope_parameters=rope(
        "dynamic", alpha=50.0, factor=1.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0))),
    # No bf16 clothing: transformers then rounds the stored decay buffers, and one pass and steps disagree.
    "minimax": Case("minimax", MINIMAX, clothes=("packed",)),
    "minimax_full": Case("minimax", dict(MINIMAX, num_hidden_layers=2, layer_types=["full_attention", "linear_attention"])),
    "minimax_m2": Case("minimax_m2", MINIMAX_M2, clothes=("packed",)),
    "jamba": Case("jamba", JAMBA, clothes=("packed", "bf16")),
    "jamba_bias": Case("jamba", dict(JAMBA, mamba_conv_bias=False, mamba_proj_bias=True, mamba_d_conv=3,
                                     tie_word_embeddings=True)),
    "lfm2_moe": Case("lfm2_moe", LFM2, clothes=("packed", "bf16")),
    "lfm2_moe_plain": Case("lfm2_moe", dict(LFM2, use_expert_bias=False, norm_topk_prob=False, conv_bias=True,
                                            routed_scaling_factor=2.0, tie_word_embeddings=False)),
    "flex_olmo": Case("flex_olmo", FLEX_OLMO, clothes=("packed",)),
    "flex_olmo_norm": Case("flex_olmo", dict(FLEX_OLMO, norm_topk_prob=True, num_experts_per_tok=2)),
    "glm4_moe": Case("glm4_moe", GLM4, clothes=("packed",)),
    "glm4_moe_groups": Case("glm4_moe", dict(GLM4, use_qk_norm=False, attention_bias=False, n_group=4, topk_group=2,
                                             first_k_dense_replace=0, num_hidden_layers=2)),
    "dots1": Case("dots1", DOTS1, clothes=("packed",)),
    "dots1_window": Case("dots1", dict(DOTS1, sliding_window=8, max_window_layers=1, attention_bias=True,
                                       norm_topk_prob=False)),
    "aria_text": Case("aria_text", ARIA),
    "longcat_flash": Case("longcat_flash", LONGCAT),
    "longcat_flash_yarn": Case("longcat_flash", dict(LONGCAT, rope_parameters=yarn(mscale=1.0, mscale_all_dim=1.0))),
    "doge": Case("doge", DOGE, coupled=True),
    "doge_norm": Case("doge", dict(DOGE, norm_topk_prob=True, num_key_value_heads=4, mlp_bias=False, attention_bias=True,
                                   sliding_window=8), coupled=True),
    # encoder-decoder: the expert capacity is short in the encoder and enough in steps of the decoder
    "switch_transformers": Case("switch_transformers", SWITCH, coupled=True, clothes=("bf16",)),
    "switch_transformers_untied": Case("switch_transformers", dict(
        SWITCH, tie_word_embeddings=False, num_layers=4, num_sparse_encoder_layers=2, router_bias=True,
        num_sparse_decoder_layers=2, expert_capacity=2, layer_norm_epsilon=1e-3), coupled=True),
    "nllb_moe": Case("nllb-moe", NLLB, coupled=True, clothes=("bf16",)),
    "nllb_moe_capacity": Case("nllb-moe", dict(NLLB, moe_eval_capacity_token_fraction=0.3, num_experts=6,
                                               normalize_router_prob_before_dropping=True, scale_embedding=False),
                              coupled=True),
    "nllb_moe_prioritized": Case("nllb-moe", dict(NLLB, moe_eval_capacity_token_fraction=0.3, moe_token_dropout=0.0,
                                                  batch_prioritized_routing=True, encoder_sparse_step=1,
                                                  tie_word_embeddings=False), coupled=True),
}
