//! What `examples/` and the README show must be what this crate reads.

use std::path::{Path, PathBuf};

use mcp_gateway_control::{
    Place,
    register::{Outcome, Register},
    source::{read, read_bytes},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_folder_of_examples_is_served_whole() {
    let Outcome { catalog, problems } =
        Register::default().update(read(&root().join("examples"), Place::Process));
    assert_eq!(problems, [], "in one folder, names must differ too");
    for name in ["everything", "everything-http", "files", "time", "memory"] {
        let name = name.parse().expect("a DNS label");
        assert!(catalog.get(&name).is_some(), "{name} is not served");
    }
}

#[test]
fn the_documents_of_the_readme_are_in_order() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README is there");
    let mut documents = 0;
    for block in readme.split("```").skip(1).step_by(2) {
        let Some(text) = block.strip_prefix("yaml\n") else {
            continue;
        };
        let reading = read_bytes(Path::new("README.yaml"), text.as_bytes(), Place::Process);
        let Outcome { problems, .. } = Register::default().update(vec![reading]);
        assert_eq!(problems, [], "{text}");
        documents += 1;
    }
    assert!(documents > 0, "the README shows a document");
}
