#!/usr/bin/env python3
"""Writes broadcasting.txt, a table of what NumPy makes of shapes, views, operations and printing.

    python3 broadcasting.py > broadcasting.txt

Each line is a case: its kind, its arguments and the result, separated by " | ". A shape is its lengths with commas, `scalar`
without any. An array is its shape, a colon, and its elements with commas. What NumPy refuses is `error`. Made with NumPy 2.4.6;
tests/numpy.rs replays it.
"""

import math
import random
import warnings

import numpy as np

RANDOM = random.Random(20260801)
TYPES = {"f32": np.float32, "f16": np.float16, "i8": np.int8, "i32": np.int32}


def shape_text(shape):
    return ",".join(map(str, shape)) or "scalar"


def number(value):
    return repr(float(value)) if isinstance(value, np.floating) else str(int(value))


def array_text(array):
    return shape_text(array.shape) + ":" + ",".join(map(number, array.flatten()))


def row(*fields):
    print(" | ".join(map(str, fields)))


def random_shape(rank_max=4, lengths=(0, 1, 1, 2, 3, 4)):
    return tuple(RANDOM.choice(lengths) for _ in range(RANDOM.randint(0, rank_max)))


def related_shape(shape, lengths=(1, 1, 2, 3)):
    """Often one with which `shape` can be broadcast."""
    other = [RANDOM.choice((length, length, 1)) for length in shape]
    if other and RANDOM.random() < 0.2:
        other[RANDOM.randrange(len(other))] = RANDOM.choice(lengths)
    other = other[RANDOM.randint(0, len(other)) if RANDOM.random() < 0.4 else 0:]
    if RANDOM.random() < 0.2:
        other = list(random_shape(2, lengths)) + other
    return tuple(other)


def random_array(name, shape):
    """Multiples of 1/8 and what lies at the edges of a type, but no -0: which of two zeros is greater is not defined."""
    dtype = TYPES[name]
    if issubclass(dtype, np.integer):
        info = np.iinfo(dtype)
        edges = [info.min, info.max, info.min + 1, -1, 0, 1]
        draw = lambda: RANDOM.choice(edges) if RANDOM.random() < 0.4 else RANDOM.randint(info.min, info.max)
    else:
        info = np.finfo(dtype)
        edges = [math.nan, math.inf, -math.inf, float(info.max), float(info.tiny), 0.0, 0.1, -0.3]
        draw = lambda: RANDOM.choice(edges) if RANDOM.random() < 0.25 else RANDOM.randint(-400, 400) / 8
    return np.array([draw() for _ in range(math.prod(shape))], dtype=dtype).reshape(shape)


def plain_array(name, shape):
    """Small multiples of 1/4, of which sums and products are exact, whatever their order."""
    step = 1 if name.startswith("i") else 4
    return np.array([RANDOM.randint(-20, 20) / step for _ in range(math.prod(shape))], dtype=TYPES[name]).reshape(shape)


def result(make, text=array_text):
    try:
        return text(make())
    except (ValueError, IndexError):
        return "error"


def broadcasts():
    pairs = [((), ()), ((3,), ()), ((0,), (1,)), ((0,), (2,)), ((2, 1), (1, 3)), ((8, 1, 6, 1), (7, 1, 5))]
    for _ in range(100):
        first = random_shape()
        pairs.append((first, related_shape(first)))
        pairs.append((random_shape(3), random_shape(3)))
    for a, b in pairs:
        row("broadcast", shape_text(a), shape_text(b), result(lambda: np.broadcast_shapes(a, b), shape_text))


def step(array):
    """A change of the view, as text, and its result."""
    rank = array.ndim
    kind = RANDOM.choice(("permute", "transpose", "slice", "slice", "index", "flip", "broadcast"))
    axis = RANDOM.randint(0, rank) if RANDOM.random() < 0.05 else RANDOM.randint(0, max(rank - 1, 0))
    length = array.shape[axis] if axis < rank else 0
    if kind == "permute":
        axes = list(range(rank))
        RANDOM.shuffle(axes)
        return f"permute {shape_text(axes)}", lambda: array.transpose(axes)
    if kind == "transpose":
        return kind, lambda: array.swapaxes(-1, -2)
    if kind == "slice":
        start = RANDOM.randint(0, length)
        end = RANDOM.randint(start, length)
        return f"slice {axis} {start} {end}", lambda: np.moveaxis(np.moveaxis(array, axis, 0)[start:end], 0, axis)
    if kind == "index":
        index = RANDOM.randint(0, length)
        return f"index {axis} {index}", lambda: np.moveaxis(array, axis, 0)[index]
    if kind == "flip":
        return f"flip {axis}", lambda: np.flip(array, axis)
    shape = [2] * RANDOM.randint(0, 2) + [RANDOM.choice((2, 3)) if length == 1 else length for length in array.shape]
    return f"broadcast {shape_text(shape)}", lambda: np.broadcast_to(array, shape)


def chain(lengths):
    """A view of 0, 1, 2, … by some steps: the first shape, the steps, and the view or nothing if it was refused."""
    shape = random_shape(4, lengths)
    array = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    steps = []
    for _ in range(RANDOM.randint(1, 3)):
        text, apply = step(array)
        steps.append(text)
        try:
            array = apply()
        except (ValueError, IndexError):
            return shape, steps, None
    return shape, steps, array


def views():
    for _ in range(250):
        shape, steps, view = chain((0, 1, 2, 3, 4))
        row("view", shape_text(shape), "; ".join(steps), "error" if view is None else array_text(view))


def shape_of_count(count):
    """A random one with that many elements."""
    shape = []
    while count > 1:
        length = RANDOM.choice([n for n in range(2, count + 1) if count % n == 0])
        shape.append(length)
        count //= length
    for _ in range(RANDOM.choice((0, 0, 1, 2))):
        shape.insert(RANDOM.randint(0, len(shape)), 1)
    RANDOM.shuffle(shape)
    return tuple(shape)


def reshapes():
    """Whether a view can be given a shape where its elements are."""
    done = 0
    while done < 250:
        shape, steps, view = chain((1, 2, 2, 3, 4, 6))
        if view is None or view.size < 2 or view.size > 400:
            continue
        to = shape_of_count(view.size + (RANDOM.random() < 0.05))
        if len(to) > 8:
            continue
        reshaped = result(lambda: np.reshape(view, to, copy=False))
        row("reshape", shape_text(shape), "; ".join(steps), shape_text(to), reshaped)
        done += 1


OPERATIONS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def elementwise():
    for name in TYPES:
        divide = np.floor_divide if name.startswith("i") else np.divide
        for operation, function in {**OPERATIONS, "div": divide}.items():
            for case in range(14):
                shape = (11,) if case == 0 else random_shape(3, (0, 1, 2, 3, 3))
                other = shape if case == 0 else related_shape(shape)
                a, b = random_array(name, shape), random_array(name, other)
                row(operation, name, array_text(a), array_text(b), result(lambda: np.asarray(function(a, b))))


def matrices():
    for _ in range(150):
        rows, inner, columns = (RANDOM.choice((0, 1, 2, 3, 5)) for _ in range(3))
        counts = random_shape(2, (1, 2, 3))
        other = inner + 1 if RANDOM.random() < 0.1 else inner
        a = plain_array("f32", counts + (rows, inner))
        b = plain_array("f32", related_shape(counts) + (other, columns))
        row("matmul", array_text(a), array_text(b), result(lambda: np.matmul(a, b)))


def reductions():
    for name, dtype in TYPES.items():
        is_integer = issubclass(dtype, np.integer)
        wide, sums = (np.int32, np.int32) if is_integer else (np.float64, dtype)
        means = np.float32 if is_integer else dtype
        for case in range(48):
            function = ("sum", "mean", "max", "argmax")[case % 4]
            shape = random_shape(3, (0, 1, 2, 3, 5)) if case > 12 else random_shape(3, (2, 3))
            axis = RANDOM.choice([None, *range(len(shape) + (len(shape) > 0 and RANDOM.random() < 0.1))])
            kept = axis is not None and RANDOM.random() < 0.5
            array = plain_array(name, shape) if function == "mean" or RANDOM.random() < 0.5 else random_array(name, shape)
            make = {
                "sum": lambda: np.sum(array, axis=axis, keepdims=kept, dtype=wide).astype(sums),
                "mean": lambda: np.mean(array, axis=axis, keepdims=kept, dtype=np.float64).astype(means),
                "max": lambda: np.asarray(np.max(array, axis=axis, keepdims=kept)),
                "argmax": lambda: np.asarray(np.argmax(array, axis=axis, keepdims=kept)),
            }[function]
            row(function, name, array_text(array), "all" if axis is None else axis, kept, result(make))


def conversions():
    values = [0.0, -0.0, 0.1, -2.5, 2.5, 127.9, -128.9, 1e4, 65519.0, 65520.0, 1e-8, 6e-8, 3e9, -3e9, 1e38]
    source = np.array(values + [math.inf, -math.inf, math.nan], dtype=np.float32)
    row("to", "f32", "f16", array_text(source), array_text(source.astype(np.float16)))
    for name in ("i8", "i32"):
        info = np.iinfo(TYPES[name])
        exact = [0 if math.isnan(it) else max(info.min, min(info.max, it)) for it in source.tolist()]
        row("to", "f32", name, array_text(source), array_text(np.array([int(it) for it in exact], dtype=TYPES[name])))
    integers = np.array([0, 1, -1, 2049, 2051, 65519, 65520, 16777217, 2**31 - 1, -(2**31)], dtype=np.int32)
    for name in ("f16", "f32"):
        row("to", "i32", name, array_text(integers), array_text(integers.astype(TYPES[name])))
    halves = np.array([0.1, -0.0, 65504, 6e-8, math.inf, math.nan], dtype=np.float16)
    row("to", "f16", "f32", array_text(halves), array_text(halves.astype(np.float32)))


def escaped(text):
    return text.replace("\n", "\\n") + "."


def prints():
    """The text ends with a point, for otherwise a blank at its end would be lost."""
    for name, dtype in TYPES.items():
        shapes = [(), (1,), (0,), (2, 0), (7,), (40,), (3, 4), (2, 3, 4), (2, 1, 3, 2), (30, 33), (1001,), (7, 200), (5, 6, 40)]
        shapes += [(1000,)] if name == "f16" else []
        for shape in shapes:
            for start, by in ((0.0, 1.0), (-3.0, 0.25), (0.0001, 0.0007), (1e-5, 1e3), (123.0, -7.125)):
                size = math.prod(shape)
                if dtype == np.int8 and abs(start + by * size) > 100 or dtype == np.float16 and by == 1e3 and size > 60:
                    continue
                array = (start + by * np.arange(size, dtype=np.float64)).astype(np.float32).astype(dtype).reshape(shape)
                row("print", name, shape_text(shape), start, by, escaped(str(array)))
        for _ in range(25):
            array = random_array(name, random_shape(3, (1, 2, 3, 5)))
            row("print-of", name, array_text(array), escaped(str(array)))
            array = plain_array(name, random_shape(3, (1, 2, 3, 9)))
            row("print-of", name, array_text(array), escaped(str(array)))
    for values in ([math.nan], [math.inf, 1.0], [-math.inf, 1.0], [-0.0, 1e-4], [1e-4, 0.1], [1e6, 1.0], [999999.9, 2e5],
                   [1e-45, 1.0], [3.4e38, -1e-38], [1.5, math.nan, -math.inf], [0.1, 0.100001], [1e10], [16777216.0, 16777218.0]):
        array = np.array(values, dtype=np.float32)
        row("print-of", "f32", array_text(array), escaped(str(array)))
    for value in (0.0, -0.0, 1.0, 0.1, 1e-4, 9e-5, 1e15, 1e16, 2.5e16, 123456.79, -7e-20, math.nan, -math.inf, 1e10, 3.3e-4, 999999.0, 1e6, 1.2345678e-4):
        array = np.array(value, dtype=np.float32)
        row("print-of", "f32", array_text(array), escaped(str(array)))


with np.errstate(all="ignore"):
    warnings.simplefilter("ignore")
    for part in (broadcasts, views, reshapes, elementwise, matrices, reductions, conversions, prints):
        part()
