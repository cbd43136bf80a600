//! Each rule on an example that keeps it and one that breaks it.
#![allow(clippy::unwrap_used)]

use super::length::functions;
use super::rules::Rules;
use super::source::Source;
use super::{File, check};

const LIMITS: &str = "[length]\nfile_max = 6\nfunction_max = 3\n";

/// The findings of a rule table over files, as `path:line` in order.
#[track_caller]
fn findings(rules: &str, files: &[(&str, &str)]) -> Vec<String> {
    let limits = if rules.contains("[length]") {
        ""
    } else {
        LIMITS
    };
    let rules: Rules = basic_toml::from_str(&format!("{rules}\n{limits}")).unwrap();
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| File {
            path: (*path).into(),
            text: (*text).into(),
        })
        .collect();
    check(&rules, &files)
        .iter()
        .map(|finding| format!("{}:{}", finding.path, finding.line))
        .collect()
}

const NONE: [&str; 0] = [];

#[test]
fn words_are_found_in_comments_strings_and_documents() {
    let rules = "[[word]]\ntext = \"bad luck\"\nreason = \"r\"\n";
    assert_eq!(
        findings(rules, &[("a.rs", "//! Doc.\n// Bad luck.\n")]),
        ["a.rs:2"]
    );
    assert_eq!(
        findings(rules, &[("a.rs", "//! Doc.\nlet a = \"bad luck\";\n")]),
        ["a.rs:2"]
    );
    assert_eq!(
        findings(rules, &[("a.md", "bad lucky, sinbad luck\n")]),
        NONE
    );
    assert_eq!(findings(rules, &[("a.md", "so (bad luck).\n")]), ["a.md:1"]);
}

#[test]
fn words_end_at_underscores_and_case_can_matter() {
    let any = "[[word]]\ntext = \"bad\"\nreason = \"r\"\n";
    assert_eq!(findings(any, &[("a.md", "a_bad_name\n")]), ["a.md:1"]);
    let exact = "[[word]]\ntext = \"BAD\"\nreason = \"r\"\nmatching = \"exact\"\n";
    assert_eq!(
        findings(exact, &[("a.md", "bad\nBAD\nBADLY\n")]),
        ["a.md:2"]
    );
    let part = "[[word]]\ntext = \"/bad/\"\nreason = \"r\"\nmatching = \"part\"\n";
    assert_eq!(findings(part, &[("a.md", "x/bad/y\n")]), ["a.md:1"]);
}

#[test]
fn a_scope_divides_tests_from_what_ships() {
    let shipped = "[[word]]\ntext = \"bad\"\nreason = \"r\"\nscope = \"shipped\"\n";
    let text = "//! Doc.\n// bad\n#[cfg(test)]\nmod tests {\n    // bad\n}\n";
    assert_eq!(findings(shipped, &[("a.rs", text)]), ["a.rs:2"]);
    assert_eq!(findings(shipped, &[("a/tests/b.rs", text)]), NONE);
    assert_eq!(findings(shipped, &[("a.md", "bad\n")]), NONE);
    let tests = shipped.replace("shipped", "tests");
    assert_eq!(findings(&tests, &[("a.rs", text)]), ["a.rs:5"]);
}

#[test]
fn calls_are_found_in_code_only() {
    let rules = "[[call]]\ntext = \"thread::sleep(\"\nreason = \"r\"\n";
    let text =
        "//! thread::sleep(x)\n/* thread::sleep(x) */ fn f() {\n    std::thread::sleep(x); }\n";
    assert_eq!(findings(rules, &[("a.rs", text)]), ["a.rs:3"]);
    assert_eq!(
        findings(
            rules,
            &[(
                "a.rs",
                "//! D.\nconst A: &str = r#\"\" thread::sleep(\"#;\n"
            )]
        ),
        NONE
    );
    assert_eq!(
        findings(
            rules,
            &[("a.rs", "//! D.\nfn f() { my_thread::sleep(x); }\n")]
        ),
        NONE
    );
    assert_eq!(findings(rules, &[("a.md", "thread::sleep(x)\n")]), NONE);
}

#[test]
fn calls_hold_within_their_paths() {
    let rules = "[[call]]\ntext = \"now()\"\nreason = \"r\"\nwithin = [\"core/\"]\nexcept = [\"core/clock.rs\"]\n";
    let text = "//! D.\nfn f() { now(); }\n";
    let files = [
        ("core/a.rs", text),
        ("core/clock.rs", text),
        ("edge/a.rs", text),
    ];
    assert_eq!(findings(rules, &files), ["core/a.rs:2"]);
}

#[test]
fn a_permission_needs_a_reason_and_a_use() {
    let rules = "[[word]]\ntext = \"bad\"\nreason = \"r\"\n[[allow]]\ntext = \"bad\"\npath = \"a.md\"\nreason = \"ok\"\n";
    assert_eq!(findings(rules, &[("a.md", "bad")]), NONE);
    assert_eq!(
        findings(rules, &[("a.md", "good"), ("b.md", "bad")]),
        ["b.md:1", "xtask/tidy.toml:0"]
    );
    assert_eq!(
        findings(&rules.replace("ok", " "), &[("a.md", "bad")]),
        ["xtask/tidy.toml:0"]
    );
}

#[test]
fn module_documentation_comes_first() {
    assert_eq!(
        findings("", &[("a.rs", "#![allow(x)]\n\n//! Doc.\n")]),
        NONE
    );
    assert_eq!(
        findings("", &[("a.rs", "// Comment.\n//! Doc.\n"), ("b.rs", "")]),
        ["a.rs:1", "b.rs:1"]
    );
    assert_eq!(
        findings("", &[("a/tests.rs", ""), ("tests/b.rs", "")]),
        ["tests/b.rs:1"]
    );
}

#[test]
fn long_files_and_functions_are_found() {
    let long = "//! D.\nfn f() {\n1;\n}\nfn g() {\n1;\n2;\n}\n";
    assert_eq!(findings("", &[("a.rs", long)]), ["a.rs:0", "a.rs:5"]);
    let tested = "//! D.\n#[cfg(test)]\nmod tests {\n1;\n2;\n3;\n4;\n}\n";
    assert_eq!(findings("", &[("a.rs", tested)]), NONE);
}

#[test]
fn a_listed_length_is_exact() {
    let listed = |file: usize, function: usize| {
        format!(
            "{LIMITS}[length.files]\n\"a.rs\" = {file}\n[length.functions]\n\"a.rs::g\" = {function}\n"
        )
    };
    let long = "//! D.\n\n\nfn g() {\n1;\n2;\n}\n";
    assert_eq!(findings(&listed(7, 4), &[("a.rs", long)]), NONE);
    assert_eq!(findings(&listed(8, 4), &[("a.rs", long)]), ["a.rs:0"]);
    assert_eq!(findings(&listed(7, 3), &[("a.rs", long)]), ["a.rs:4"]);
    assert_eq!(
        findings(&listed(7, 4), &[("a.rs", "//! D.\n")]),
        ["xtask/tidy.toml:0", "xtask/tidy.toml:0"]
    );
}

#[test]
fn functions_are_measured_past_their_signature() {
    let names = |code: &str| -> Vec<(String, usize)> {
        functions(code)
            .into_iter()
            .map(|function| (function.name, function.lines))
            .collect()
    };
    assert_eq!(
        names("fn a(\n  x: [u8; 4],\n) -> u8 {\n  1\n}\n"),
        [("a".to_owned(), 5)]
    );
    assert_eq!(
        names("trait T { fn a(&self); fn b(&self) {} }"),
        [("b".to_owned(), 1)]
    );
    assert_eq!(names("type F = fn (u8) -> u8; struct S { f: fn (u8) }"), []);
    assert_eq!(
        names("fn a() {\n  fn b() {\n  }\n}\n"),
        [("a".to_owned(), 4), ("b".to_owned(), 2)]
    );
    assert_eq!(
        names("impl X { fn a<T: Into<U>, U>(t: T) where T: Copy {\n} }"),
        [("a".to_owned(), 2)]
    );
}

#[test]
fn literals_are_told_from_lifetimes_and_names() {
    let code = |text: &str| Source::of("a.rs", text).code;
    assert_eq!(
        code("f('{', '\\'', b'\"', 'é') {}"),
        "f(   ,     , b   ,     ) {}"
    );
    assert_eq!(code("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
    assert_eq!(code("r\"{\" r#type"), "     r#type");
    assert_eq!(code("br##\"\"#\"## x"), "           x");
    assert_eq!(code("\"a\\\"{\" x"), "       x");
    assert_eq!(
        code("/* a /* b */ c */ x // y\nz"),
        "                  x     \nz"
    );
}

const WORKSPACE: (&str, &str) = (
    "Cargo.toml",
    "[workspace]\nmembers = []\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\nmissing_docs = \"warn\"\n",
);
const CRATES: &str = "[[crate]]\nname = \"low\"\npath = \"low\"\nfloor = 0\n\
    [[crate]]\nname = \"high\"\npath = \"high\"\nfloor = 1\nuses = [\"low\"]\nnever = [\"tokio\"]\n";

#[track_caller]
fn check_manifests(low: &str, high: &str, expected: &[&str]) {
    let low = format!("[package]\nname = \"low\"\n{low}");
    let high = format!("[package]\nname = \"high\"\n{high}");
    let files = [
        WORKSPACE,
        ("high/Cargo.toml", high.as_str()),
        ("low/Cargo.toml", low.as_str()),
    ];
    assert_eq!(findings(CRATES, &files), expected);
}

const LINTS: &str = "[lints]\nworkspace = true\n";

#[test]
fn dependencies_point_down() {
    let on = |name: &str| format!("{LINTS}[dependencies]\n{name}.workspace = true\n");
    check_manifests(LINTS, &on("low"), &[]);
    check_manifests(&on("high"), LINTS, &["low/Cargo.toml:0"]);
    check_manifests(LINTS, &on("tokio"), &["high/Cargo.toml:0"]);
    let on_unix = format!("{LINTS}[target.'cfg(unix)'.dependencies]\nhigh.workspace = true\n");
    check_manifests(&on_unix, LINTS, &["low/Cargo.toml:0"]);
    let for_tests = format!("{LINTS}[dev-dependencies]\nhigh.workspace = true\n");
    check_manifests(&for_tests, LINTS, &[]);
}

#[test]
fn a_dependency_must_be_foreseen() {
    let rules = CRATES.replace("uses = [\"low\"]\n", "");
    let high = format!("[package]\nname = \"high\"\n{LINTS}[dependencies]\nlow.workspace = true\n");
    let low = format!("[package]\nname = \"low\"\n{LINTS}");
    let files = [
        WORKSPACE,
        ("high/Cargo.toml", high.as_str()),
        ("low/Cargo.toml", low.as_str()),
    ];
    assert_eq!(findings(&rules, &files), ["high/Cargo.toml:0"]);
}

#[test]
fn lints_are_the_workspaces_or_named() {
    check_manifests("", LINTS, &["low/Cargo.toml:0"]);
    let own = "[lints.rust]\nunsafe_code = \"deny\"\nmissing_docs = \"warn\"\n";
    let low = format!("[package]\nname = \"low\"\n{own}");
    let rules =
        "[[crate]]\nname = \"low\"\npath = \"low\"\nfloor = 0\nown_lints = \"calls the system\"\n";
    assert_eq!(
        findings(rules, &[WORKSPACE, ("low/Cargo.toml", &low)]),
        NONE
    );
    let weaker = low.replace("missing_docs = \"warn\"\n", "");
    assert_eq!(
        findings(rules, &[WORKSPACE, ("low/Cargo.toml", &weaker)]),
        ["low/Cargo.toml:0"]
    );
    let inherits = format!("[package]\nname = \"low\"\n{LINTS}");
    assert_eq!(
        findings(rules, &[WORKSPACE, ("low/Cargo.toml", &inherits)]),
        ["low/Cargo.toml:0"]
    );
}

#[test]
fn every_crate_has_a_floor_and_every_floor_a_crate() {
    let stray = (
        "stray/Cargo.toml",
        "[package]\nname = \"stray\"\n[lints]\nworkspace = true\n",
    );
    assert_eq!(findings("", &[WORKSPACE, stray]), ["stray/Cargo.toml:0"]);
    let rules = "[[crate]]\nname = \"gone\"\npath = \"gone\"\nfloor = 0\n";
    assert_eq!(findings(rules, &[WORKSPACE]), ["xtask/tidy.toml:0"]);
}

/// The rules of this repository can be read, and each word is found in a sentence.
#[test]
fn the_real_words_are_found() {
    let text = include_str!("../../tidy.toml");
    let rules: Rules = basic_toml::from_str(text).unwrap();
    assert!(rules.word.len() > 10);
    for word in &rules.word {
        let rules = Rules {
            word: vec![super::rules::Word {
                text: word.text.clone(),
                reason: String::new(),
                ..*word
            }],
            call: Vec::new(),
            allow: Vec::new(),
            length: basic_toml::from_str("file_max = 9\nfunction_max = 9\n").unwrap(),
            crates: Vec::new(),
        };
        let file = File {
            path: "a.rs".into(),
            text: format!("//! One. Here: {}, so.\n", word.text),
        };
        assert_eq!(check(&rules, &[file]).len(), 1, "{}", word.text);
    }
}
