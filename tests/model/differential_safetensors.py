"""Compares our safetensors reader with the `safetensors` package on mutated files. Run by hand; needs `pip install safetensors`.

usage: differential_safetensors.py SAFETENSORS_ANSWERS [COUNT] [SEED]     (program: build/dev/bin/safetensors_answers)

Every file on which one accepts and the other refuses, or on which both read other tensors, must fall under a rule of
EXPLAINED; the exit code is 1 if one does not. Prints how often each rule was used.
"""
import collections
import json
import random
import re
import struct
import subprocess
import sys

from safetensors import SafetensorError, deserialize

BINARY = sys.argv[1]
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
random.seed(int(sys.argv[3]) if len(sys.argv) > 3 else 1)

# Ours refuses, the package accepts: what our message says -> why.
STRICTER = {
    "does not start with '{'": "the format demands '{' first; the package skips white space",
    "appears twice": "duplicate keys: the package keeps the last",
    "control character": "names are shown and used as keys",
    "dimensions, the limit is 8": "rank above 8",
    "the limit is 1024": "name above 1,024 bytes",
    "nested deeper than 4": "depth above 4",
    "needs 0 to 9223372036854775807": "sizes above 2^63 - 1",
    "out of range": "an integer above 2^64 in a field that the package ignores",
    "number overflow": "a real beyond double in a field that the package ignores",
}
# The package refuses, ours accepts.
LOOSER = {"-0": "minus zero is the integer 0 for us"}

DTYPES = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "F16": 16, "BF16": 16, "I32": 32, "F32": 32, "I64": 64, "F64": 64}
NUMBERS = ["0", "-1", "1", "-0", "1.0", "1e0", "1e400", "2147483647", "2147483648", "4294967295", "4294967296", "9007199254740993",
           "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "null", "true", '"1"', "[]", "{}", "01", "+1"]
PIECES = ['"dtype"', '"shape"', '"data_offsets"', '"F32"', '"f32"', '"U8"', "[", "]", "{", "}", ",", ":", " ", "\n", "\t", "\0", "\\u0000", "\\ud800",
          '"__metadata__":{"a":"b"},', '"__metadata__":{"a":1},', '"__metadata__":null,', '"x":1,', '"t0":', "\x7f", "\u00e9", "/**/", "[[[[[", '"z":{},']


def sound_file():
    header, at = {}, 0
    if random.random() < 0.3:
        header["__metadata__"] = {"format": "pt"}
    for n in range(random.randrange(4)):
        dtype = random.choice(list(DTYPES))
        shape = [random.randrange(4) for _ in range(random.randrange(4))]
        size = DTYPES[dtype] // 8
        for dim in shape:
            size *= dim
        header[f"t{n}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return json.dumps(header, separators=random.choice([(",", ":"), (", ", ": ")])), at


def mutated():
    text, data = sound_file()
    for _ in range(random.choice([0, 1, 1, 1, 2, 3])):
        kind, at = random.randrange(6), random.randrange(len(text) + 1)
        numbers = list(re.finditer(r"-?\d+", text))
        if kind == 0 and numbers:
            number = random.choice(numbers)
            text = text[:number.start()] + random.choice(NUMBERS) + text[number.end():]
        elif kind == 1 and numbers:
            number = random.choice(numbers)
            text = text[:number.start()] + str(int(number[0]) + random.choice([-1, 1, 8])) + text[number.end():]
        elif kind == 2:
            text = text[:at] + random.choice(PIECES) + text[at:]
        elif kind == 3:
            text = text[:at] + text[at + random.randrange(1, 4):]
        elif kind == 4 and text:
            text = text[:at] + chr(random.randrange(1, 256)) + text[at + 1:]
        else:
            end = random.randrange(at, len(text) + 1)
            text = text[:end] + text[at:end] + text[end:]
    header = text.encode(random.choice(["utf-8"] * 9 + ["latin-1"]), errors="replace") + b" " * random.choice([0, 0, 3])
    length = len(header) + random.choice([0] * 30 + [-1, 1, 2**32, 2**63, 2**64 - 1 - len(header)])
    return struct.pack("<Q", length % 2**64) + header + bytes(max(0, data + random.choice([0] * 15 + [-1, 1, 4])))


def reference(file):
    try:
        return sorted([name, t["dtype"], t["shape"], len(t["data"])] for name, t in deserialize(file))
    except SafetensorError as error:
        return str(error)


def main():
    files = [mutated() for _ in range(COUNT)]
    stream = b"".join(struct.pack("<I", len(f)) + f for f in files)
    answers = subprocess.run([BINARY], input=stream, stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")[:-1]
    assert len(answers) == COUNT
    seen, unexplained, both = collections.Counter(), [], collections.Counter()
    for file, answer in zip(files, answers):
        ours, theirs = json.loads(answer), reference(file)
        accept, accepts = isinstance(ours, list), isinstance(theirs, list)
        both[accept, accepts] += 1
        if accept and accepts and sorted(ours) == theirs or not accept and not accepts:
            continue
        rules = STRICTER if not accept else LOOSER if not accepts else {}
        haystack = ours if not accept else file.decode("latin-1")
        rule = next((why for key, why in rules.items() if key in haystack), None)
        if rule:
            seen[rule] += 1
        else:
            unexplained.append((file, ours, theirs))
    print(f"{COUNT} files: both accept {both[True, True]}, both refuse {both[False, False]}, "
          f"only the package accepts {both[False, True]}, only we accept {both[True, False]}")
    for rule, times in seen.most_common():
        print(f"  {times:6} {rule}")
    for file, ours, theirs in unexplained[:20]:
        print(f"UNEXPLAINED {file!r}\n  ours   {ours}\n  theirs {theirs}")
    print(f"{len(unexplained)} unexplained")
    sys.exit(1 if unexplained else 0)


main()
