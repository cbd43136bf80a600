"""Compares `embed` with onnxruntime: the vectors of the sentences in sentences.txt, and with --rounds the times.

Both go from a text to its vector, one sentence at a time, on one thread. They take turns, round by round. Of each sentence the
shortest time of all rounds counts, so that what else the machine does has little weight.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic
from tokenizers import Tokenizer

from graph import Graph

TOKENS_MAX = 256
COSINE_MIN = {"f32": 0.9999, "int8": 0.99}


class Onnx:
    """onnxruntime with one thread, and the tokenizer of the library `tokenizers`."""

    def __init__(self, folder: Path, graph: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.runner = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(TOKENS_MAX)

    def embed(self, text: str) -> dict:
        start = time.perf_counter()
        tokens = self.tokenizer.encode(text).ids
        vector = self.runner.run(None, {"tokens": np.array([tokens])})[0][0]
        seconds = time.perf_counter() - start
        return {"tokens": len(tokens), "seconds": seconds, "vector": vector}


class Embed:
    """`embed`, which answers a line with a line."""

    def __init__(self, program: Path, folder: Path, *arguments: str):
        command = [program, "--model", folder, "-o", "json", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def embed(self, text: str) -> dict:
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: embed ended with {self.process.wait()}")
        return json.loads(line)


def cosine(a, b) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def compare(expected: list[dict], found: list[dict]) -> float:
    for number, (one, other) in enumerate(zip(expected, found), 1):
        if one["tokens"] != other["tokens"]:
            sys.exit(f"error: line {number} has {one['tokens']} tokens, and {other['tokens']} by embed")
    return min(cosine(one["vector"], other["vector"]) for one, other in zip(expected, found))


def measure(runners: dict, sentences: list[str], rounds: int) -> dict:
    best = {name: np.full(len(sentences), np.inf) for name in runners}
    for _ in range(rounds):
        for name, runner in runners.items():
            seconds = [runner.embed(sentence)["seconds"] for sentence in sentences]
            best[name] = np.minimum(best[name], seconds)
    return {name: float(seconds.mean() * 1e3) for name, seconds in best.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--embed", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for graphs")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    arguments = parser.parse_args()
    lines = Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8")
    sentences = lines.splitlines()

    folder, work = arguments.model, arguments.work
    plain = Graph(folder).save(work / "plain.onnx", fused=False)
    reference = Onnx(folder, plain)
    embed = {
        "f32": Embed(arguments.embed, folder),
        "int8": Embed(arguments.embed, folder, "--int8"),
    }
    expected = [reference.embed(sentence) for sentence in sentences]
    result = {"sentences": len(sentences), "tokens": sum(one["tokens"] for one in expected)}
    result["cosine_min"] = {
        name: compare(expected, [runner.embed(sentence) for sentence in sentences])
        for name, runner in embed.items()
    }
    if arguments.rounds > 0:
        logging.disable(logging.WARNING)
        fused = Graph(folder).save(work / "fused.onnx", fused=True)
        bytes_ = work / "int8.onnx"
        quantize_dynamic(fused, bytes_, extra_options={"DefaultTensorType": TensorProto.FLOAT})
        runners = {f"embed {name}": runner for name, runner in embed.items()}
        runners |= {
            "onnxruntime f32, operators of ONNX": reference,
            "onnxruntime f32, fused operators": Onnx(folder, fused),
            "onnxruntime int8": Onnx(folder, bytes_),
        }
        theirs = [runners["onnxruntime int8"].embed(sentence) for sentence in sentences]
        result["cosine_min"]["onnxruntime int8"] = compare(expected, theirs)
        result["ms_per_sentence"] = measure(runners, sentences, arguments.rounds)
        result["rounds"] = arguments.rounds

    report(result, arguments.output)
    for name, least in COSINE_MIN.items():
        if not result["cosine_min"][name] >= least:
            sys.exit(f"error: a vector in {name} has the cosine {result['cosine_min'][name]}, not {least}")


def report(result: dict, form: str):
    if form == "json":
        print(json.dumps(result))
        return
    print(f"{result['sentences']} sentences of {result['tokens'] / result['sentences']:.1f} tokens")
    for name, value in result["cosine_min"].items():
        print(f"{value:10.7f}     smallest cosine with onnxruntime's f32: {name}")
    for name, value in result.get("ms_per_sentence", {}).items():
        print(f"{value:10.3f} ms  per sentence: {name}")


if __name__ == "__main__":
    main()
