"""Fails on any include that goes against the direction of the house (ARCHITECTURE.md), and on two classes of one name
in one namespace: the linker keeps the functions of one, and the other's are gone without a word.

usage: check_includes.py SOURCE_ROOT

Folders: plugins/sdk <- engine <- views <- app. Rooms of the engine include only themselves and rooms
above them in ROOMS. Qt and ImGui stay out of the engine; LibTorch stays in backend/reference, which
includes neither fmt nor spdlog; the command line sees no Qt.
"""
import pathlib
import re
import sys

ROOMS = ["base", "model", "tokenizer", "routing", "backend", "analysis", "trace", "runtime",
         "placement", "studies", "surgery", "report", "plugin_host"]
FOLDERS = ["plugins", "engine", "views", "app"]
CLASS = re.compile(r"^(?:class|struct) (\w+)(?: final)?(?: : [^;]*)? \{")
NAMESPACE = re.compile(r"^namespace ([\w:]*) ?\{")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
QT = re.compile(r"^(Q[A-Z]\w*|Qt\w+/.*)$")
TORCH = re.compile(r"^(torch|ATen|c10)/")
DRAWING = re.compile(r"^(imgui|implot)")


def problems_of(path, parts, included, quoted):
    folder = parts[0]
    inside_reference = parts[:3] == ("engine", "backend", "reference")
    if quoted and included.split("/")[0] in FOLDERS:
        target = included.split("/")
        if FOLDERS.index(target[0]) > FOLDERS.index(folder):
            yield f"{folder}/ may not include {target[0]}/"
        if folder == target[0] == "engine" and len(parts) > 2 and target[1] in ROOMS and parts[1] in ROOMS \
                and ROOMS.index(target[1]) > ROOMS.index(parts[1]):
            yield f"room {parts[1]} may not include room {target[1]}"
        if "detail" in target and target[:2] != list(parts[:2]):
            yield "detail/ belongs to its own room"
    if QT.match(included) and (folder == "engine" or parts[:2] == ("app", "cli")):
        yield "Qt stays in views/ and app/gui, app/session"
    if DRAWING.match(included) and (folder == "engine" or parts[:2] == ("app", "cli")):
        yield "Dear ImGui and ImPlot stay in views/ and app/gui"
    if TORCH.match(included) and not inside_reference:
        yield "LibTorch stays in engine/backend/reference"
    if inside_reference and re.match(r"^(fmt|spdlog|google/protobuf)/", included):
        yield "units that see LibTorch include neither fmt, spdlog nor protobuf"


def classes_of(text):
    """(namespace, name) of every class that other files could see, by the house's formatting."""
    inside = []
    for line in text.splitlines():
        if match := NAMESPACE.match(line):
            inside.append(match[1])
        elif line.startswith("}  // namespace") and inside:
            inside.pop()
        elif (match := CLASS.match(line)) and "" not in inside:
            yield "::".join(inside), match[1]


def main():
    root = pathlib.Path(sys.argv[1])
    bad, seen, classes = [], 0, {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".h", ".hpp", ".cpp", ".cu", ".cuh"):
                continue
            seen += 1
            parts = path.relative_to(root).parts
            text = path.read_text()
            for name in classes_of(text):
                first = classes.setdefault(name, path)
                if first != path:
                    bad.append(f"{path.relative_to(root)}: {'::'.join(name)} is a class of {first.relative_to(root)} already")
            for match in INCLUDE.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                for problem in problems_of(path, parts, match[2], match[1] == '"'):
                    bad.append(f"{path.relative_to(root)}:{line}: includes {match[2]}: {problem}")
    print("\n".join(bad) if bad else f"{seen} files include in the right direction")
    sys.exit(1 if bad or seen == 0 else 0)


main()
