"""Writes ../tests/data/wordpiece.json: texts, and the pieces that the library `tokenizers` makes of them.

    python wordpiece.py FOLDER_OF_THE_MODEL

With them are the lines of the vocabulary that are a part of any of these texts, and no others: more are not looked up, so
that the pieces are those of the whole vocabulary.
"""

import json
import random
import sys
from pathlib import Path

from tokenizers import Tokenizer

TOKENS_MAX = 256

TEXTS = [
    "", " ", "\t\r\n", "a", "A", "Hello, world!", "HELLO", "unaffable", "Unbelievably", "don't", "rock'n'roll", "it’s",
    "state-of-the-art", "e.g. this, i.e. that...", "what?!", "(a+b)*c=d^2", "1,234.56", "3.14", "$5 €6 £7 ¥8", "50%", "#hash @name",
    "user@example.com", "https://example.org/a?b=c&d=e#f", "C++ C# F#", "a_b_c", "a/b\\c", "`code` ~tilde~ |pipe|", "<tag attr=\"v\">",
    "{\"key\": [1, 2]}", "[CLS] [SEP] [MASK] [PAD] [UNK]", "a[SEP]b", "[unused1]", "##ing", "# #", "##", "é", "É", "e\u0301", "naïve café",
    "Ünïcödé", "Ångström", "ångström", "Škoda Žižek", "łódź Łódź", "ø Ø æ Æ œ Œ", "ß ẞ straße", "İstanbul ıstanbul", "ǅ ǆ Ǆ", "ﬁ ﬂ ﬀ",
    "½ ² ³ ¹", "ª º", "ⅷ Ⅷ", "①②③", "Ω Ω", "K K", "Å", "ﷺ", "™ ® ©", "… — – ‐ ‑ ‒ ―", "“quoted” ‘single’ „low‟ «guillemets»", "¿Qué? ¡Sí!",
    "·•‣", "†‡§¶", "°C 5′6″", "¢ ¤ ¦ ¬ ¯ ´ ¸ × ÷", "← → ⇒", "∑ ∫ √ ∞ ≤ ≥ ≠", "a\u00a0b", "a\u2003b\u2009c", "a\u200bb", "a\u200cb\u200dc",
    "soft\u00adhyphen", "a\u2028b\u2029c", "a\u0085b", "a\u0000b", "a\ufffdb", "a\u007fb", "\ufeffbom", "a\ue000b", "a\U000f0000b",
    "a\u2060b", "a\u202eb", "a\u180eb", "\u001b[31mred", "a\u000bb\u000cc", "中文", "我爱北京天安门", "东京 tokyo", "漢字かな交じり文", "カタカナ",
    "がぎぐげご", "ｶﾞｷﾞ", "ＡＢＣ１２３", "한국어", "각 갂", "ㄱㄴㄷ", "㐀㐁", "豈更車", "𠀀𠀁", "𫝀", "𫠠𫠡", "丽丸", "々〇〆", "、。「」『』【】", "，！？：；",
    "Привет, мир!", "ЁЛКА ёлка Йод", "Україна ї", "Ελλάδα ΆΈΉ", "ΑΣ Σίσυφος", "ΐ ΰ", "עברית", "שָׁלוֹם", "العربية", "مُحَمَّد", "٠١٢٣", "؟،؛",
    "हिन्दी", "नमस्ते।", "தமிழ்", "ไทย ภาษา", "ქართული", "Հայերեն", "አማርኛ", "བོད་ཡིག", "မြန်မာ", "ខ្មែរ", "ᚠᚢᚦ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "𝒜𝓑", "Việt Nam", "Tiếng Việt",
    "đường Đ", "Ⓐ", "a̐éö̲", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞", "q\u0307\u0323", "q\u0323\u0307", "\u0301abc", "क्ष", "😀", "🤖 robot", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "❤️", "☎ ☂", "5️⃣", "a😀b",
    "x" * 99, "x" * 100, "x" * 101, "é" * 100, "é" * 101, "ab" * 60, "a " * 300, "a" * 100 + " b", "." * 300, "中" * 260, "word " * 254,
    "word " * 255, "unaffable " * 100, "supercalifragilisticexpialidocious", "pneumonoultramicroscopicsilicovolcanoconiosis",
    "Donaudampfschifffahrtsgesellschaftskapitän", "floccinaucinihilipilification", "xqzjv wkrtp", "qwertyuiop asdfghjkl", "0x1F600", "1e-12",
    "2026-11-29T12:00:00Z", "10:30pm", "+49 30 123456", "v1.2.3-beta.4", "192.168.1.100:9000", "C:\\Users\\x", "fn main() { let x = &y[0]; }",
    "SELECT * FROM t WHERE a >= 1;", "\\alpha \\frac{1}{2}", "H₂O CO₂", "x² + y³", "E = mc²", "µm μm", "No. № 5", "a,b;c:d!e?f",
    "  leading and trailing  ", "tabs\tand\nlines", "MiXeD CaSe WoRdS", "aaaa bbbb cccc", "I I I", "to be or not to be", "the the the",
]


def random_texts(count: int) -> list[str]:
    """Of characters from all over, with words of the usual kind between them."""
    chance = random.Random(1)
    ranges = [(0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x900, 0x97F), (0x1E00, 0x1FFF)]
    ranges += [(0x2000, 0x206F), (0x3000, 0x30FF), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xFB00, 0xFB06)]

    def character() -> str:
        return chr(chance.randint(*chance.choice(ranges)))

    texts = []
    while len(texts) < count:
        words = ["".join(character() for _ in range(chance.randint(1, 4))) for _ in range(4)]
        texts.append(" ".join(words + chance.sample(["running", "the", "Tokenizer", "of", "Words"], 2)))
    return texts


def main():
    folder = Path(sys.argv[1])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS_MAX)
    # What looks like a token of the model's own is text.
    tokenizer.encode_special_tokens = True
    texts = TEXTS + random_texts(40)
    cases = [{"text": text, "pieces": tokenizer.encode(text).tokens} for text in texts]
    normalised = " ".join(tokenizer.normalizer.normalize_str(text) for text in texts)
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    special = {"[UNK]", "[CLS]", "[SEP]"}
    vocabulary = [line for line in lines if line in special or line.removeprefix("##") in normalised]
    with open(Path(__file__).parent / "../tests/data/wordpiece.json", "w", encoding="utf-8") as out:
        out.write('{"vocabulary": ' + json.dumps(vocabulary) + ',\n"cases": [\n')
        out.write(",\n".join(json.dumps(case) for case in cases) + "\n]}\n")


main()
