"""Makes naee.json: what NAEE says of the demo, from transformers' activations. Per layer, the change of the routed output
(Frobenius, one text a block) when each expert alone is left out, and the experts that go when 14 of 32 stay, one by one,
the cheapest first. Run: naee.py MODEL_FOLDER > naee.json (transformers 5, torch), float64."""
import json
import sys

import torch
from transformers import AutoModelForCausalLM

LAYERS = (0, 4, 7)
TEXTS = [[5, 99, 7, 300, 12, 41, 8, 77, 150, 3, 210, 18], [9, 1000, 44, 2, 2, 71, 33]]
KEEP = 14

torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float64, attn_implementation="eager", experts_implementation="eager").eval()
k = model.config.num_experts_per_tok
seen = {}


def keep(layer):
    def hook(_, args):
        seen.setdefault(layer, []).append(args[0][0])
    return hook


for layer in LAYERS:
    model.model.layers[layer].mlp.register_forward_pre_hook(keep(layer))


def routed(z, outputs, dropped):
    p = z.softmax(-1).index_fill(1, torch.tensor(sorted(dropped), dtype=torch.long), -1)
    weights, ids = p.topk(k, dim=-1)
    weights = torch.where(weights > 0, weights, 0)
    weights = weights / weights.sum(-1, keepdim=True)
    return (outputs.gather(1, ids.unsqueeze(-1).expand(-1, -1, outputs.shape[-1])) * weights.unsqueeze(-1)).sum(1)


with torch.no_grad():
    for ids in TEXTS:
        model(torch.tensor([ids]))
    out = []
    for layer in LAYERS:
        mlp = model.model.layers[layer].mlp
        blocks = []
        for x in seen[layer]:
            z = torch.nn.functional.linear(x, mlp.gate.weight)
            outputs = []
            for e in range(model.config.num_experts):
                gate, up = torch.nn.functional.linear(x, mlp.experts.gate_up_proj[e]).chunk(2, dim=-1)
                outputs.append(torch.nn.functional.linear(mlp.experts.act_fn(gate) * up, mlp.experts.down_proj[e]))
            blocks.append((z, torch.stack(outputs, 1)))

        def loss(dropped):
            return sum(float((routed(z, y, set()) - routed(z, y, dropped)).norm()) for z, y in blocks)

        single = [loss({e}) for e in range(model.config.num_experts)]
        gone = set()
        while len(gone) < model.config.num_experts - KEEP:
            gone.add(min((loss(gone | {e}), e) for e in range(model.config.num_experts) if e not in gone)[1])
        out.append({"layer": layer, "single": single, "dropped": sorted(gone), "loss": loss(gone)})
print(json.dumps({"texts": TEXTS, "keep": KEEP, "layers": out}))
