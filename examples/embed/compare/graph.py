"""The model as a graph of ONNX, written from the paper's formulas for the weights of `model.safetensors`.

In two forms: of ONNX's own operators, and of those that onnxruntime's optimiser for transformers replaces them with.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

OPSET = 20
# A version of the file that onnxruntime reads.
IR_VERSION = 9
CONTRIBUTED = "com.microsoft"


class Graph:
    """Nodes and constants, added one after the other."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = load_file(folder / "model.safetensors")
        self.nodes = []
        self.constants = {}

    def constant(self, name: str, value) -> str:
        value = np.ascontiguousarray(value)
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes) -> str:
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, inputs, [output], domain=domain, **attributes)
        )
        return output

    def product(self, x: str, name: str) -> str:
        return self.node("MatMul", x, self.constant(f"{name}.T", self.weights[f"{name}.weight"].T))

    def linear(self, x: str, name: str) -> str:
        return self.node("Add", self.product(x, name), self.weight(f"{name}.bias"))

    def norm(self, x: str, name: str) -> str:
        gain, offset = self.weight(f"{name}.LayerNorm.weight"), self.weight(f"{name}.LayerNorm.bias")
        epsilon = self.config["layer_norm_eps"]
        return self.node("LayerNormalization", x, gain, offset, axis=-1, epsilon=epsilon)

    def embeddings(self) -> str:
        # A text is of the first kind throughout, so its row is added to those of the positions here.
        kind = self.weights["embeddings.token_type_embeddings.weight"][0]
        positions = self.weights["embeddings.position_embeddings.weight"] + kind
        count = self.node("Gather", self.node("Shape", "tokens"), self.constant("second", np.array([1])))
        taken = self.node(
            "Slice", self.constant("positions", positions), self.constant("zero", np.array([0])), count
        )
        words = self.node("Gather", self.weight("embeddings.word_embeddings.weight"), "tokens")
        return self.norm(self.node("Add", words, taken), "embeddings")

    def plain_layer(self, x: str, name: str) -> str:
        heads = self.config["num_attention_heads"]
        width = self.config["hidden_size"] // heads
        apart = self.constant("apart", np.array([0, 0, heads, width]))

        def part(which: str, order: list[int]) -> str:
            whole = self.linear(x, f"{name}.attention.self.{which}")
            return self.node("Transpose", self.node("Reshape", whole, apart), perm=order)

        queries, keys = part("query", [0, 2, 1, 3]), part("key", [0, 2, 3, 1])
        products = self.node("MatMul", queries, keys)
        scaled = self.node("Mul", products, self.constant("scale", np.float32(width**-0.5)))
        shares = self.node("Softmax", scaled, axis=-1)
        means = self.node("MatMul", shares, part("value", [0, 2, 1, 3]))
        together = self.constant("together", np.array([0, 0, heads * width]))
        means = self.node("Reshape", self.node("Transpose", means, perm=[0, 2, 1, 3]), together)
        attended = self.linear(means, f"{name}.attention.output.dense")
        x = self.norm(self.node("Add", x, attended), f"{name}.attention.output")
        wide = self.node("Gelu", self.linear(x, f"{name}.intermediate.dense"))
        return self.norm(self.node("Add", x, self.linear(wide, f"{name}.output.dense")), f"{name}.output")

    def fused_layer(self, x: str, name: str) -> str:
        parts = [f"{name}.attention.self.{which}" for which in ("query", "key", "value")]
        weights = np.concatenate([self.weights[f"{part}.weight"].T for part in parts], axis=1)
        biases = np.concatenate([self.weights[f"{part}.bias"] for part in parts])
        attended = self.node(
            "Attention",
            x,
            self.constant(f"{name}.projection", weights),
            self.constant(f"{name}.projection.bias", biases),
            domain=CONTRIBUTED,
            num_heads=self.config["num_attention_heads"],
        )
        x = self.skip(attended, x, f"{name}.attention.output")
        wide = self.product(x, f"{name}.intermediate.dense")
        wide = self.node("BiasGelu", wide, self.weight(f"{name}.intermediate.dense.bias"), domain=CONTRIBUTED)
        return self.skip(wide, x, f"{name}.output")

    def skip(self, x: str, before: str, name: str) -> str:
        constants = ("LayerNorm.weight", "LayerNorm.bias", "dense.bias")
        return self.node(
            "SkipLayerNormalization",
            self.product(x, f"{name}.dense"),
            before,
            *(self.weight(f"{name}.{constant}") for constant in constants),
            domain=CONTRIBUTED,
            epsilon=self.config["layer_norm_eps"],
        )

    def save(self, path: Path, fused: bool) -> Path:
        x = self.embeddings()
        for number in range(self.config["num_hidden_layers"]):
            layer = self.fused_layer if fused else self.plain_layer
            x = layer(x, f"encoder.layer.{number}")
        mean = self.node("ReduceMean", x, self.constant("tokens_axis", np.array([1])), keepdims=0)
        vector = self.node("LpNormalization", mean, axis=-1, p=2)
        graph = helper.make_graph(
            self.nodes,
            "sentence",
            [helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "count"])],
            [helper.make_tensor_value_info(vector, TensorProto.FLOAT, [1, self.config["hidden_size"]])],
            list(self.constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIBUTED, 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), path)
        return path
