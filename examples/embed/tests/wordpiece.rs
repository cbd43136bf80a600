//! Texts whose pieces the library `tokenizers` has made, in `data/wordpiece.json`; `compare/wordpiece.py` writes it.
#![allow(clippy::unwrap_used)]

use embed::WordPiece;
use serde::Deserialize;

#[derive(Deserialize)]
struct Data {
    vocabulary: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    pieces: Vec<String>,
}

#[test]
fn pieces_are_those_of_the_library() {
    let data: Data = serde_json::from_str(include_str!("data/wordpiece.json")).unwrap();
    assert!(data.cases.len() >= 200);
    let pieces = WordPiece::from_vocabulary(data.vocabulary.join("\n").as_bytes()).unwrap();
    for case in data.cases {
        let found = pieces.encode(&case.text).into_iter();
        let found: Vec<&str> = found
            .map(|number| data.vocabulary[number as usize].as_str())
            .collect();
        assert_eq!(found, case.pieces, "{:?}", case.text);
    }
}
