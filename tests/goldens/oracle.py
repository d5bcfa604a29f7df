"""What transformers computes on a tiny random checkpoint: building, saving, running and recording it.

Used by make_goldens.py (committed cases) and unseen.py (fresh cases every run). Method: specs/families.md
section 5. Encoder-decoder models are run by encoder_decoder.py, models without a transformers class by
numpy_models.py; all write the same form (see `expected`).
"""
import inspect
import re

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

EAGER = dict(attn_implementation="eager", experts_implementation="eager")
GREEDY_TOKENS = 32
GREEDY_MARGIN = 4e-3  # best and second logit
FORMS = 5e-5           # logits of a prefill and of single tokens
SHAKE = 3e-4          # relative noise on the embeddings that no routing decision may turn on
ROUTER = re.compile(r"(TopK|Topk|Top1|Top2|Dbrx|Llama4)(Router|Gating)$|MoEV1Gate$|DogeCDMoE$")


class Unsafe(Exception):
    """A decision of this prompt is so near a tie that rounding could turn it: draw another."""


# ---- building ------------------------------------------------------------------------------------

def config_of(model_type, values):
    return AutoConfig.for_model(model_type, **values)


def model_class(config):
    if config.model_type == "llama4":
        return transformers.Llama4ForConditionalGeneration
    if config.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    return AutoModelForCausalLM


def build(model_type, values, seed, tweak=None):
    """The model with every parameter and buffer that a file holds overwritten by seeded noise."""
    config = config_of(model_type, values)
    maker = model_class(config)
    make = getattr(maker, "_from_config", None) or maker.from_config
    try:
        model = make(config, dtype=torch.float32, **EAGER)
    except (TypeError, ValueError):
        model = make(config, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    noise = torch.Generator().manual_seed(seed)
    stored = dict(model.named_parameters())
    stored |= {name: buffer for name, buffer in model.named_buffers() if name.endswith("correction_bias")
               or name.endswith("expert_bias")}
    for name, tensor in stored.items():
        tensor.data.copy_(noise_for(model, name, tensor.shape, noise))
    if tweak:
        tweak(stored, noise)
    return model


def noise_for(model, name, shape, noise):
    n = torch.randn(shape, generator=noise)
    uniform = torch.rand(shape, generator=noise)
    one_plus = model.config.model_type == "qwen3_next" and "linear_attn.norm" not in name
    if "correction_bias" in name or name.endswith("expert_bias"):
        softmax_scores = model.config.model_type in ("ernie4_5_moe", "longcat_flash")
        return (0.1 if softmax_scores else 0.3) * n
    if name.endswith("bias"):
        return 0.2 * n
    if "norm" in name and len(shape) == 1:
        return 0.2 * n if one_plus else 1 + 0.2 * n
    if name.endswith("_residual") or name.endswith("mamba.D"):
        return 1 + 0.2 * n
    if name.endswith("sinks") or name.endswith(".A"):
        return n
    if name.endswith("A_log"):
        return torch.log(0.3 + 4 * uniform)
    if "conv1d.weight" in name or name.endswith("conv.conv.weight"):
        return 0.5 * n
    if re.search(r"(\.gate|router|router\.layer|router\.classifier|gate\.wg|router_gate)\.weight$", name):
        return 0.4 * n
    if "embed" in name or name.endswith("shared.weight") or "wte" in name:
        return n
    if "lm_head" in name:
        return 2.5 * n / shape[-1] ** 0.5
    return 1.3 * n / shape[-1] ** 0.5 if len(shape) > 1 else 0.2 * n


def load(folder, dtype=torch.float32):
    config = AutoConfig.from_pretrained(folder)
    try:
        return model_class(config).from_pretrained(folder, dtype=dtype, **EAGER).eval()
    except (TypeError, ValueError):
        return model_class(config).from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


# ---- watching the routers ------------------------------------------------------------------------

def by_weight(weights, ids):
    """Slots in order of falling applied weight, then lower id, as a routing frame holds them."""
    order = sorted(range(len(ids)), key=lambda slot: (-weights[slot], ids[slot]))
    return [weights[slot] for slot in order], [ids[slot] for slot in order]


def decision_of(module, config, out):
    """(logits [T, E], weights [T, k], ids [T, k]) of one call of a router."""
    kind = type(module).__name__
    if kind == "DbrxRouter":
        ffn = config.ffn_config
        weights, ids = torch.softmax(out, -1).topk(ffn.moe_top_k, dim=-1)
        if ffn.moe_normalize_expert_weights is not None:
            weights = weights / torch.norm(weights, p=ffn.moe_normalize_expert_weights, dim=-1, keepdim=True)
        return out, weights, ids
    if kind == "Llama4Router":
        logits = out[1]
        top, ids = logits.topk(module.top_k, dim=-1)
        return logits, torch.sigmoid(top.float()), ids
    if kind == "JetMoeTopKGating":
        top, ids = out[4].topk(module.top_k, dim=-1)
        return out[4], torch.softmax(top, -1), ids
    if kind == "DogeCDMoE":
        x, y = out[1]  # [T, keys] each, as the model views them
        logits = (x[:, :, None] + y[:, None, :]).flatten(1)
        top, ids = logits.topk(module.top_k, dim=-1)
        return logits, torch.softmax(top, -1), ids
    if kind == "SwitchTransformersTop1Router":
        dispatch, probability, logits = out
        kept = dispatch[0].sum(-1) > 0
        ids = [[int(row.argmax())] if keep else [] for row, keep in zip(dispatch[0], kept)]
        weights = [[float(p)] if keep else [] for p, keep in zip(probability[0, :, 0], kept)]
        return logits[0], weights, ids
    if kind == "NllbMoeTop2Router":
        _, combined, logits = out
        ids = [row.nonzero().flatten().tolist() for row in combined]
        return logits, [[float(row[e]) for e in chosen] for row, chosen in zip(combined, ids)], ids
    logits, weights, ids = out
    assert ids.dtype == torch.int64 and weights.shape == ids.shape and len(logits) == len(ids), kind
    return logits, weights, ids


def routers(model):
    """(stack, layer, module) of every router; stack is "encoder" or "decoder" where there are two."""
    for name, module in model.named_modules():
        if ROUTER.search(type(module).__name__):
            stack = next((s for s in ("encoder", "decoder") if re.search(rf"\b{s}\b", name)), None)
            yield stack, int(re.search(r"(?:layers|blocks|block)\.(\d+)", name)[1]), module


class Watched:
    """Records every router decision in the order of calls while it is open."""

    def __init__(self, model):
        self.model, self.rows, self.hooks = model, [], []

    def __enter__(self):
        config = self.model.config.get_text_config()
        for stack, layer, module in routers(self.model):
            def record(module, _inputs, out, stack=stack, layer=layer):
                logits, weights, ids = decision_of(module, config, out)
                as_list = lambda x: x if isinstance(x, list) else x.tolist()
                weights = weights if isinstance(weights, list) else weights.double().tolist()
                slots = [by_weight(w, i) for w, i in zip(weights, as_list(ids))]
                self.rows.append({"stack": stack, "layer": layer, "logits": logits.float(),
                                  "experts": [i for _, i in slots], "weights": [w for w, _ in slots]})
            self.hooks.append(module.register_forward_hook(record))
        return self.rows

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def shaken(model):
    """While the returned hook is there, embeddings carry relative noise of SHAKE."""
    noise = torch.Generator().manual_seed(7)
    return model.get_input_embeddings().register_forward_hook(
        lambda _m, _i, out: out * (1 + SHAKE * torch.randn(out.shape, generator=noise)))


def chosen_of(rows):
    return [[sorted(ids) for ids in row["experts"]] for row in rows]


# ---- recording -----------------------------------------------------------------------------------

def number(x, digits=7):
    return float(f"{x:.{digits}g}")


def numbers(tensor, digits=7):
    return [[number(x, digits) for x in row] for row in tensor.double().tolist()]


def routing_json(rows):
    result = []
    for row in rows:
        entry = {"layer": row["layer"], "logits": numbers(row["logits"]), "experts": row["experts"],
                 "weights": [[number(x) for x in w] for w in row["weights"]]}
        result.append(entry if row["stack"] is None else {"stack": row["stack"], **entry})
    return result


def differs_token_by_token(run, prompt, whole):
    """Whether the numbers hang on rounding: qwen3_next prefills with another form of the delta rule than it decodes with."""
    past, rows = None, []
    for position, token in enumerate(prompt):
        out = run([token], past, position)
        past = out.past_key_values
        rows.append(out.logits[0, -1])
    return (torch.stack(rows) - whole).abs().max().item() > FORMS


def best_of(row):
    top = row.topk(2).values
    if (top[0] - top[1]).item() < GREEDY_MARGIN:
        raise Unsafe("a greedy choice is nearly a tie")
    return int(row.argmax())


def reset_rope(model):
    """Forgets the longest sequence seen: rope type dynamic keeps its frequencies."""
    for module in model.modules():
        if hasattr(module, "original_inv_freq"):
            module.max_seq_len_cached = module.original_max_seq_len
            module.inv_freq.copy_(module.original_inv_freq)


@torch.no_grad()
def expected(model, prompt, coupled=False, cache_is_exact=True, greedy_tokens=GREEDY_TOKENS):
    """Logits [T, V], routing rows and the greedy continuation of one prompt, as JSON values.

    coupled: a token's routing depends on the tokens run with it, so nothing is compared across cuts.
    cache_is_exact: decoding with a cache gives what one forward over everything gives.
    """
    if model.config.is_encoder_decoder:
        import encoder_decoder  # after this module, which it uses
        return encoder_decoder.expected(model, prompt, greedy_tokens)
    reset_rope(model)
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def run(ids, past=None, start=0):
        more = {"position_ids": torch.arange(start, start + len(ids))[None]} if takes_positions else {}
        return model(input_ids=torch.tensor([ids]), past_key_values=past, use_cache=True, **more)

    with Watched(model) as rows:
        out = run(prompt)
    result = {"ids": prompt, "logits": numbers(out.logits[0], 6), "routing": routing_json(rows)}
    hook = shaken(model)
    with Watched(model) as moved:
        run(prompt)
    hook.remove()
    if chosen_of(rows) != chosen_of(moved):
        raise Unsafe("a routing decision is nearly a tie")

    if not coupled and cache_is_exact and differs_token_by_token(run, prompt, out.logits[0]):
        raise Unsafe("transformers' own prefill and decoding differ")

    greedy, steps = [], []
    for _ in range(greedy_tokens):
        greedy.append(best_of(out.logits[0, -1]))
        with Watched(model) as step:
            out = run(greedy[-1:], out.past_key_values, len(prompt) + len(greedy) - 1)
        steps.append(chosen_of(step))
    result["greedy_ids"] = greedy
    if coupled or not cache_is_exact:
        return result
    hook = shaken(model)
    with Watched(model) as moved:
        run(prompt + greedy)
    hook.remove()
    for i, step in enumerate(steps):
        if [row[0] for row in step] != [row[len(prompt) + i] for row in chosen_of(moved)]:
            raise Unsafe("a routing decision of the continuation is nearly a tie")
    whole = run(prompt + greedy).logits[0, -1]
    worst = (whole - out.logits[0, -1]).abs().max().item()
    assert worst < 2e-4, f"cached and uncached decoding differ by {worst}"
    return result
