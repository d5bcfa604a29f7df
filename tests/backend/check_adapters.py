"""Adapters against transformers: a PEFT adapter as the package peft runs it, and every adapter router written here in
torch from specs/gating.md 1.7, on the demo's own example. Largest difference of the logits: 2e-4 of the largest logit.

usage: check_adapters.py --switchyard PROGRAM --source SOURCE_ROOT [--only NAME ...]
Exit 77 (skipped) where no python with transformers is found: this one, or that of SWITCHYARD_PYTHON. Without peft its
cases are left out, with a message.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy
    import torch
    import transformers
    from safetensors.torch import load_file
except ImportError as missing:
    other = os.environ.get("SWITCHYARD_PYTHON")
    if other and os.path.abspath(other) != os.path.abspath(sys.executable):  # a venv's python is a link to another
        os.execv(other, [other, *sys.argv])
    print(f"skipped: {missing}. Set SWITCHYARD_PYTHON to a python that has transformers and torch.")
    sys.exit(77)
try:
    import peft
except ImportError:
    peft = None

LARGEST = 2e-4
TOKENS = [3, 17, 5, 44, 9, 31, 2, 60, 12, 7, 28, 51]

# name: checkpoint, what LoraConfig says. With transformers 5 peft adapts packed experts where a name such as gate_proj
# is given to a model that has them; those adapters are refused, so feed-forward blocks are checked on llama4.
PEFT = {
    "demo attention": ("demo", dict(r=4, lora_alpha=12, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])),
    "demo rslora": ("demo", dict(r=8, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "v_proj"])),
    "demo patterns": ("demo", dict(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                                   rank_pattern={"v_proj": 2, "layers.3.self_attn.q_proj": 6}, alpha_pattern={"k_proj": 3, "layers.2.self_attn.o_proj": 16})),
    "glm4_moe": ("glm4_moe", dict(r=3, lora_alpha=6, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])),
    "deepseek_v2": ("deepseek_v2", dict(r=3, lora_alpha=6, target_modules=["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj"])),
    "gpt_oss": ("gpt_oss", dict(r=3, lora_alpha=6, target_modules=["q_proj", "o_proj"])),
    "llama4_text": ("llama4_text", dict(r=3, lora_alpha=6, target_modules=["q_proj", "shared_expert.gate_proj", "shared_expert.down_proj"])),
}
ROUTERS = ["fixed", "phatgoose", "glider", "arrow", "poly", "dynmole", "lora_mixer", "flylora", "mogu"]


def program(*arguments):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or f"exit {done.returncode}")


def ours(switchyard, model, script, backend, folder):
    file = folder / f"{backend}.npy"
    program(switchyard, "run", model, "--edits", script, "--token-ids", ",".join(map(str, TOKENS)), "--max-new-tokens", 1, "--greedy",
            "--backend", backend, "--dump-logits", file)
    return torch.from_numpy(numpy.load(file))


def difference(model, expected):
    with torch.no_grad():
        logits = model(torch.tensor([TOKENS])).logits[0].float()
    return ((logits - expected).abs().max() / expected.abs().max()).item(), logits


# ---- PEFT ----

def peft_case(load, folder, path, settings):
    model = load(path)
    torch.manual_seed(5)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * (0.2 if "lora_B" in name else 0.5 / math.sqrt(parameter.shape[1])))
    wrapped.save_pretrained(folder / "adapter")
    script = folder / "edits.json"
    script.write_text(json.dumps({"edits": [{"kind": "adapters", "layer": "all", "files": [str(folder / "adapter")]}]}))
    return wrapped, script


# ---- The routers of gating.md 1.7: what is multiplied with W x, and what is added ----

class Routed(torch.nn.Module):
    def __init__(self, linear, tensors, router, parameters, extra):
        super().__init__()
        self.linear, self.t, self.router, self.p, self.extra = linear, tensors, router, parameters, extra
        self.a, self.b = [], []
        while f"{len(self.a)}.A" in tensors:
            self.b.append(tensors[f"{len(self.a)}.B"].float())
            self.a.append(tensors[f"{len(self.a)}.A"].float())

    def scale(self, alpha):
        alpha = self.p.get("alpha", alpha)
        return self.p.get("scale", 1) * (alpha / self.a[0].shape[0] if alpha else 1)

    def best(self, scores, k):
        chosen = scores.topk(k, -1)
        return torch.zeros_like(scores).scatter(-1, chosen.indices, torch.softmax(chosen.values, -1))

    def normed_scores(self, x):
        d = x.shape[-1]
        norm = lambda v: torch.nn.functional.layer_norm(v, (d,), eps=1e-5)
        return norm(x) @ norm(self.t["gate"].float()).T / math.sqrt(d)

    def weights(self, x):
        """[tokens, experts] and the scale."""
        p = self.p
        if self.router == "fixed":
            return torch.tensor(p["weights"], dtype=torch.float32).expand(x.shape[0], -1), self.scale(0)
        if self.router == "phatgoose":
            return self.best(self.normed_scores(x), 2), self.scale(1)
        if self.router == "glider":
            cos = torch.nn.functional.cosine_similarity(self.extra["lora.embeddings"].float(), self.extra["lora.instruction"].float()[None], dim=-1)
            return self.best(self.normed_scores(x) + p["lambda"] * cos, 2), self.scale(1)
        if self.router == "arrow":
            v = torch.stack([torch.linalg.svd((b @ a).double()).Vh[0].float() for a, b in zip(self.a, self.b)])
            return self.best((x @ v.T).abs() / 10, 2), self.scale(0)
        scores = torch.softmax(x @ self.t["gate"].float().T, -1)
        if self.router == "lora_mixer":
            chosen = scores.topk(2, -1)
            return torch.zeros_like(scores).scatter(-1, chosen.indices, chosen.values / chosen.values.sum(-1, keepdim=True)), self.scale(0)
        q, eps, experts = 1.1, 1e-5, scores.shape[-1]
        entropy = (1 - (scores + eps).pow(q).sum(-1)) / (1 - experts ** (1 - q))
        ordered = scores.sort(-1, descending=True)
        keep = (ordered.values.cumsum(-1) <= p.get("p", 0.75)) | (torch.arange(experts) < 2) | (entropy > p["h"])[:, None]
        return torch.zeros_like(scores).scatter(-1, ordered.indices, ordered.values * keep), self.scale(0)

    def forward(self, x):
        shape, x = x.shape, x.reshape(-1, x.shape[-1])
        y = self.linear(x)
        if self.router == "poly":
            alpha = torch.sigmoid(self.t["z"][self.p["task"]].float())  # [experts, heads]
            alpha = alpha / alpha.sum(0)
            wide = lambda n: alpha.repeat_interleave(n // alpha.shape[1], 1)  # of each dimension
            a = sum(wide(a.shape[1])[e] * a for e, a in enumerate(self.a))
            b = sum(wide(b.shape[0])[e][:, None] * b for e, b in enumerate(self.b))
            y = y + self.scale(1) * x @ a.T @ b.T
        elif self.router == "flylora":
            low = x @ self.a[0].T
            chosen = (low + self.t["bias"].float()).abs().topk(self.p["k"], -1).indices
            y = y + self.scale(64) * (low * torch.zeros_like(low).scatter(-1, chosen, 1.0)) @ self.b[0].T
        elif self.router == "mogu":
            def share(net):
                part = lambda name: self.t[f"{net}.{name}"].float()
                return torch.sigmoid((x @ part("w0").T @ part("w1").T + part("b1")) @ part("w2").T + part("b2"))
            alpha, beta = share("alpha"), share("beta")
            y = (alpha + beta) * y + alpha * (x @ self.a[0].T @ self.b[0].T) + beta * (x @ self.a[1].T @ self.b[1].T)
        else:
            weights, scale = self.weights(x)
            for e, (a, b) in enumerate(zip(self.a, self.b)):
                y = y + scale * weights[:, e:e + 1] * (x @ a.T @ b.T)
        return y.reshape(*shape[:-1], y.shape[-1])


def router_case(load, source, path, router):
    script = source / f"assets/schemes/adapters_{router}.json"
    edit = json.loads(script.read_text())["edits"][0]
    tensors = load_file(source / "assets/schemes" / edit["files"][0])
    model = load(path)
    module = edit["modules"][0]
    extra = {name: value for name, value in tensors.items() if name.count(".") == 1}
    for layer in range(model.config.num_hidden_layers):
        prefix = f"lora.model.layers.{layer}.self_attn.{module}."
        own = {name[len(prefix):]: value for name, value in tensors.items() if name.startswith(prefix)}
        attention = model.model.layers[layer].self_attn
        setattr(attention, module, Routed(getattr(attention, module), own, router, edit.get("parameters", {}), extra))
    return model, script


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--switchyard", required=True)
    arguments.add_argument("--source", type=pathlib.Path, required=True)
    arguments.add_argument("--backends", default="cpu,reference")
    arguments.add_argument("--only", nargs="*")
    options = arguments.parse_args()
    sys.path.insert(0, str(options.source / "tests/goldens"))
    import oracle

    transformers.utils.logging.disable_progress_bar()
    os.chdir(options.source)
    path_of = lambda name: options.source / ("assets/models/demo" if name == "demo" else f"tests/goldens/{name}")
    cases = {}
    if peft:
        for name, (model, settings) in PEFT.items():
            cases[f"peft {name}"] = (model, lambda folder, m=model, s=settings: peft_case(oracle.load, folder, path_of(m), s))
    else:
        print("peft is not installed: its cases are left out")
    for router in ROUTERS:
        cases[router] = ("demo", lambda folder, r=router: router_case(oracle.load, options.source, path_of("demo"), r))
    bad = 0
    for name, (model, make) in cases.items():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as where, torch.no_grad():
            folder = pathlib.Path(where)
            try:
                module, script = make(folder)
                plain = oracle.load(path_of(model))(torch.tensor([TOKENS])).logits[0].float()
                for backend in options.backends.split(","):
                    expected = ours(options.switchyard, path_of(model), script, backend, folder)
                    far, logits = difference(module, expected)
                    changed = ((logits - plain).abs().max() / plain.abs().max()).item()
                    good = far <= LARGEST and changed > 10 * LARGEST
                    bad += not good
                    print(f"{name} {backend}: {far:.2e} (adapters change the logits by {changed:.2e}) {'ok' if good else 'BAD'}", flush=True)
            except Exception as error:
                bad += 1
                print(f"{name}: FAILED {type(error).__name__}: {error}", flush=True)
    versions = f"transformers {transformers.__version__}, peft {peft.__version__ if peft else 'absent'}"
    print(f"{versions}: {bad} bad" if bad else f"{versions}: all agree")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
