"""A random checkpoint of OLMoE's shape, as a Hugging Face folder and as a BF16 GGUF of the same tensors.

usage: make_olmoe.py FOLDER [--layers 4] [--seed 0] [--no-gguf]

For benchmarks, by hand, with a Python that has numpy and gguf. 0.92 GB for each layer in either form. Router rows are
scaled by lognormal factors, so that load is skewed as in trained models; norm weights are 1.
"""
import argparse
import json
import pathlib
import struct

import numpy as np

HIDDEN, WIDTH, EXPERTS, CHOSEN, HEADS, VOCAB, CONTEXT, EPS, THETA = 2048, 1024, 64, 8, 16, 50304, 4096, 1e-5, 10000.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-gguf", action="store_true")
    return parser.parse_args()


def config(layers):
    return {"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": HIDDEN, "intermediate_size": WIDTH,
            "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
            "num_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "norm_topk_prob": False, "vocab_size": VOCAB,
            "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS, "rope_theta": THETA, "hidden_act": "silu",
            "attention_bias": False, "clip_qkv": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
            "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}


def shapes(layers):
    """In the order of the file: the experts of one kind stand together, as GGUF wants them."""
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"):
            yield f"{prefix}{name}.weight", (HIDDEN,)
        for name in "qkvo":
            yield f"{prefix}self_attn.{name}_proj.weight", (HIDDEN, HIDDEN)
        yield f"{prefix}mlp.gate.weight", (EXPERTS, HIDDEN)
        for kind, shape in (("gate", (WIDTH, HIDDEN)), ("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH))):
            for expert in range(EXPERTS):
                yield f"{prefix}mlp.experts.{expert}.{kind}_proj.weight", shape
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCAB, HIDDEN)


def bf16(values):
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_safetensors(path, layers, seed):
    header, at = {}, 0
    for name, shape in shapes(layers):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    draw = np.random.default_rng(seed)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes(layers):
            if len(shape) == 1:
                values = np.ones(shape)
            else:
                values = draw.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            if name.endswith("mlp.gate.weight"):
                values *= np.exp(0.5 * draw.standard_normal((shape[0], 1), dtype=np.float32))
            file.write(bf16(values).tobytes())
    return header, 8 + len(text)


def write_gguf(path, safetensors, header, start, layers):
    import gguf
    stored = np.memmap(safetensors, dtype=np.uint8, mode="r")
    writer = gguf.GGUFWriter(path, "olmoe")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_rope_freq_base(THETA)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(CHOSEN)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)

    def raw(name, shape, count=1):
        begin = start + header[name]["data_offsets"][0]
        rows = stored[begin:begin + 2 * count * int(np.prod(shape))]
        return rows.reshape(*([count] if count > 1 else []), *shape[:-1], shape[-1] * 2)

    def matrix(ours, theirs, shape, count=1):
        writer.add_tensor(theirs, raw(ours, shape, count), raw_dtype=gguf.GGMLQuantizationType.BF16)

    def floats(ours, theirs, shape):
        words = np.frombuffer(raw(ours, shape).tobytes(), np.uint16).astype(np.uint32) << 16
        writer.add_tensor(theirs, words.view(np.float32).reshape(shape))

    matrix("model.embed_tokens.weight", "token_embd.weight", (VOCAB, HIDDEN))
    floats("model.norm.weight", "output_norm.weight", (HIDDEN,))
    matrix("lm_head.weight", "output.weight", (VOCAB, HIDDEN))
    for layer in range(layers):
        ours, theirs = f"model.layers.{layer}.", f"blk.{layer}."
        floats(ours + "input_layernorm.weight", theirs + "attn_norm.weight", (HIDDEN,))
        floats(ours + "post_attention_layernorm.weight", theirs + "ffn_norm.weight", (HIDDEN,))
        for name in "qk":
            floats(f"{ours}self_attn.{name}_norm.weight", f"{theirs}attn_{name}_norm.weight", (HIDDEN,))
        for name, to in zip("qkvo", ("q", "k", "v", "output")):
            matrix(f"{ours}self_attn.{name}_proj.weight", f"{theirs}attn_{to}.weight", (HIDDEN, HIDDEN))
        floats(ours + "mlp.gate.weight", theirs + "ffn_gate_inp.weight", (EXPERTS, HIDDEN))
        for kind, shape in (("gate", (WIDTH, HIDDEN)), ("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH))):
            matrix(f"{ours}mlp.experts.0.{kind}_proj.weight", f"{theirs}ffn_{kind}_exps.weight", shape, EXPERTS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    args = arguments()
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "config.json").write_text(json.dumps(config(args.layers), indent=1) + "\n")
    safetensors = args.folder / "model.safetensors"
    header, start = write_safetensors(safetensors, args.layers, args.seed)
    if not args.no_gguf:
        write_gguf(args.folder / "model-bf16.gguf", safetensors, header, start, args.layers)


main()
