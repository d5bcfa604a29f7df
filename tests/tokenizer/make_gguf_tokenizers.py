"""Writes tests/data/gguf_tokenizers: GGUF files that hold only a tokenizer, and the ids that the `tokenizers` package
gives with the same vocabulary (expected.json).

usage: make_gguf_tokenizers.py SOURCE_ROOT      Run by hand, with: pip install gguf==0.19 tokenizers==0.23.*
"""
import json
import pathlib
import sys

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = pathlib.Path(sys.argv[1]) / "tests/data/gguf_tokenizers"
CORPUS = [p.read_text() for p in sorted((pathlib.Path(sys.argv[1]) / "assets/help").glob("*.md"))] + ["naïve café Straße 東京は晴れ привет мир 12345 😀"] * 5
TEXTS = ["Hello world", "  leading  spaces ", "I'm here, you'll see: 2024-11-25!\n\nNew\tline", "naïve café Straße", "東京は晴れ", "привет мир",
         "😀🙂", "", " ", "a<|end|>b<|user|> c", "DON'T shout", "x" * 40, "3.14159 and 1000000", "العربية हिन्दी", "e\u0301 vs \u00e9", "\r\n \n"]
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
expected = {}


def byte_level():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_special_tokens(["<|end|>"])
    t.add_tokens([AddedToken("<|user|>", normalized=False)])
    return t


def sentencepiece():
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t = Tokenizer(models.BPE())
    t.normalizer = normalizer
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, show_progress=False, max_token_length=12, limit_alphabet=90))
    trained = json.loads(t.to_str())["model"]
    merges = [m if isinstance(m, list) else m.split(" ") for m in trained["merges"]]
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    pieces += ["".join(m) for m in merges] + [c for c in trained["vocab"] if len(c) == 1]
    pieces = list(dict.fromkeys(pieces))
    vocab = {p: i for i, p in enumerate(pieces)}
    t = Tokenizer(models.BPE(vocab, [tuple(m) for m in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizer
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    t.add_special_tokens([AddedToken(x, normalized=False) for x in ("<unk>", "<s>", "</s>")])
    rank = {}
    for i, m in enumerate(merges):
        rank.setdefault("".join(m), i)
    scores = [-float(rank[p]) if p in rank else (0.0 if i < 259 else -1e4 - i) for i, p in enumerate(pieces)]
    return t, pieces, scores


def write(name, tokenizer, fill):
    w = gguf.GGUFWriter(OUT / f"{name}.gguf", "llama")
    fill(w)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    rows = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        rows.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
    expected[name] = rows


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    bpe = byte_level()
    data = json.loads(bpe.to_str())
    vocab = bpe.get_vocab(with_added_tokens=True)
    tokens = sorted(vocab, key=vocab.get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]

    def fill_bpe(w):
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("qwen2")
        w.add_token_list(tokens)
        w.add_token_types([3 if t == "<|end|>" else 4 if t == "<|user|>" else 1 for t in tokens])
        w.add_token_merges(merges)
        w.add_eos_token_id(vocab["<|end|>"])
        w.add_add_bos_token(False)
    write("byte_level", bpe, fill_bpe)

    spm, pieces, scores = sentencepiece()

    def fill_spm(w):
        w.add_tokenizer_model("llama")
        w.add_token_list(pieces)
        w.add_token_scores(scores)
        w.add_token_types([2] + [3, 3] + [6] * 256 + [1] * (len(pieces) - 259))
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_unk_token_id(0)
    write("sentencepiece", spm, fill_spm)
    (OUT / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=0))


main()
