"""Expected values of switch_transformers and nllb-moe: encoder tokens first, then greedy decoding.

nllb-moe: transformers since 4.57 runs only experts 0 and 1 (specs/families.md 0 and 1.13), so its sparse block
is replaced here by the published one; compare_nllb.py checks this against transformers 4.56 itself.
"""
import torch

import oracle
from oracle import Unsafe, Watched, best_of, chosen_of, numbers, routing_json, shaken


def published_nllb():
    """Gives NllbMoeSparseMLP the forward of transformers 4.56 and before."""
    from transformers.models.nllb_moe import modeling_nllb_moe as nllb

    def forward(self, hidden_states, padding_mask=None):
        shape = hidden_states.shape
        x = hidden_states.reshape(-1, shape[-1])
        _, weights, _ = self.router(x, padding_mask)
        result = torch.zeros_like(x)
        for e in range(self.num_experts):
            tokens = weights[:, e] != 0
            y = self.experts[f"expert_{e}"](x[tokens]) * (1 - self.experts.moe_token_dropout)
            result[tokens] += weights[tokens, e, None] * y
        return result.reshape(shape)

    nllb.NllbMoeSparseMLP.forward = forward


@torch.no_grad()
def expected(model, prompt, greedy_tokens=oracle.GREEDY_TOKENS):
    """ids: the encoder's tokens. logits [greedy, V]: the decoder's, of decoder_ids = [start, greedy...]."""
    published_nllb()
    tokens = torch.tensor([prompt])

    def encode():
        with Watched(model) as rows:
            out = model.get_encoder()(input_ids=tokens)
        return out, rows

    encoded, rows = encode()
    hook = shaken(model)
    _, moved = encode()
    hook.remove()
    if chosen_of(rows) != chosen_of(moved):
        raise Unsafe("a routing decision of the encoder is nearly a tie")

    past, ids, greedy, logits, steps = None, [model.config.decoder_start_token_id], [], [], []
    for _ in range(greedy_tokens):
        with Watched(model) as step:
            out = model(encoder_outputs=encoded, decoder_input_ids=torch.tensor([ids[-1:]]), past_key_values=past,
                        use_cache=True)
        past = out.past_key_values
        steps.append(step)
        logits.append(out.logits[0, -1])
        greedy.append(best_of(out.logits[0, -1]))
        ids.append(greedy[-1])
    merged = steps[0]
    for step in steps[1:]:
        for row, more in zip(merged, step):
            row["logits"] = torch.cat([row["logits"], more["logits"]])
            row["experts"] += more["experts"]
            row["weights"] += more["weights"]
    for row in merged:
        k = len(row["experts"][0])
        top = row["logits"].sort(dim=-1, descending=True).values
        if min((top[:, i] - top[:, i + 1]).min().item() for i in range(k)) < 1e-3:
            raise Unsafe("a routing decision of the decoder is nearly a tie")
    return {"ids": prompt, "decoder_ids": ids[:-1], "logits": numbers(torch.stack(logits), 6),
            "routing": routing_json(rows + merged), "greedy_ids": greedy}
