"""Families without a transformers class, computed in float64 from specs/families.md 1.14 (openmoe) and 1.26
(bailing_moe, Ling 2.0) alone; independent of the C++ code. Used by make_goldens.py; writes the same form.
"""
import json

import numpy as np
from safetensors.numpy import save_file

import oracle
from oracle import Unsafe, by_weight, number

TOKENS = dict(pad_token_id=1, bos_token_id=2, eos_token_id=3)
BASE = dict(TOKENS, vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=128, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
            torch_dtype="float32")
BAILING = dict(BASE, model_type="bailing_moe", architectures=["BailingMoeForCausalLM"], head_dim=8, hidden_act="silu",
               num_hidden_layers=3, intermediate_size=24, moe_intermediate_size=8, num_experts=8, num_experts_per_tok=3,
               num_shared_experts=2, first_k_dense_replace=1, norm_topk_prob=True, use_qkv_bias=False, use_bias=False,
               norm_head=False)
BAILING2 = dict(BAILING, model_type="bailing_moe_v2", architectures=["BailingMoeV2ForCausalLM"], rms_norm_eps=1e-6,
                num_shared_experts=1, score_function="sigmoid", n_group=4, topk_group=2, routed_scaling_factor=2.5,
                use_qk_norm=True, partial_rotary_factor=0.5, moe_router_enable_expert_bias=True)
OPENMOE = dict(BASE, model_type="llama", architectures=["OpenMoeForCausalLM"], head_dim=10, hidden_act="swiglu",
               mlp_gated=True, num_hidden_layers=2, intermediate_size=10, num_experts=6, moe_layer_interval=2,
               router_topk=2, router_capacity_factor_eval=2.0, router_min_capacity=4, router_drop_tks=True,
               rms_norm_eps=1e-6)
CASES = {
    "bailing_moe": BAILING,
    "bailing_moe_bias": dict(BAILING, use_qkv_bias=True, use_bias=True, norm_head=True, norm_topk_prob=False,
                             num_experts_per_tok=1, num_shared_experts=0, first_k_dense_replace=0),
    "bailing_moe_v2": BAILING2,
    "openmoe": OPENMOE,
    "openmoe_scarce": dict(OPENMOE, moe_layer_interval=1, router_capacity_factor_eval=0.6),
}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def draw_weights(c, seed):
    noise = np.random.default_rng(seed)
    weights = {}

    def matrix(name, *shape, scale=1.3):
        weights[name] = (scale * noise.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)

    def norm(name, n):
        weights[name] = (1 + 0.2 * noise.standard_normal(n)).astype(np.float32)

    def bias(name, n, scale=0.2):
        weights[name] = (scale * noise.standard_normal(n)).astype(np.float32)

    openmoe = c["model_type"] == "llama"
    h, heads, kv, d = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    embedding = "model.embed_tokens.weight" if openmoe else "model.word_embeddings.weight"
    weights[embedding] = noise.standard_normal((c["vocab_size"], h)).astype(np.float32)
    norm("model.norm.weight", h)
    matrix("lm_head.weight", c["vocab_size"], h, scale=2.5)
    for n in range(c["num_hidden_layers"]):
        p = f"model.layers.{n}."
        norm(p + "input_layernorm.weight", h)
        norm(p + "post_attention_layernorm.weight", h)
        if openmoe:
            draw_openmoe_layer(c, n, p, matrix, norm)
            continue
        a = p + "attention."
        matrix(a + "query_key_value.weight", (heads + 2 * kv) * d, h)
        matrix(a + "dense.weight", h, heads * d)
        if c["use_qkv_bias"]:
            bias(a + "query_key_value.bias", (heads + 2 * kv) * d)
        if c["use_bias"]:
            bias(a + "dense.bias", h)
        if c.get("use_qk_norm"):
            norm(a + "query_layernorm.weight", d)
            norm(a + "key_layernorm.weight", d)

        def glu(prefix, width):
            matrix(prefix + "gate_proj.weight", width, h)
            matrix(prefix + "up_proj.weight", width, h)
            matrix(prefix + "down_proj.weight", h, width)

        if n < c["first_k_dense_replace"]:
            glu(p + "mlp.", c["intermediate_size"])
            continue
        matrix(p + "mlp.gate.weight", c["num_experts"], h, scale=2.0)
        if c.get("moe_router_enable_expert_bias"):
            bias(p + "mlp.gate.expert_bias", c["num_experts"], 0.5)
        for e in range(c["num_experts"]):
            glu(p + f"mlp.experts.{e}.", c["moe_intermediate_size"])
        if c["num_shared_experts"]:
            glu(p + "mlp.shared_experts.", c["moe_intermediate_size"] * c["num_shared_experts"])
    return weights


def draw_openmoe_layer(c, n, p, matrix, norm):
    h, heads, kv, d = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    for name, rows in (("q", heads * d), ("k", kv * d), ("v", kv * d)):
        matrix(p + f"self_attn.{name}_proj.weight", rows, h, scale=0.8)
    matrix(p + "self_attn.o_proj.weight", h, heads * d)
    w, e = c["intermediate_size"], c["num_experts"]
    dense = p + "mlp."
    if (n + 1) % c["moe_layer_interval"] == 0:
        matrix(p + "mlp.gate_weight", e, h, scale=2.0)
        matrix(p + "mlp.experts.wi_gate", e, h, 2 * w)
        matrix(p + "mlp.experts.wi_up", e, h, w)
        matrix(p + "mlp.experts.wo", e, w, h)
        norm(p + "pre_extra_mlp_layernorm.weight", h)
        dense = p + "extra_mlp."
    matrix(dense + "gate_proj.weight", 2 * w, h)
    matrix(dense + "up_proj.weight", w, h)
    matrix(dense + "down_proj.weight", h, w)


class Model:
    """run() appends tokens to the cache, so that decoding is one token at a time."""

    def __init__(self, config, weights):
        self.c = config
        self.w = {name: value.astype(np.float64) for name, value in weights.items()}
        self.openmoe = config["model_type"] == "llama"

    def rms(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.c["rms_norm_eps"]) * self.w[name + ".weight"]

    def linear(self, x, name):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def rotate(self, x, start):
        """Pairs (i, i + dims / 2) of the first dims of a head; x [T, heads, d]."""
        dims = int(self.c["head_dim"] * self.c.get("partial_rotary_factor", 1))
        inverse = self.c["rope_theta"] ** (-2 * np.arange(dims // 2) / dims)
        angle = ((start + np.arange(len(x)))[:, None] * inverse)[:, None, :]
        a, b = x[..., : dims // 2], x[..., dims // 2 : dims]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle), x[..., dims:]], -1)

    def attend(self, x, p, cache, start):
        c, t = self.c, len(x)
        heads, kv, d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        if self.openmoe:
            q, k, v = (self.linear(x, p + f"self_attn.{n}_proj") for n in "qkv")
        else:
            q, k, v = np.split(self.linear(x, p + "attention.query_key_value"), [heads * d, (heads + kv) * d], axis=-1)
        q, k, v = q.reshape(t, heads, d), k.reshape(t, kv, d), v.reshape(t, kv, d)
        if c.get("use_qk_norm"):
            q, k = self.rms(q, p + "attention.query_layernorm"), self.rms(k, p + "attention.key_layernorm")
        q, k = self.rotate(q, start), self.rotate(k, start)
        if p in cache:
            k, v = np.concatenate([cache[p][0], k]), np.concatenate([cache[p][1], v])
        cache[p] = (k, v)
        out = np.empty((t, heads, d))
        hidden = np.arange(len(k))[None, :] > (start + np.arange(t))[:, None]
        for head in range(heads):
            score = q[:, head] @ k[:, head // (heads // kv)].T * (1 if self.openmoe else d**-0.5)
            out[:, head] = softmax(np.where(hidden, -np.inf, score)) @ v[:, head // (heads // kv)]
        return self.linear(out.reshape(t, heads * d), p + ("self_attn.o_proj" if self.openmoe else "attention.dense"))

    def glu(self, x, prefix):
        return self.linear(silu(self.linear(x, prefix + "gate_proj")) * self.linear(x, prefix + "up_proj"), prefix + "down_proj")

    @staticmethod
    def double_gate(gate, up):
        a, b = np.split(gate, 2, axis=-1)
        return a * b * sigmoid(b) * up

    def route_bailing(self, logits, p):
        c, slots = self.c, []
        for row in logits:
            score = sigmoid(row) if c.get("score_function") == "sigmoid" else softmax(row)
            choice = score + self.w.get(p + "mlp.gate.expert_bias", 0)
            if c.get("n_group", 1) > 1:
                grouped = choice.reshape(c["n_group"], -1)
                best = np.argsort(-np.sort(grouped, -1)[:, -2:].sum(-1))[: c["topk_group"]]
                kept = np.full_like(grouped, -np.inf)
                kept[best] = grouped[best]
                choice = kept.ravel()
            ids = np.argsort(-choice, kind="stable")[: c["num_experts_per_tok"]]
            weight = score[ids]
            if c["norm_topk_prob"] and len(ids) > 1:
                weight = weight / (weight.sum() + (1e-20 if "n_group" in c else 0))
            slots.append((ids, weight * c.get("routed_scaling_factor", 1)))
        return slots

    def route_openmoe(self, logits):
        """Two choices a token; all first choices rank before the second ones, and what is over capacity is dropped."""
        c, (t, e) = self.c, logits.shape
        p = softmax(logits)
        order = np.argsort(-p, axis=-1, kind="stable")[:, :2]
        capacity = int(np.floor(2 * c["router_capacity_factor_eval"] * t / e))
        capacity = max(capacity + capacity % 2, c["router_min_capacity"])
        taken, slots = np.zeros(e, int), [([], []) for _ in range(t)]
        for choice in range(2):
            for token in range(t):
                expert = order[token, choice]
                taken[expert] += 1
                if taken[expert] <= capacity or not c["router_drop_tks"]:
                    slots[token][0].append(expert)
                    slots[token][1].append(p[token, expert])
        return slots

    def run(self, tokens, cache, shake=0.0):
        """Logits [T, V] and routing rows of the tokens."""
        c, rows = self.c, []
        start = cache.get("length", 0)
        h = self.w["model.embed_tokens.weight" if self.openmoe else "model.word_embeddings.weight"][tokens]
        h = h * (1 + shake * np.random.default_rng(7).standard_normal(h.shape))
        for n in range(c["num_hidden_layers"]):
            p = f"model.layers.{n}."
            h = h + self.attend(self.rms(h, p + "input_layernorm"), p, cache, start)
            x = self.rms(h, p + "post_attention_layernorm")
            gate = self.w.get(p + ("mlp.gate_weight" if self.openmoe else "mlp.gate.weight"))
            if gate is None:
                h = h + (self.dense_openmoe(x, p + "mlp.") if self.openmoe else self.glu(x, p + "mlp."))
                continue
            logits = x @ gate.T
            slots = self.route_openmoe(logits) if self.openmoe else self.route_bailing(logits, p)
            y = np.zeros_like(h)
            for token, (ids, weights) in enumerate(slots):
                for e, weight in zip(ids, weights):
                    y[token] += weight * self.expert(x[token], p, e)
            if p + "mlp.shared_experts.gate_proj.weight" in self.w:
                y += self.glu(x, p + "mlp.shared_experts.")
            h = h + y
            if self.openmoe:
                h = h + self.dense_openmoe(self.rms(h, p + "pre_extra_mlp_layernorm"), p + "extra_mlp.")
            sorted_slots = [by_weight([float(w) for w in ws], [int(i) for i in ids]) for ids, ws in slots]
            rows.append({"layer": n, "logits": logits, "experts": [i for _, i in sorted_slots],
                         "weights": [w for w, _ in sorted_slots]})
        cache["length"] = start + len(tokens)
        head = self.w["lm_head.weight"]
        if c.get("norm_head"):
            head = head / (np.sqrt((head * head).sum(0, keepdims=True)) + 1e-7)
        return self.rms(h, "model.norm") @ head.T, rows

    def dense_openmoe(self, x, prefix):
        hidden = self.double_gate(self.linear(x, prefix + "gate_proj"), self.linear(x, prefix + "up_proj"))
        return self.linear(hidden, prefix + "down_proj")

    def expert(self, x, p, e):
        if not self.openmoe:
            return self.glu(x, p + f"mlp.experts.{e}.")
        wi, up, wo = (self.w[p + f"mlp.experts.{name}"][e] for name in ("wi_gate", "wi_up", "wo"))
        return self.double_gate(x @ wi, x @ up) @ wo


def expected(model, prompt):
    cache = {}
    logits, rows = model.run(prompt, cache)
    _, moved = model.run(prompt, {}, oracle.SHAKE)
    if oracle.chosen_of(rows) != oracle.chosen_of(moved):
        raise Unsafe("a routing decision is nearly a tie")
    routing = [{"layer": row["layer"], "logits": numbers_of(row["logits"], 7), "experts": row["experts"],
                "weights": [[number(x) for x in w] for w in row["weights"]]} for row in rows]
    greedy, last = [], logits[-1]
    for _ in range(oracle.GREEDY_TOKENS):
        top = np.sort(last)[-2:]
        if top[1] - top[0] < oracle.GREEDY_MARGIN:
            raise Unsafe("a greedy choice is nearly a tie")
        greedy.append(int(last.argmax()))
        last = model.run(greedy[-1:], cache)[0][-1]
    return {"ids": prompt, "logits": numbers_of(logits, 6), "routing": routing, "greedy_ids": greedy}


def numbers_of(rows, digits):
    return [[number(x, digits) for x in row] for row in rows.tolist()]


def write_case(name, folder, write_expected, lengths=(24, 37), seed=1):
    config = CASES[name]
    weights = draw_weights(config, seed)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    model, prompts = Model(config, weights), []
    for index, length in enumerate(lengths):
        for attempt in range(400):
            draw = np.random.default_rng([seed, index, attempt])
            try:
                prompts.append(expected(model, draw.integers(4, config["vocab_size"], length).tolist()))
                break
            except Unsafe:
                continue
        else:
            raise Unsafe(f"no safe prompt of {length} tokens")
    write_expected(folder, prompts, config["model_type"])
