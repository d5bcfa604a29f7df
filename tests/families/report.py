"""The table of measured errors: runs families_golden_test (or reads its saved output) and prints Markdown.

usage: report.py [PROGRAM | LOG]     (default: build/dev/bin/families_golden_test)
"""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
source = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "build/dev/bin/families_golden_test")
if os.access(source, os.X_OK):
    text = subprocess.run([source, "--gtest_brief=1"], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
else:
    text = pathlib.Path(source).read_text()

print("| case | family | oracle | backend | logits | router logits | weights | logits, prompt in pieces |")
print("|---|---|---|---|---|---|---|---|")
for line in text.splitlines():
    words = line.split()
    if not words or words[0] != "MEASURED":
        if "FAILED  ]" in line or "not supported" in line:
            print(line, file=sys.stderr)
        continue
    name, backend = words[1:3]
    if words[3] == "lacks":
        print(f"| {name} | | | {backend} | runs on reference: {' '.join(words[4:])} | | | |")
        continue
    family, oracle, *errors, pieces = words[3:]
    numbers = " | ".join(f"{float(error):.1e}" for error in errors)
    pieces = "read in one piece" if pieces == "whole" else f"{float(pieces):.1e}"
    print(f"| {name} | {family} | {oracle} | {backend} | {numbers} | {pieces} |")
