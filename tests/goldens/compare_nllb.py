"""Checks the nllb-moe and switch_transformers goldens against transformers 4.56, whose nllb-moe is the published one.

usage: compare_nllb.py     (in an environment with transformers 4.56; reads the folders beside this script)
"""
import json
import pathlib

import torch
import transformers
from transformers import AutoModelForSeq2SeqLM

assert transformers.__version__.startswith("4.56."), transformers.__version__
torch.set_grad_enabled(False)
for folder in sorted(pathlib.Path(__file__).resolve().parent.iterdir()):
    if not folder.name.startswith(("nllb_moe", "switch_transformers")) or not folder.is_dir():
        continue
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for prompt in json.loads((folder / "expected.json").read_text())["prompts"]:
        encoded = model.get_encoder()(input_ids=torch.tensor([prompt["ids"]]))
        past, worst = None, 0
        for token, want in zip(prompt["decoder_ids"], torch.tensor(prompt["logits"])):
            out = model(encoder_outputs=encoded, decoder_input_ids=torch.tensor([[token]]), past_key_values=past,
                        use_cache=True)
            past = out.past_key_values
            worst = max(worst, (out.logits[0, -1] - want).abs().max().item())
        print(f"{folder.name}: {len(prompt['ids'])} tokens, largest logit difference {worst:.2g}")
        assert worst < 1e-4
