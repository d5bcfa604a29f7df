"""Writes the tiny checkpoints and what transformers computes on them: tests/families, tests/backend, tests/model.

usage: make_goldens.py [CASE ...]     (default: all of cases.py, into the folder of this script)

Run by hand, outside the build, with: pip install "transformers==5.23.*" torch==2.11.0 safetensors numpy
The tests read only what it writes. Method: specs/families.md section 5. Every parameter is overwritten
with seeded noise, so that no norm is 1 and no bias 0; a prompt is taken only if no routing decision and no
greedy choice hangs on a difference that rounding could turn. Run twice, it writes the same bytes.

A case may wear clothes, folders of the same weights:
  _sharded  several files with an index, config keys as the hub spells them
  _packed   all experts of a layer in one tensor (transformers 5, save_original_format=False)
  _bf16, _f16   rounded; computed in fp32 on the rounded weights
"""
import json
import pathlib
import shutil
import sys

sys.dont_write_bytecode = True  # folders beside the cases are taken for cases

import torch
import transformers

import numpy_models
import oracle
from cases import CASES, Case

ROOT = pathlib.Path(__file__).resolve().parent
VERSIONS = f"transformers {transformers.__version__}, torch {torch.__version__}, fp32, eager attention and experts"
HUB_KEYS = {"qwen3_moe": {"num_local_experts": "num_experts"}}  # written by transformers 5: published


def draw_expected(model, case, seed):
    """Expected values of one safe prompt for each length."""
    vocab = model.config.get_text_config().vocab_size
    result = []
    for index, length in enumerate(case.lengths):
        for attempt in range(400):
            draw = torch.Generator().manual_seed(100000 * seed + 1000 * index + attempt)
            prompt = torch.randint(4, vocab, (length,), generator=draw).tolist()
            try:
                result.append(oracle.expected(model, prompt, case.coupled, case.cache_is_exact))
                break
            except oracle.Unsafe as reason:
                last = reason
        else:
            sys.exit(f"no safe prompt of {length} tokens: {last}")
    return result


def write_expected(folder, prompts, case, seed, source="transformers", made_with=VERSIONS):
    data = {"source": source, "made_with": made_with, "seed": seed, "model_type": case.model_type}
    if case.coupled or not case.cache_is_exact or not case.cuts:
        data["prefill"] = "whole"  # cut prefills give other numbers
    (folder / "expected.json").write_text(json.dumps(data | {"prompts": prompts}, separators=(",", ":")))


def hub_spelling(folder):
    """config.json with the keys of the models published before transformers 5."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters", None)
    if rope:
        config["rope_theta"] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        kind = rope.pop("rope_type", "default")
        config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    config["torch_dtype"] = config.pop("dtype")
    for now, then in HUB_KEYS.get(config["model_type"], {}).items():
        if now in config:
            config[then] = config.pop(now)
    path.write_text(json.dumps(config, indent=2))


def fresh(name):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@torch.no_grad()
def check_same(folder, reference, prompt):
    if reference.config.is_encoder_decoder:
        return
    ids = torch.tensor([prompt])  # not bit for bit: matrix products depend on how the file is aligned
    worst = (oracle.load(folder)(ids).logits - reference(ids).logits).abs().max().item()
    assert worst < 2e-5, f"{folder.name} is another model: logits differ by {worst}"


def write_case(name, case, seed=1):
    model = oracle.build(case.model_type, case.values, seed, case.tweak)
    folder = fresh(name)
    model.save_pretrained(folder)
    loaded = oracle.load(folder)
    prompts = draw_expected(loaded, case, seed)
    write_expected(folder, prompts, case, seed)
    for clothing in case.clothes:
        dressed = fresh(f"{name}_{clothing}")
        if clothing == "sharded":
            model.save_pretrained(dressed, max_shard_size="64KB")
            hub_spelling(dressed)
        elif clothing == "packed":
            model.save_pretrained(dressed, save_original_format=False)
        else:
            dtype = {"bf16": torch.bfloat16, "f16": torch.float16}[clothing]
            oracle.load(folder, dtype).save_pretrained(dressed)
            write_expected(dressed, draw_expected(oracle.load(dressed), case, seed), case, seed)
            continue
        check_same(dressed, loaded, prompts[1]["ids"])


def write_numpy_case(name, seed=1):
    case = Case(numpy_models.CASES[name]["model_type"], {}, coupled=name.startswith("openmoe"))

    def write(folder, prompts, _model_type):
        write_expected(folder, prompts, case, seed, "numpy", "numpy_models.py, float64")

    numpy_models.write_case(name, fresh(name), write, seed=seed)


def main():
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # sums in one order: the same bytes again
    for name in sys.argv[1:] or [*CASES, *numpy_models.CASES]:
        if name in CASES:
            write_case(name, CASES[name])
        else:
            write_numpy_case(name)
        print(f"{name}: written", flush=True)


if __name__ == "__main__":
    main()
