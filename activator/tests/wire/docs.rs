//! `docs/wire.md` names tests that exist.

use std::{collections::HashSet, fs, path::Path};

fn sources(folder: &Path, found: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let table = fs::read_to_string(root.join("docs/wire.md")).unwrap();
    let mut known = HashSet::new();
    for folder in [
        "activator/src",
        "activator/tests",
        "mcp-gateway/tests",
        "runtime/tests",
    ] {
        sources(&root.join(folder), &mut known);
    }
    // `file::test`, or `…::test`, perhaps cut with an ellipsis.
    let named = table.split('`').filter_map(|code| code.rsplit_once("::"));
    let mut count = 0;
    for (file, test) in named.filter(|(file, _)| file.contains('/') || *file == "…") {
        count += 1;
        let there = match test.strip_suffix('…') {
            Some(beginning) => known.iter().any(|name| name.starts_with(beginning)),
            None => known.contains(test),
        };
        assert!(there || test == "tests", "{file}::{test}");
    }
    assert!(count > 60, "the table is read: {count}");
}
