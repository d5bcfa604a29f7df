"""Writes tests/data/hostile/gguf: broken and hostile GGUF files and cases.json with the message each must give.

usage: make_hostile_gguf.py SOURCE_ROOT      (Python's standard library only)
The format: ggml/docs/gguf.md of llama.cpp. sound.gguf is a whole mixtral of one layer, in F32.
"""
import json
import pathlib
import shutil
import struct
import sys

OUT = pathlib.Path(sys.argv[1]) / "tests/data/hostile/gguf"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
H, HEADS, KV, HEAD, WIDTH, EXPERTS, VOCAB = 4, 2, 1, 2, 3, 2, 8


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def kv(key, kind, raw):
    return text(key) + struct.pack("<I", kind) + raw


def u32(key, value):
    return kv(key, U32, struct.pack("<I", value))


def array(key, kind, count, raw=b""):
    return kv(key, ARRAY, struct.pack("<IQ", kind, count) + raw)


META = [kv("general.architecture", STRING, text("llama")), u32("llama.block_count", 1), u32("llama.context_length", 16),
        u32("llama.embedding_length", H), u32("llama.feed_forward_length", WIDTH), u32("llama.attention.head_count", HEADS),
        u32("llama.attention.head_count_kv", KV), u32("llama.expert_count", EXPERTS), u32("llama.expert_used_count", 1),
        kv("llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", 1e-5))]
B = "blk.0."
TENSORS = [["token_embd.weight", [H, VOCAB]], ["output.weight", [H, VOCAB]], ["output_norm.weight", [H]],
           [B + "attn_norm.weight", [H]], [B + "ffn_norm.weight", [H]], [B + "attn_q.weight", [H, HEADS * HEAD]],
           [B + "attn_k.weight", [H, KV * HEAD]], [B + "attn_v.weight", [H, KV * HEAD]],
           [B + "attn_output.weight", [HEADS * HEAD, H]], [B + "ffn_gate_inp.weight", [H, EXPERTS]],
           [B + "ffn_gate_exps.weight", [H, WIDTH, EXPERTS]], [B + "ffn_up_exps.weight", [H, WIDTH, EXPERTS]],
           [B + "ffn_down_exps.weight", [WIDTH, H, EXPERTS]]]


def table(tensors, kind=0, align=32):
    at, out = 0, []
    for name, dims in tensors:
        size = 4
        for d in dims:
            size *= d
        out.append([name, list(dims), kind, at])
        at += -(-size // align) * align
    return out, at


def gguf(meta=META, tensors=None, data=None, version=3, counts=None, align=32, magic=b"GGUF"):
    rows, size = table(TENSORS, align=align) if tensors is None else tensors
    head = magic + struct.pack("<IQQ", version, *(counts or (len(rows), len(meta)))) + b"".join(meta)
    for name, dims, kind, at in rows:
        head += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        head += struct.pack("<IQ", kind, at)
    head += bytes(-len(head) % align)
    return head + (bytes(size) if data is None else data)


cases = []


def case(name, content, *message):
    (OUT / f"{name}.gguf").write_bytes(content)
    cases.append({"file": f"{name}.gguf", "message": list(message)})


def changed(index, **values):
    rows, size = table(TENSORS)
    for key, value in values.items():
        rows[index][("name", "dims", "kind", "at").index(key)] = value
    return rows, size


def extra(*entries):
    return gguf(META + list(entries))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    (OUT / "sound.gguf").write_bytes(gguf())
    case("empty", b"", "at byte 0", "needs 4 bytes, the file has 0")
    case("magic", gguf(magic=b"GGML"), "at byte 0", 'starts with "GGML"')
    case("cut_in_version", b"GGUF\x03", "at byte 4")
    case("version_1", gguf(version=1), "has version 1, supported are 2 and 3")
    case("version_99", gguf(version=99), "has version 99")
    case("big_endian", gguf(version=0x03000000), "big-endian")
    for name, n in (("2_63", 2**63), ("2_64", 2**64 - 1), ("million_and_one", 1_000_001)):
        case(f"tensor_count_{name}", gguf(counts=(n, len(META))), f"declares {n} tensors, the limit is 1000000")
    for name, n in (("2_64", 2**64 - 1), ("65537", 65_537)):
        case(f"key_count_{name}", gguf(counts=(len(TENSORS), n)), f"declares {n} keys, the limit is 65536")
    case("one_key_more", gguf(counts=(len(TENSORS), len(META) + 1)), "the file")
    case("key_length_huge", gguf([struct.pack("<Q", 2**64 - 1) + b"x"]), "a string declares 18446744073709551615 bytes")
    case("key_length_above_limit", gguf([struct.pack("<Q", 65_536) + b"x" * 65_536]), "a string declares 65536 bytes; the limit is 65535")
    case("string_longer_than_file", extra(kv("a", STRING, struct.pack("<Q", 10_000) + b"x")), "a string declares 10000 bytes")
    case("unknown_value_type", extra(kv("a", 13, b"\0" * 8)), 'key "a" has the unknown type 13')
    case("boolean_of_two", extra(kv("a", BOOL, b"\2")), "a boolean is 2, needs 0 or 1")
    case("integer_2_64", extra(kv("a", U64, b"\xff" * 8)), "the integer 18446744073709551615 is out of range")
    case("array_of_arrays", extra(array("a", ARRAY, 1, struct.pack("<IQ", U8, 0))), 'key "a" is an array of type 9')
    case("array_of_unknown", extra(array("a", 77, 1)), 'key "a" is an array of type 77')
    case("array_count_huge", extra(array("a", U64, 2**61 + 1)), 'key "a" declares 2305843009213693953 elements')
    case("array_count_overflow", extra(array("a", U64, 2**63)), 'key "a" declares 9223372036854775808 elements')
    case("array_of_strings_short", extra(array("a", STRING, 4, text("x"))), "a string declares")
    case("key_twice", gguf(META + [META[1]]), 'key "llama.block_count" stands twice')
    for name, n in (("0", 0), ("3", 3), ("4", 4), ("2_31", 2**31)):
        case(f"alignment_{name}", extra(u32("general.alignment", n)), f"general.alignment is {n}")
    case("alignment_is_text", extra(kv("general.alignment", STRING, text("32"))), "general.alignment is no integer")
    case("tensor_twice", gguf(tensors=changed(1, name="token_embd.weight")), 'tensor "token_embd.weight" stands twice')
    case("tensor_name_empty", gguf(tensors=changed(1, name="")), "name that is empty")
    case("tensor_name_control", gguf(tensors=changed(1, name="a\x1b[31m")), "printable ASCII")
    case("tensor_name_long", gguf(tensors=changed(1, name="x" * 1025)), "a string declares 1025 bytes; the limit is 1024")
    case("no_dimensions", gguf(tensors=changed(2, dims=[])), 'tensor "output_norm.weight" has 0 dimensions')
    case("five_dimensions", gguf(tensors=changed(2, dims=[1] * 5)), "has 5 dimensions, needs 1 to 4")
    case("zero_dimension", gguf(tensors=changed(2, dims=[0])), "has a dimension of 0")
    case("dimension_2_63", gguf(tensors=changed(2, dims=[2**63])), "has a dimension of 9223372036854775808")
    case("shape_overflows", gguf(tensors=changed(0, dims=[2**32, 2**32])), "whose size overflows 64 bits")
    case("shape_wraps_to_small", gguf(tensors=changed(0, dims=[2**61, 2])), "whose size overflows 64 bits")
    case("offset_wraps", gguf(tensors=changed(0, at=2**64 - 32)), "overflows 64 bits")
    case("type_unknown", gguf(tensors=changed(0, kind=99)), "has the type 99, which is not supported. Supported: F32, F16")
    case("type_iq2", gguf(tensors=changed(0, kind=16)), "has the type 16, which is not supported")
    case("type_removed_q4_2", gguf(tensors=changed(0, kind=4)), "has the type 4")
    case("columns_not_in_blocks", gguf(tensors=changed(0, kind=12)), "has 4 columns, Q4_K needs a multiple of 256")
    case("offset_unaligned", gguf(tensors=changed(1, at=129)), "begins at byte 129 of the data, needs a multiple of 32")
    case("overlap", gguf(tensors=changed(1, at=96)), "inside the tensor before it")
    case("same_offset", gguf(tensors=changed(1, at=0)), "inside the tensor before it")
    rows, size = table(TENSORS)
    for row in rows[1:]:
        row[3] += 32
    case("hole", gguf(tensors=(rows, size + 32)), "leaves a hole")
    case("cut_in_data", gguf()[:-40], "Was it cut?")
    case("cut_in_tensor_table", gguf()[:600], "declares 22 bytes", "the file has 1 more")
    case("trailing_bytes", gguf() + bytes(64), "has 64 bytes after the last tensor")
    case("no_architecture", gguf(META[1:]), "has no general.architecture", "Supported architectures: llama")
    case("architecture_unknown", gguf([kv("general.architecture", STRING, text("bert"))] + META[1:]), 'architecture "bert"', "Supported architectures")
    case("architecture_is_a_number", gguf([u32("general.architecture", 1)] + META[1:]), "has no general.architecture")
    case("no_expert_count", gguf([m for m in META if b"expert_count" not in m]), "without experts")
    case("block_count_is_text", gguf([m if b"block_count" not in m else kv("llama.block_count", STRING, text("1")) for m in META]), "has llama.block_count that is no count")
    case("embedding_length_wrong", gguf([m if b"embedding_length" not in m else u32("llama.embedding_length", 8) for m in META]), "has shape [8, 4]", "needs [8, 8]")
    case("experts_two_dimensions", gguf(tensors=changed(10, dims=[H, WIDTH * EXPERTS])), "needs three dimensions")
    case("experts_fewer", gguf([m if b"expert_count" not in m else u32("llama.expert_count", 3) for m in META]), "experts")
    case("heads_do_not_divide", gguf([m if b"head_count\x04" not in m else u32("llama.attention.head_count", 3) for m in META]), "does not divide into 3 heads")
    case("rope_freqs_too_many", gguf(tensors=table(TENSORS + [["rope_freqs.weight", [3]]])), "has 3 short_factor values, needs 1")
    case("rope_freqs_zero", gguf(tensors=table(TENSORS + [["rope_freqs.weight", [1]]])), "short_factor")
    case("rope_freqs_two_dimensions", gguf(tensors=table(TENSORS + [["rope_freqs.weight", [1, 1]]])), 'tensor "rope_freqs.weight" that is no short vector')
    case("rope_factors_short_alone", gguf(tensors=table(TENSORS + [["rope_factors_short.weight", [1]]])), "has only one of rope_factors_short.weight and")
    case("tensor_missing", gguf(tensors=(table(TENSORS[:-1]))), "is missing")
    case("split_without_parts", extra(kv("split.count", U16, struct.pack("<H", 3))), "is one of 3 parts")
    (OUT / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    print(len(cases), "cases")


main()
