"""Writes tests/data/layer_paths.json: what transformers computes on some goldens when their layers run along a path.

usage: make_layer_paths.py

Run by hand with the Python of make_goldens.py. The path is made in the model itself: its list of layers is replaced by
the layers of the path (one that repeats stands there twice, with the same weights), with all that its config says layer
by layer, and the whole prompt is run at once without a cache. Nothing of this knows how Switchyard keeps keys, values and
state, or which rows a frame has.
"""
import json
import pathlib
import sys

sys.dont_write_bytecode = True

import torch
import transformers

import oracle

ROOT = pathlib.Path(__file__).resolve().parent
OUT = ROOT.parent / "data/layer_paths.json"
TOKENS, KEPT = 12, 4  # of the prompt; at its end with their logits in the file
MODELS = ["olmoe", "qwen3_moe", "gpt_oss", "deepseek_v2", "granitemoe", "jetmoe", "jamba", "qwen3_next", "lfm2_moe", "minimax"]


def paths(layers):
    """Without the first, without the last, each layer twice, the first three times and the second not at all."""
    every = list(range(layers))
    yield every[1:]
    yield every[:-1]
    for layer in every:
        yield sorted(every + [layer])
    yield sorted([0, 0] + [layer for layer in every if layer != 1])


def along(folder, path):
    model = oracle.load(folder)
    config, body = model.config, model.model
    layers = config.num_hidden_layers
    for name in dir(config):
        value = getattr(config, name, None)
        if "layer" in name and isinstance(value, list) and len(value) == layers:  # "sliding_attention", "mamba"
            config.__class__ = type("Along", (config.__class__,), {name: [value[layer] for layer in path]})
            vars(config).pop(name, None)
    body.layers = torch.nn.ModuleList([body.layers[layer] for layer in path])
    config.num_hidden_layers = len(path)
    return model


@torch.no_grad()
def logits(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0]


def main():
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    out = {"made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, fp32, eager", "models": {}}
    for name in MODELS:
        folder = ROOT / name
        ids = json.loads((folder / "expected.json").read_text())["prompts"][-1]["ids"][:TOKENS]
        plain = oracle.load(folder)
        layers = plain.config.num_hidden_layers
        assert (logits(along(folder, range(layers)), ids) - logits(plain, ids)).abs().max() == 0, name
        cases = []
        for path in paths(layers):
            found = logits(along(folder, path), ids)
            cases.append({"path": path, "logits": [[float(f"{x:.7g}") for x in row] for row in found[-KEPT:].tolist()]})
        out["models"][name] = {"ids": ids, "cases": cases}
        print(f"{name}: {layers} layers, {len(cases)} paths", flush=True)
    OUT.write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
