"""Compares the tokenizers of the program with the `tokenizers` package on random text. By hand, no test needs it.

usage: differential.py DRIVER [--texts N] [--seed S] [--only KIND] [--code-points]

DRIVER is build/.../tokenizer_driver. Every kind of kinds.py and every variant of make_goldens.py gets the hostile
strings, N random ones (2000) and random lists of ids. --code-points instead gives every code point, alone and
behind and before a letter, a digit and a space, and says which disagree.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

import kinds
from strings import HOSTILE, WRITTEN, random_text


class Driver:
    """The program's side: one tokenizer.json in a folder of its own."""

    def __init__(self, program, file):
        self.folder = tempfile.TemporaryDirectory()
        (pathlib.Path(self.folder.name) / "tokenizer.json").write_text(json.dumps(file))
        self.command = [program, self.folder.name]

    def ask(self, lines):
        done = subprocess.run(self.command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.split("\n")[:-1]


def ids_of(line):
    return [int(one) for one in line.split(",") if one] if not line.startswith("!") else line


def hostile_text(rng):
    """A random text, or pieces of hostile ones and any code points between them."""
    if rng.random() < 0.4:
        return random_text(rng)
    parts = []
    for _ in range(rng.randint(1, 6)):
        source = rng.choice(HOSTILE + WRITTEN)
        start = rng.randrange(len(source) + 1)
        parts.append(source[start:start + rng.randint(1, 12)])
        if rng.random() < 0.3:
            code = rng.choice([rng.randrange(0x3000), rng.randrange(0x20000), rng.randrange(0x110000)])
            parts.append(chr(code) if not 0xD800 <= code < 0xE000 else " ")
        if rng.random() < 0.2:
            parts.append(rng.choice([" ", "  ", "\n", "\u2581", "<s>", "<mask>", "<sep>", "der", "word", "<extra_id_0>"]))
    return "".join(parts)


def oracle(call):
    try:
        return call()
    except BaseException as error:  # a panic of the package is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"!{error}"


def compare(name, file, program, texts, rng):
    made, driver = Tokenizer.from_str(json.dumps(file)), Driver(program, file)
    size = made.get_vocab_size()
    lists = [[rng.choice([rng.randrange(size + 3), rng.randrange(min(size, 270))]) for _ in range(rng.randint(0, 16))] for _ in texts[::4]]
    lines = [("E " if i % 4 else "P ") + text.encode().hex() for i, text in enumerate(texts)]
    lines += [f"{command} " + ",".join(map(str, ids)) for ids in lists for command in "DK"]
    answers = driver.ask(lines)
    wrong = compared = 0
    for i, (text, line) in enumerate(zip(texts, answers)):
        want = oracle(lambda: made.encode(text, add_special_tokens=bool(i % 4)).ids)
        got = ids_of(line)
        compared += 1
        if want != got and not (str(want).startswith("!") and str(got).startswith("!")):
            wrong += 1
            if wrong <= 3:
                print(f"  {name}: encode({text!r})\n    wants {want}\n    gets  {got}")
    for i, line in enumerate(answers[len(texts):]):
        ids, skip = lists[i // 2], bool(i % 2)
        want = oracle(lambda: made.decode(ids, skip_special_tokens=skip))
        compared += 1
        if not want.startswith("!") and want.encode().hex() != line:
            wrong += 1
            if wrong <= 6:
                print(f"  {name}: decode({ids}, skip={skip})\n    wants {want!r}\n    gets  {bytes.fromhex(line).decode() if line != '?' else 'a stream that differs'!r}")
    return compared, wrong


def code_point_texts():
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    return [f"a{chr(c)}b {chr(c)}{chr(c)}1{chr(c)} \u00aa{chr(c)}" for c in codes]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("driver")
    arguments.add_argument("--texts", type=int, default=2000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--only", default="")
    arguments.add_argument("--code-points", action="store_true")
    options = arguments.parse_args()
    from make_goldens import variants
    files = kinds.build() | variants()
    total = bad = 0
    for name, file in files.items():
        if options.only and not name.startswith(options.only):
            continue
        rng = random.Random(f"{options.seed} {name}")
        texts = code_point_texts() if options.code_points else HOSTILE + WRITTEN + [hostile_text(rng) for _ in range(options.texts)]
        try:
            compared, wrong = compare(name, file, options.driver, texts, rng)
        except RuntimeError as error:
            compared, wrong = 0, 1
            print(f"  {name}: {error}")
        print(f"{name}: {compared} compared, {wrong} differ", flush=True)
        total, bad = total + compared, bad + wrong
    print(f"{total} compared, {bad} differ")
    sys.exit(bad != 0)


main()
