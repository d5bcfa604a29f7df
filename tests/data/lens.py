"""Makes lens.json: the logit lens on the demo, from transformers' hidden states: after each layer, the final norm and the
head on the residual stream. Per layer and token: KL of the model's distribution from the lens', the lens' first choice, and
rank (from 0) and probability there of the model's own first choice. Run: lens.py MODEL_FOLDER > lens.json (float64)."""
import json
import sys

import torch
from transformers import AutoModelForCausalLM

IDS = [5, 99, 7, 300, 12, 41, 8, 77, 150, 3, 210, 18]

torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float64, attn_implementation="eager", experts_implementation="eager").eval()
after = []
for layer in model.model.layers:
    layer.register_forward_hook(lambda _, __, out: after.append((out[0] if isinstance(out, tuple) else out).reshape(len(IDS), -1)) or None)
with torch.no_grad():
    final = model(torch.tensor([IDS])).logits[0].log_softmax(-1)
    top = final.argmax(-1)
    layers = []
    for h in after:
        q = model.lm_head(model.model.norm(h)).log_softmax(-1)
        own = q.gather(1, top.unsqueeze(1))
        layers.append({"kl": (final.exp() * (final - q)).sum(-1).tolist(), "top1": q.argmax(-1).tolist(),
                       "rank": (q > own).sum(-1).tolist(), "probability": own.exp().squeeze(1).tolist()})
print(json.dumps({"token_ids": IDS, "final": top.tolist(), "layers": layers}))
