"""Makes gate_gradient.json: gradients of the demo's next-token loss with respect to router logits, by torch autograd.

Dense: DenseMixer's straight-through estimate. The forward pass is the model's own; backward, the output of the block is
sum over all experts of w_j E_j(h), with w_j = p_j / n, n = sum of p over the selected, detached where j did not run.
Sparse: the model as it is. Run: gate_gradient.py MODEL_FOLDER > gate_gradient.json (transformers 5, torch)."""
import json
import sys

import torch
from transformers import AutoModelForCausalLM

LAYERS = (0, 4, 7)
IDS = [5, 99, 7, 300, 12, 41, 8, 77, 150, 3, 210, 18]


def expert(experts, e, h):
    gate, up = torch.nn.functional.linear(h, experts.gate_up_proj[e]).chunk(2, dim=-1)
    return torch.nn.functional.linear(experts.act_fn(gate) * up, experts.down_proj[e])


class Block(torch.nn.Module):
    """A drop-in for the sparse block; keeps its logits as a leaf's child."""

    def __init__(self, block, k, dense):
        super().__init__()
        self.block, self.k, self.dense = block, k, dense

    def forward(self, hidden):
        shape = hidden.shape
        h = hidden.reshape(-1, shape[-1])
        z = torch.nn.functional.linear(h, self.block.gate.weight)
        z.retain_grad()
        self.logits = z
        p = z.softmax(-1)
        ids = p.topk(self.k, dim=-1).indices
        selected = torch.zeros_like(p, dtype=torch.bool).scatter_(1, ids, True)
        n = (p * selected).sum(-1, keepdim=True)
        outputs = torch.stack([expert(self.block.experts, e, h) for e in range(p.shape[-1])], dim=1)  # [T, E, d]
        sparse = ((p * selected / n).unsqueeze(-1) * outputs).sum(1)
        if not self.dense:
            return sparse.reshape(shape)
        weights = torch.where(selected, p / n, p / n.detach())
        # Of h and of the experts the gradient is the sparse one: outputs are held fixed in the dense part.
        other = (torch.where(selected, torch.zeros_like(p), weights).unsqueeze(-1) * outputs.detach()).sum(1)
        return (sparse + other - other.detach()).reshape(shape)


def gradients(folder, dense):
    out = {}
    for layer in LAYERS:  # one at a time: the others stay as they are
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager")
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        model.model.embed_tokens.weight.requires_grad_(True)
        mlp = model.model.layers[layer].mlp
        block = Block(mlp, model.config.num_experts_per_tok, dense)
        model.model.layers[layer].mlp = block
        ids = torch.tensor([IDS])
        logits = model(ids).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
        loss.backward()
        out[layer] = block.logits.grad.tolist()
    return out


if __name__ == "__main__":
    torch.manual_seed(0)
    dense, sparse = gradients(sys.argv[1], True), gradients(sys.argv[1], False)
    rounded = lambda rows: [[float(f"{value:.9g}") for value in row] for row in rows]
    print(json.dumps({"ids": IDS, "layers": [{"layer": layer, "dense": rounded(dense[layer]), "sparse": rounded(sparse[layer])} for layer in LAYERS]}))
