"""Makes taps.json: what taps measure, for the demo, computed from transformers' activations.

Of the first tokens of a prompt, per layer: the experts of each token by falling weight, the Euclidean norms of what they
gave for the block's normed input (before weights), what the next layer's router chooses for that same input, and the cosine of the residual stream before and after the routed
experts' weighted sum is added. Run: taps.py MODEL_FOLDER > taps.json (transformers 5, torch), float64."""
import json
import sys

import torch
from transformers import AutoModelForCausalLM

LAYERS = (0, 4, 7)
IDS = [5, 99, 7, 300, 12, 41, 8, 77, 150, 3, 210, 18]

torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float64, attn_implementation="eager", experts_implementation="eager").eval()
k = model.config.num_experts_per_tok
seen = {}


def keep(layer, what):
    def hook(_, args):
        seen[layer, what] = args[0][0]
    return hook


for layer in LAYERS:
    block = model.model.layers[layer]
    block.post_attention_layernorm.register_forward_pre_hook(keep(layer, "residual"))
    block.mlp.register_forward_pre_hook(keep(layer, "input"))
with torch.no_grad():
    model(torch.tensor([IDS]))
    out = []
    for layer in LAYERS:
        mlp = model.model.layers[layer].mlp
        x, h = seen[layer, "input"], seen[layer, "residual"]
        p = torch.nn.functional.linear(x, mlp.gate.weight).softmax(-1)
        weights, ids = p.topk(k, dim=-1)
        if model.config.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        norms, routed = torch.zeros_like(weights), torch.zeros_like(h)
        for t in range(len(IDS)):
            for slot in range(k):
                e = ids[t, slot]
                gate, up = torch.nn.functional.linear(x[t], mlp.experts.gate_up_proj[e]).chunk(2, dim=-1)
                y = torch.nn.functional.linear(mlp.experts.act_fn(gate) * up, mlp.experts.down_proj[e])
                norms[t, slot] = y.norm()
                routed[t] += weights[t, slot] * y
        cosines = torch.nn.functional.cosine_similarity(h, h + routed, dim=-1)
        following = model.model.layers[layer + 1].mlp if layer + 1 < len(model.model.layers) else None
        ahead = torch.nn.functional.linear(x, following.gate.weight).softmax(-1).topk(k, dim=-1) if following else None
        out.append({"layer": layer, "ahead": ahead.indices.tolist() if ahead else [], "ids": ids.tolist(), "out_norm": norms.tolist(), "block_cos": cosines.tolist()})
print(json.dumps({"token_ids": IDS, "layers": out}))
