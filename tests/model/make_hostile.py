"""Writes tests/data/hostile/model: broken and hostile checkpoint files, and cases.json with the message and exit
code each must give.

usage: make_hostile.py SOURCE_ROOT      (Python's standard library only)

`base` and `base_sharded` are sound checkpoints of 700 bytes of weights. A case is one file that takes the place of
the file of its kind in a copy of them: safetensors/*, config/* and generation/* in `base`, index/* in `base_sharded`.
The messages were written from formats.md section 3, families.md section 4 and reliability.md section 4, before the
reader's own were seen. legal/* are unusual files that must be read; cases.json lists what they hold.
"""
import json
import pathlib
import shutil
import struct
import sys

OUT = pathlib.Path(sys.argv[1]) / "tests/data/hostile/model"
MALFORMED, NOT_FOUND = 4, 3
H, HEADS, KV, HEAD, WIDTH, EXPERTS, VOCAB = 4, 2, 1, 2, 3, 2, 8

CONFIG = {"model_type": "mixtral", "vocab_size": VOCAB, "hidden_size": H, "intermediate_size": WIDTH, "num_hidden_layers": 1,
          "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": HEAD, "num_local_experts": EXPERTS,
          "num_experts_per_tok": 1, "max_position_embeddings": 16, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
          "tie_word_embeddings": False, "eos_token_id": 2, "bos_token_id": 1}
LAYER = "model.layers.0."
SHAPES = {"model.embed_tokens.weight": [VOCAB, H], "lm_head.weight": [VOCAB, H], "model.norm.weight": [H],
          LAYER + "input_layernorm.weight": [H], LAYER + "post_attention_layernorm.weight": [H],
          LAYER + "self_attn.q_proj.weight": [HEADS * HEAD, H], LAYER + "self_attn.k_proj.weight": [KV * HEAD, H],
          LAYER + "self_attn.v_proj.weight": [KV * HEAD, H], LAYER + "self_attn.o_proj.weight": [H, HEADS * HEAD],
          LAYER + "block_sparse_moe.gate.weight": [EXPERTS, H]}
for e in range(EXPERTS):
    SHAPES |= {f"{LAYER}block_sparse_moe.experts.{e}.{w}.weight": [H, WIDTH] if w == "w2" else [WIDTH, H] for w in ("w1", "w2", "w3")}

SIZES = {"F64": 8, "F32": 4, "I32": 4, "BF16": 2, "F8_E4M3": 1, "U8": 1}
cases, legal = [], []


def length(header):
    return struct.pack("<Q", len(header))


def framed(header, data=b""):
    header = header if isinstance(header, bytes) else header.encode()
    return length(header) + header + data


def entries(shapes, dtype="BF16"):
    at, header = 0, {}
    for name, shape in shapes.items():
        size = SIZES[dtype]
        for dim in shape:
            size *= dim
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return header, bytes(at)


def safetensors(shapes, dtype="BF16"):
    header, data = entries(shapes, dtype)
    return framed(json.dumps(header), data)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def case(kind, name, content, *message, code=MALFORMED):
    suffix = ".safetensors" if kind == "safetensors" else ".json"
    write(OUT / kind / (name + suffix), content)
    cases.append({"file": f"{kind}/{name}{suffix}", "exit": code, "message": list(message)})


def legal_case(name, content, *tensors):
    write(OUT / "legal" / f"{name}.safetensors", content)
    legal.append({"file": f"legal/{name}.safetensors", "tensors": [list(t) for t in tensors]})


def one(dtype="F32", shape=(2,), offsets=(0, 8), data=8, name="a", **more):
    entry = {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape,
             "data_offsets": list(offsets) if isinstance(offsets, tuple) else offsets} | more
    return framed(json.dumps({name: {k: v for k, v in entry.items() if v is not None}}), bytes(data))


def two(first, second, data):
    return framed(json.dumps({n: {"dtype": "F32", "shape": [(e - b) // 4], "data_offsets": [b, e]}
                              for n, (b, e) in (("a", first), ("b", second))}), bytes(data))


def safetensors_cases():
    def bad(name, content, *message):
        case("safetensors", name, content, "model.safetensors", *message)

    bad("empty_file", b"", "has 0 bytes")
    bad("seven_bytes", b"\x02\0\0\0\0\0\0", "has 7 bytes")
    bad("header_length_huge", b"\xff" * 8 + b"{}", "declares a header of 18446744073709551615 bytes", "100000000")
    bad("header_length_wraps", b"\x3c" + b"\xff" * 7 + b"{}", "declares a header of 18446744073709551420 bytes")
    bad("header_length_2_63", struct.pack("<Q", 2**63) + b"{}", "declares a header of 9223372036854775808 bytes")
    bad("header_length_above_limit", struct.pack("<Q", 100_000_001) + b"{}", "declares a header of 100000001 bytes, the limit is 100000000")
    bad("header_length_at_limit", struct.pack("<Q", 100_000_000) + b"{}", "declares a header of 100000000 bytes, 2 follow")
    bad("header_length_one_more", struct.pack("<Q", 3) + b"{}", "declares a header of 3 bytes, 2 follow")
    bad("header_empty", framed(""), "does not start with '{'")
    bad("header_starts_with_space", framed(" {}"), "does not start with '{'")
    bad("header_is_a_list", framed("[]"), "does not start with '{'")
    bad("header_starts_with_mark", framed(b"\xef\xbb\xbf{}"), "does not start with '{'")
    bad("header_cut", framed("{"), "header: not valid JSON at byte 2")
    bad("header_cut_in_string", framed('{"a'), "header: not valid JSON")
    bad("header_trailing_comma", framed('{"a": 1,}'), "header: not valid JSON")
    bad("header_then_garbage", framed("{} x"), "header: not valid JSON")
    bad("header_then_nul", framed(b"{}\0\0"), "header: not valid JSON")
    bad("header_single_quotes", framed("{'a': 1}"), "header: not valid JSON")
    bad("header_with_comment", framed('{/* */}'), "header: not valid JSON")
    bad("header_not_utf8", framed(b'{"\xff\xfe": 1}'), "header: not valid JSON", "UTF-8")
    bad("header_overlong_utf8", framed(b'{"\xc0\xaf": 1}'), "header: not valid JSON", "UTF-8")
    bad("header_lone_surrogate", framed('{"\\ud800": 1}'), "header: not valid JSON", "surrogate")
    bad("header_number_overflows", framed('{"a": 1e400}'), "header: not valid JSON at byte 11", "number overflow")
    bad("header_depth_5", framed('{"a":[[[[1]]]]}'), "nested deeper than 4 levels")
    bad("header_depth_huge", framed('{"a":' + "[" * 40000), "nested deeper than 4 levels")
    bad("duplicate_tensor", framed('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
        "/a appears twice")
    bad("duplicate_tensor_escaped", framed('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}', b"x"),
        "/a appears twice")
    bad("duplicate_field", framed('{"a":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}}', b"x"), "/a/dtype appears twice")
    bad("metadata_number", framed('{"__metadata__":{"format":1}}'), "/__metadata__/format is 1, needs a string")
    bad("metadata_nested", framed('{"__metadata__":{"a":{"b":"c"}}}'), "/__metadata__/a is an object, needs a string")
    bad("metadata_list", framed('{"__metadata__":["pt"]}'), "/__metadata__ is an array, needs an object")
    bad("tensor_is_a_number", framed('{"a":7}'), "/a", "needs an object")
    bad("tensor_is_null", framed('{"a":null}'), 'tensor "a" is null, needs an object')
    bad("dtype_missing", one(dtype=None), "/a/dtype is missing")
    bad("shape_missing", one(shape=None), "/a/shape is missing")
    bad("offsets_missing", one(offsets=None), "/a/data_offsets is missing")
    bad("dtype_unknown", one(dtype="F128"), 'tensor "a" has the unknown dtype "F128"')
    bad("dtype_lower_case", one(dtype="f32"), 'tensor "a" has the unknown dtype "f32"')
    bad("dtype_empty", one(dtype=""), 'tensor "a" has the unknown dtype ""')
    bad("dtype_number", one(dtype=32), "/a/dtype is 32, needs a string")
    bad("shape_negative", one(shape=(-2,)), "/a/shape/0 is -2, needs 0 to")
    bad("shape_fraction", one(shape=(2.5,)), "/a/shape/0 is 2.5, needs an integer")
    bad("shape_exponent", one(shape=(1e3,)), "/a/shape/0 is 1000.0, needs an integer")
    bad("shape_text", one(shape=("2",)), '/a/shape/0 is "2", needs an integer')
    bad("shape_bool", one(shape=(True,)), "/a/shape/0 is true, needs an integer")
    bad("shape_not_a_list", one(shape=2), "/a/shape is 2, needs an array")
    for exponent in (31, 32, 53):
        for step in (-1, 0, 1):
            value = 2**exponent + step
            bad(f"shape_2_{exponent}_{'minus' if step < 0 else 'plus' if step else 'exact'}", one(shape=(value,)),
                f'tensor "a" (F32, shape [{value}]) needs {value * 4} bytes')
    bad("shape_2_63_minus", one(shape=(2**63 - 1,)), "overflows 64 bits")
    bad("shape_2_63", one(shape=(2**63,)), "/a/shape/0 is 9223372036854775808, needs 0 to 9223372036854775807")
    bad("shape_2_64_minus", one(shape=(2**64 - 1,)), "/a/shape/0 is 18446744073709551615, needs 0 to 9223372036854775807")
    bad("shape_2_64", one(shape=(2**64,)), "/a/shape/0", "18446744073709551616", "out of range")
    bad("shape_product_overflows", one(shape=(2, 2**63 - 1)), "overflows 64 bits")
    bad("shape_product_wraps_to_0", one(shape=(2**32, 2**32), offsets=(0, 0), data=0), "overflows 64 bits")
    bad("shape_bits_overflow", one(dtype="F64", shape=(2**59,)), "overflows 64 bits")
    bad("shape_0_after_overflow", one(shape=(2**62, 2**62, 0), offsets=(0, 0), data=0), "overflows 64 bits")
    bad("rank_9", one(shape=(1,) * 9, offsets=(0, 4), data=4), 'tensor "a" has 9 dimensions, the limit is 8')
    bad("rank_1000", one(shape=(1,) * 1000, offsets=(0, 4), data=4), 'tensor "a" has 1000 dimensions, the limit is 8')
    bad("offsets_one", one(offsets=(0,)), 'tensor "a" has 1 data_offsets')
    bad("offsets_three", one(offsets=(0, 4, 8)), 'tensor "a" has 3 data_offsets')
    bad("offsets_negative", one(offsets=(-8, 0)), "/a/data_offsets/0 is -8, needs 0 to")
    bad("offsets_fraction", one(offsets=(0, 8.0)), "/a/data_offsets/1 is 8.0, needs an integer")
    bad("offsets_reversed", one(offsets=(8, 0)), 'tensor "a" ends at 0 before it begins at 8')
    bad("offsets_2_64_minus", one(offsets=(0, 2**64 - 1)), "/a/data_offsets/1 is 18446744073709551615, needs 0 to")
    bad("offsets_beyond_2_53", one(offsets=(2**53 + 1, 2**53 + 9)), 'tensor "a" begins at byte 9007199254740993', "hole")
    bad("size_too_small", one(offsets=(0, 4), data=4), 'tensor "a" (F32, shape [2]) needs 8 bytes, its data_offsets [0, 4] hold 4')
    bad("size_too_large", one(offsets=(0, 12), data=12), 'tensor "a" (F32, shape [2]) needs 8 bytes, its data_offsets [0, 12] hold 12')
    bad("half_bytes", one(dtype="F4", shape=(3,), offsets=(0, 1), data=1), 'tensor "a" (F4, shape [3]) has 12 bits, not a whole number of bytes')
    bad("six_bits", one(dtype="F6_E2M3", shape=(5,), offsets=(0, 3), data=3), "has 30 bits, not a whole number of bytes")
    bad("hole_at_start", one(offsets=(4, 12), data=12), 'tensor "a" begins at byte 4', "hole")
    bad("hole_in_middle", two((0, 8), (12, 16), 16), 'tensor "b" begins at byte 12', "hole", "ends at 8")
    bad("overlap", two((0, 8), (4, 12), 12), 'tensor "b" begins at byte 4', "inside the tensor before it", "ends at 8")
    bad("same_bytes_twice", two((0, 8), (0, 8), 8), "begins at byte 0", "inside the tensor before it")
    bad("trailing_bytes", one(data=9), "has 1 bytes after the last tensor")
    bad("trailing_zip", one() + b"PK\x05\x06" + bytes(18), "has 22 bytes after the last tensor")
    bad("no_tensors_but_data", framed("{}", b"data"), "has 4 bytes after the last tensor")
    bad("data_cut", one(data=7), 'tensor "a" ends at byte 8 of the data, the file holds 7')
    bad("data_missing", one(data=0), 'tensor "a" ends at byte 8 of the data, the file holds 0')
    bad("name_with_nul", one(name="a\0b"), 'tensor "a\\x00b" has a control character')
    bad("name_with_escape", one(name="\x1b[2J"), 'tensor "\\x1b[2J" has a control character')
    bad("name_too_long", one(name="a" * 1025), "has a name of 1025 bytes, the limit is 1024")
    bad("not_safetensors", b"GGUF\x03\0\0\0" + bytes(64), f"declares a header of {struct.unpack('<Q', b'GGUF' + struct.pack('<I', 3))[0]} bytes")
    # Sound files that are not this model.
    bad("no_tensors", framed("{}"), 'tensor "model.embed_tokens.weight" is missing')
    without = {k: v for k, v in SHAPES.items() if not k.endswith("experts.1.w2.weight")}
    bad("tensor_missing", safetensors(without), f'tensor "{LAYER}block_sparse_moe.experts.1.w2.weight" is missing', "[4, 3]")
    bad("tensor_transposed", safetensors(SHAPES | {LAYER + "block_sparse_moe.experts.0.w1.weight": [H, WIDTH]}),
        "experts.0.w1.weight", "has shape [4, 3]", "needs [3, 4]")
    bad("router_too_short", safetensors(SHAPES | {LAYER + "block_sparse_moe.gate.weight": [EXPERTS - 1, H]}),
        "block_sparse_moe.gate.weight", "has shape [1, 4]", "(num_local_experts = 2) needs [2, 4]", "another revision")
    bad("norm_of_rank_2", safetensors(SHAPES | {"model.norm.weight": [1, H]}), '"model.norm.weight" has shape [1, 4]', "needs [4]")
    bad("embedding_empty", safetensors(SHAPES | {"model.embed_tokens.weight": [0, H]}), "has shape [0, 4]", "needs [8, 4]")
    bad("stored_as_f8", safetensors(SHAPES, "F8_E4M3"), "is stored as F8_E4M3, supported are F32, BF16 and F16")
    bad("stored_as_i32", safetensors(SHAPES, "I32"), "is stored as I32")
    bad("stored_as_f64", safetensors(SHAPES, "F64"), "is stored as F64")


def config_cases():
    def raw(name, text, *message, code=MALFORMED):
        case("config", name, text, "config.json", *message, code=code)

    def bad(name, changes, *message):
        raw(name, json.dumps({k: v for k, v in (CONFIG | changes).items() if v != "ABSENT"}), *message)

    raw("empty_file", "", "not valid JSON")
    raw("cut", json.dumps(CONFIG)[:-20], "not valid JSON at byte")
    raw("not_utf8", b'{"model_type": "mix\xfftral"}', "not valid JSON", "UTF-8")
    raw("a_list", "[]", "is an array, needs an object")
    raw("null", "null", "is null, needs an object")
    raw("html", "<!DOCTYPE html><title>Login</title>", "not valid JSON at byte 1")
    raw("lfs_pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "not valid JSON at byte 1")
    raw("duplicate_key", json.dumps(CONFIG)[:-1] + ', "hidden_size": 8}', "/hidden_size appears twice")
    raw("not_a_number", json.dumps(CONFIG)[:-1] + ', "x": NaN}', "not valid JSON")
    raw("deep", '{"a":' + "[" * 64 + "]" * 64 + "}", "nested deeper than 64 levels")
    bad("no_model_type", {"model_type": "ABSENT"}, "/model_type is missing")
    bad("model_type_number", {"model_type": 7}, "/model_type is 7, needs a string")
    bad("model_type_dense", {"model_type": "llama"}, 'model_type "llama"', "Supported families: ")
    bad("model_type_not_yet", {"model_type": "gpt2"}, 'model_type "gpt2"', "Supported families")
    bad("model_type_with_escape", {"model_type": "\x1b]0;x\x07"}, 'model_type "\\x1b]0;x\\x07"')
    bad("quantised_eetq", {"quantization_config": {"quant_method": "eetq"}}, 'quant_method "eetq"', "not supported", "Supported: fp8")
    bad("quantised_gptq_3_bits", {"quantization_config": {"quant_method": "gptq", "bits": 3}}, "bits = 3", "not supported")
    bad("quantised_fp8_one_block_size", {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128]}}, "needs 2")
    bad("quantised_unnamed", {"quantization_config": {}}, 'quant_method "unnamed"')
    for key, limit in (("hidden_size", 2**20), ("vocab_size", 2**24), ("max_position_embeddings", 2**24), ("num_hidden_layers", 1024),
                       ("num_local_experts", 65535), ("num_attention_heads", 2**20)):
        bad(f"{key}_missing", {key: "ABSENT"}, f"/{key} is missing")
        bad(f"{key}_zero", {key: 0}, f"/{key} is 0, needs 1 to {limit}")
        bad(f"{key}_negative", {key: -1}, f"/{key} is -1, needs 1 to {limit}")
        bad(f"{key}_above_limit", {key: limit + 1}, f"/{key} is {limit + 1}, needs 1 to {limit}")
        bad(f"{key}_2_64", {key: 2**64}, f"/{key} holds the integer 18446744073709551616, which is out of range")
    bad("hidden_size_fraction", {"hidden_size": 4.5}, "/hidden_size is 4.5, needs an integer")
    bad("hidden_size_text", {"hidden_size": "4"}, '/hidden_size is "4", needs an integer')
    bad("hidden_size_other", {"hidden_size": 8}, 'tensor "model.embed_tokens.weight" has shape [8, 4]', "needs [8, 8]")
    bad("more_layers", {"num_hidden_layers": 2}, 'tensor "model.layers.1.input_layernorm.weight" is missing')
    bad("more_experts", {"num_local_experts": 3}, "has shape [2, 4]", "(num_local_experts = 3) needs [3, 4]")
    bad("experts_and_layers_too_many", {"num_local_experts": 65535, "num_hidden_layers": 1024}, "the limit is 1000000 experts in all")
    bad("k_zero", {"num_experts_per_tok": 0}, "/num_experts_per_tok is 0, needs 1 to")
    bad("k_above_experts", {"num_experts_per_tok": 3}, "num_experts_per_tok = 3, more than its 2 experts")
    bad("kv_heads_do_not_divide", {"num_attention_heads": 3, "num_key_value_heads": 2}, "num_attention_heads = 3", "num_key_value_heads = 2")
    bad("head_dim_zero", {"head_dim": 0}, "/head_dim is 0, needs 1 to")
    bad("head_dim_odd", {"head_dim": 3}, "rotate 3 dimensions")
    bad("head_dim_other", {"head_dim": 4}, "self_attn.q_proj.weight", "has shape [4, 4]", "head_dim = 4) needs [8, 4]")
    bad("tied_text", {"tie_word_embeddings": "false"}, '/tie_word_embeddings is "false", needs true or false')
    bad("window_zero", {"sliding_window": 0}, "/sliding_window is 0, needs 1 to")
    bad("eps_text", {"rms_norm_eps": "1e-5"}, '/rms_norm_eps is "1e-5", needs a number')
    bad("eps_beyond_float", {"rms_norm_eps": 1e300}, "/rms_norm_eps is 1e+300, needs 0")
    bad("eps_negative", {"rms_norm_eps": -1.0}, "/rms_norm_eps is -1.0, needs 0")
    bad("activation_unknown", {"hidden_act": "xielu"}, 'hidden_act = "xielu"', "supported are silu")
    bad("activation_number", {"hidden_act": 1}, "/hidden_act is 1, needs a string")
    bad("eos_negative", {"eos_token_id": -1}, "/eos_token_id is -1, needs 0 to 7")
    bad("eos_beyond_vocabulary", {"eos_token_id": [2, 8]}, "/eos_token_id/1 is 8, needs 0 to 7")
    bad("eos_text", {"eos_token_id": "</s>"}, '/eos_token_id is "</s>", needs an integer')
    bad("bos_beyond_vocabulary", {"bos_token_id": 8}, "/bos_token_id is 8, needs 0 to 7")
    bad("rope_theta_zero", {"rope_theta": 0}, "rope_theta 0")
    bad("rope_theta_text", {"rope_theta": "1e4"}, '/rope_theta is "1e4", needs a number')
    bad("rope_scaling_list", {"rope_scaling": []}, "/rope_scaling is not an object")
    bad("rope_dynamic", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "/rope_scaling of type dynamic rotates 2 dimensions, needs 4")
    bad("rope_unknown", {"rope_scaling": {"rope_type": "mrope"}}, 'the rope type "mrope"')
    bad("rope_type_number", {"rope_scaling": {"rope_type": 1}}, "/rope_scaling/rope_type is 1, needs a string")
    bad("rope_factor_missing", {"rope_scaling": {"rope_type": "linear"}}, "/rope_scaling/factor is missing")
    bad("rope_factor_zero", {"rope_scaling": {"rope_type": "linear", "factor": 0}}, "/rope_scaling/factor is 0, needs a number above 0")
    bad("rope_factor_tiny", {"rope_scaling": {"rope_type": "linear", "factor": 1e-300}}, "not finite")
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8}
    bad("rope_llama3_no_band", {"rope_scaling": llama3}, "high_freq_factor 4", "more than low_freq_factor 4")
    bad("rope_llama3_original_missing", {"rope_scaling": {k: v for k, v in llama3.items() if k[0] != "o"}}, "needs more than low_freq_factor")
    bad("rope_yarn_theta_one", {"rope_theta": 1, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_theta 1, needs more than 1")
    bad("rope_longrope_short", {"rope_scaling": {"rope_type": "longrope", "short_factor": [], "factor": 2.0}}, "has 0 short_factor values, needs 1")
    bad("rope_longrope_text", {"rope_scaling": {"rope_type": "longrope", "short_factor": ["1"], "factor": 2.0}}, '/rope_scaling/short_factor/0 is "1", needs a number')
    bad("rope_partial", {"partial_rotary_factor": 2.0}, "partial_rotary_factor 2")
    bad("rope_v5_type_missing_theta_text", {"rope_parameters": {"rope_theta": "x"}}, '/rope_parameters/rope_theta is "x", needs a number')


def generation_cases():
    def bad(name, text, *message):
        case("generation", name, text if isinstance(text, (str, bytes)) else json.dumps(text), "generation_config.json", *message)

    bad("cut", '{"do_sample": tr', "not valid JSON")
    bad("a_list", [], "is an array, needs an object")
    bad("do_sample_number", {"do_sample": 1}, "/do_sample is 1, needs true or false")
    bad("temperature_text", {"temperature": "hot"}, '/temperature is "hot", needs a number')
    bad("temperature_negative", {"temperature": -0.5}, "/temperature is -0.5, needs 0 to")
    bad("top_p_two", {"top_p": 2}, "/top_p is 2, needs 0 to 1")
    bad("top_k_negative", {"top_k": -1}, "/top_k is -1, needs 0 to")
    bad("top_k_2_32", {"top_k": 2**32}, "/top_k is 4294967296, needs 0 to")
    bad("eos_beyond_vocabulary", {"eos_token_id": 8}, "/eos_token_id is 8, needs 0 to 7")
    bad("eos_fraction", {"eos_token_id": [2.0]}, "/eos_token_id/0 is 2.0, needs an integer")


def index_cases():
    def raw(name, text, *message, code=MALFORMED):
        case("index", name, text, *message, code=code)

    def bad(name, weight_map, *message, code=MALFORMED):
        raw(name, json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}), *message, code=code)

    where = "model.safetensors.index.json"
    first = "model.embed_tokens.weight"
    raw("empty_file", "", where, "not valid JSON")
    raw("a_list", "[]", where, "is an array, needs an object")
    raw("no_weight_map", '{"metadata": {}}', where, "/weight_map is missing")
    raw("duplicate_tensor", '{"weight_map": {"a": "model-00001-of-00002.safetensors", "a": "model-00002-of-00002.safetensors"}}', where, "/weight_map/a appears twice")
    bad("weight_map_list", [], where, "/weight_map is an array, needs an object")
    bad("weight_map_empty", {}, where, "/weight_map names no tensor")
    bad("shard_number", {first: 1}, where, "is 1, needs a string")
    hostile_names = {"absolute": "/etc/passwd.safetensors", "parent": "../model.safetensors", "parent_deep": "../../../../etc/x.safetensors",
                     "folder": "sub/model.safetensors", "current": "./model.safetensors", "backslash": "..\\model.safetensors",
                     "drive": "C:\\model.safetensors", "nul": "model.safetensors\0.safetensors", "newline": "a\n.safetensors", "dot": ".",
                     "dots": "..", "empty": "", "no_suffix": "config.json", "suffix_upper": "model.SAFETENSORS", "pickle": "model.bin",
                     "url": "https://example.org/model.safetensors", "too_long": "a" * 244 + ".safetensors", "home": "~/model.safetensors",
                     "slash_end": "model.safetensors/", "double_slash": "//model.safetensors", "proc": "/proc/self/fd/0.safetensors"}
    for name, shard in hostile_names.items():
        bad("shard_" + name, {first: shard}, where, f"/weight_map/{first} is", "needs the plain name of a .safetensors file in the same folder", "Refused")
    bad("shard_missing", {first: "model-00003-of-00003.safetensors"}, "model-00003-of-00003.safetensors: is not in", code=NOT_FOUND)
    bad("tensor_not_in_shard", {first: "model-00002-of-00002.safetensors"}, "model-00002-of-00002.safetensors: does not hold tensor", first)
    bad("tensor_unknown", {"a\u001b[31m": "model-00001-of-00002.safetensors"}, 'does not hold tensor "a\\x1b[31m"')
    bad("half_the_model", {first: "model-00001-of-00002.safetensors"}, 'tensor "lm_head.weight" is missing')


def legal_cases():
    entry = lambda dtype, shape, begin, end: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    legal_case("no_tensors", framed("{}"))
    legal_case("only_metadata", framed('{"__metadata__":{"format":"pt","empty":""}}'))
    legal_case("padded_with_spaces", framed("{}      "))
    legal_case("empty_tensor", framed(json.dumps({"a": entry("F32", [2, 0, 3], 0, 0)})), ("a", "F32", [2, 0, 3], 0))
    legal_case("empty_among_others", framed(json.dumps({"a": entry("U8", [0], 0, 0), "b": entry("U8", [3], 0, 3), "c": entry("U8", [0], 3, 3)}), b"xyz"),
               ("a", "U8", [0], 0), ("b", "U8", [3], 3), ("c", "U8", [0], 0))
    legal_case("rank_0", framed(json.dumps({"a": entry("BF16", [], 0, 2)}), b"xy"), ("a", "BF16", [], 2))
    legal_case("rank_8", framed(json.dumps({"a": entry("U8", [1] * 8, 0, 1)}), b"x"), ("a", "U8", [1] * 8, 1))
    legal_case("unordered", framed(json.dumps({"z": entry("F32", [1], 6, 10), "a": entry("F16", [3], 0, 6)}), bytes(10)),
               ("a", "F16", [3], 6), ("z", "F32", [1], 4))
    legal_case("unaligned", framed(json.dumps({"a": entry("U8", [1], 0, 1), "b": entry("F64", [1], 1, 9)}), bytes(9)),
               ("a", "U8", [1], 1), ("b", "F64", [1], 8))
    legal_case("six_bits", framed(json.dumps({"a": entry("F6_E3M2", [4], 0, 3)}), bytes(3)), ("a", "F6_E3M2", [4], 3))
    legal_case("four_bits", framed(json.dumps({"a": entry("F4", [2, 2], 0, 2)}), bytes(2)), ("a", "F4", [2, 2], 2))
    legal_case("name_of_any_letters", framed(json.dumps({"Größe 日本 🎈": entry("I64", [1], 0, 8)}, ensure_ascii=False), bytes(8)), ("Größe 日本 🎈", "I64", [1], 8))
    legal_case("name_escaped", framed('{"\\u0061\\/b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"), ("a/b", "U8", [1], 1))
    legal_case("name_of_1024_bytes", one(name="n" * 1024), ("n" * 1024, "F32", [2], 8))
    legal_case("unknown_field", framed('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"note":"x"}}', b"x"), ("a", "U8", [1], 1))


shutil.rmtree(OUT, ignore_errors=True)
write(OUT / "base/config.json", json.dumps(CONFIG))
write(OUT / "base/model.safetensors", safetensors(SHAPES))
names = list(SHAPES)
shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
write(OUT / "base_sharded/config.json", json.dumps(CONFIG))
for shard, held in shards.items():
    write(OUT / "base_sharded" / shard, safetensors({n: SHAPES[n] for n in held}))
write(OUT / "base_sharded/model.safetensors.index.json",
      json.dumps({"metadata": {"total_size": 1}, "weight_map": {n: shard for shard, held in shards.items() for n in held}}))
for make in (safetensors_cases, config_cases, generation_cases, index_cases, legal_cases):
    make()
rows = ",\n".join(json.dumps(c) for c in cases)
legal_rows = ",\n".join(json.dumps(c) for c in legal)
write(OUT / "cases.json", f'{{"refused": [\n{rows}\n],\n"legal": [\n{legal_rows}\n]}}\n')
print(f"{len(cases)} refused, {len(legal)} legal")
