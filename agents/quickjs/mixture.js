// A mixture of what JavaScript programs do, with a digest over all of it. Each round prints a line, so that
// a run that was moved can be compared with one that was not. The argument is the number of rounds.

"use strict";

const rounds = Number(scriptArgs[0] ?? 20);
let digest = 0x811c9dc5;

function absorb(text) {
    for (let i = 0; i < text.length; i++) {
        digest = Math.imul(digest ^ text.charCodeAt(i), 0x01000193) >>> 0;
    }
}

// Closures: a generator of numbers with hidden state.
function numbersFrom(seed) {
    let state = seed >>> 0;
    return (bound) => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return Math.floor((state / 2 ** 32) * bound);
    };
}

class Shape {
    #name;
    constructor(name) { this.#name = name; }
    get name() { return this.#name; }
    area() { throw new TypeError(`${this.name} has no area`); }
}
class Circle extends Shape {
    constructor(radius) { super("circle"); this.radius = radius; }
    area() { return Math.PI * this.radius ** 2; }
}
class Square extends Shape {
    constructor(side) { super("square"); this.side = side; }
    area() { return this.side ** 2; }
}

function* permutations(items, count = items.length) {
    if (count === 1) { yield items.slice(); return; }
    for (let i = 0; i < count; i++) {
        yield* permutations(items, count - 1);
        const other = count % 2 ? 0 : i;
        [items[other], items[count - 1]] = [items[count - 1], items[other]];
    }
}

// Deep recursion through a native function's callback.
const depth = (n) => (n === 0 ? 0 : 1 + [n].map((m) => depth(m - 1))[0]);

const tasks = {
    strings(next) {
        const words = Array.from({ length: 100 }, () => "w" + next(40).toString(36));
        const text = words.join(" ").replace(/w(\w)\b/g, (_, c) => `<${c.toUpperCase()}>`);
        return text.split(/\s+/).reverse().join("").padStart(900, "æ→😀").normalize("NFD");
    },
    maps(next) {
        const counts = new Map();
        for (let i = 0; i < 1000; i++) {
            const key = `k${next(90)}`;
            counts.set(key, (counts.get(key) ?? 0) + 1);
        }
        const seen = new Set([...counts].filter(([, n]) => n > 15).map(([key]) => key));
        return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
            .slice(0, 20).concat([...seen].slice(0, 5)).join();
    },
    integers(next) {
        let [a, b] = [0n, 1n];
        for (let i = 0; i < 300 + next(50); i++) [a, b] = [b, a + b];
        return ((a ** 3n) % (2n ** 521n - 1n)).toString(16) + BigInt.asIntN(64, a);
    },
    sorting(next) {
        const items = Array.from({ length: 500 }, () => ({ key: next(500), tag: next(9) }));
        items.sort((a, b) => a.key - b.key);
        const floats = Float64Array.from(items, (item) => Math.sqrt(item.key) / (1 + item.tag));
        return items.map((item) => item.tag).join("") + floats.sort().at(-1).toFixed(12);
    },
    expressions(next) {
        const log = Array.from({ length: 60 }, (_, i) =>
            `2026-0${1 + next(9)}-1${next(9)} node${next(12)} ${["ok", "lost"][next(2)]} ${i}`).join("\n");
        const line = /^(?<year>\d+)-(?<month>\d\d)-\d+ (?<node>node\d+) lost (?=\d)/gmu;
        return [...log.matchAll(line)].map((m) => m.groups.node + m.groups.month).join();
    },
    generators(next) {
        let sum = 0;
        for (const order of permutations([1, 2, 3, 4, 5])) sum = (sum * 7 + order[next(5)]) % 1000003;
        return String(sum);
    },
    json(next) {
        const tree = (level) => level === 0
            ? { leaf: next(1000) / 8, text: "\u2028\"" + next(10) }
            : { level, list: [tree(level - 1), null, tree(level - 1)], even: level % 2 === 0 };
        const text = JSON.stringify(tree(4), (key, value) => (key === "even" ? undefined : value), 1);
        return JSON.stringify(JSON.parse(text, (key, value) => (key === "leaf" ? -value : value)));
    },
    classes(next) {
        const shapes = Array.from({ length: 80 }, () =>
            [Circle, Square, Shape][next(3)]).map((kind) => new kind(1 + next(9)));
        return shapes.map((shape) => {
            try { return shape.area().toPrecision(8); } catch (error) { return error.message; } finally { absorb("."); }
        }).join("|");
    },
    recursion(next) {
        return String(depth(40 + next(20)));
    },
    buffers(next) {
        const view = new DataView(new ArrayBuffer(1024));
        for (let i = 0; i < 1024; i += 8) view.setFloat64(i, Math.sin(next(10000)), i % 16 === 0);
        let sum = 0;
        for (const word of new Uint32Array(view.buffer)) sum = (sum + word) >>> 0;
        return sum.toString(2);
    },
};

async function main() {
    const next = numbersFrom(2026);
    const kept = [];
    for (let round = 1; round <= rounds; round++) {
        for (const [name, task] of Object.entries(tasks)) {
            const text = await Promise.resolve(task(next));
            absorb(name + text);
            kept.push({ round, name, text });
        }
        // What is kept for long, and garbage in cycles.
        for (const item of kept) item.other = kept[next(kept.length)];
        if (kept.length > 60) kept.splice(0, 30);
        print(`round ${round}: ${digest.toString(16).padStart(8, "0")}`);
    }
    print(`kept ${kept.length}, digest ${digest.toString(16).padStart(8, "0")}`);
}

main();
