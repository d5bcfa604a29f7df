"""The example of layer routers for the demo, assets/paths/layer_routers.safetensors: not trained, drawn from a seed.

    python3 assets/paths/make.py > assets/paths/layer_routers.safetensors
"""
import json
import random
import struct
import sys

LAYERS, HIDDEN, WIDTH = 8, 256, 16


def bf16(values):
    return b"".join(struct.pack("<f", value)[2:] for value in values)  # cut, not rounded: any number will do


def main():
    draw = random.Random(1510)
    header, body = {}, b""
    for layer in range(LAYERS):
        tensors = {
            "l1.weight": ([WIDTH, HIDDEN], [draw.gauss(0, 0.5) for _ in range(WIDTH * HIDDEN)]),
            "l1.bias": ([WIDTH], [draw.gauss(0, 0.2) for _ in range(WIDTH)]),
            "l2.weight": ([3, WIDTH], [draw.gauss(0, 0.6) for _ in range(3 * WIDTH)]),
            "l2.bias": ([3], [0.2, 0.7, 0.1]),  # most layers run
        }
        for name, (shape, values) in tensors.items():
            data = bf16(values)
            header[f"layers.{layer}.drllm.{name}"] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
            body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    sys.stdout.buffer.write(struct.pack("<Q", len(text)) + text + body)


main()
