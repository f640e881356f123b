//! The README's walk, done by its own commands: what a newcomer types must work as it says.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::support::{Gateway, Home, until};

const PROGRAMS: [&str; 3] = ["bash", "curl", "awk"];

/// The commands of one section, block by block.
fn commands(section: &str) -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(readme).unwrap();
    let rest = text.split_once(&format!("\n## {section}\n")).unwrap().1;
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split_once("```").unwrap().0.to_owned())
        .collect()
}

/// A shell in which one block follows the other, as in a terminal.
struct Shell {
    child: Child,
    typed: ChildStdin,
    shown: BufReader<ChildStdout>,
}

impl Shell {
    fn open() -> Self {
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]);
        command.env("NO_PROXY", "*");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (typed, shown) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shell = Self {
            child,
            typed,
            shown: BufReader::new(shown),
        };
        shell.run("set -uE -o pipefail; trap 'echo \"@failed: $BASH_COMMAND\"' ERR");
        shell
    }

    /// What a block shows.
    fn run(&mut self, block: &str) -> String {
        writeln!(self.typed, "{block}\nprintf '\\n@done\\n'").unwrap();
        let mut all = String::new();
        while !all.ends_with("\n@done\n") {
            let read = self.shown.read_line(&mut all).unwrap();
            assert!(read > 0, "the shell ended: {block}\n{all}");
        }
        assert!(!all.contains("@failed"), "{block}\n{all}");
        all
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn at(gateway: &Gateway<'_>, block: &str) -> String {
    block
        .replace("http://127.0.0.1:8080", &gateway.url("listen"))
        .replace("http://127.0.0.1:9090", &gateway.url("admin"))
}

#[test]
fn the_walk_in_the_readme_goes_as_it_says() {
    let missing = PROGRAMS.iter().find(|program| {
        let known = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        !known.is_ok_and(|found| found.status.success())
    });
    if let Some(program) = missing {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
        assert!(!ci, "{program} is missing, and in CI nothing is skipped");
        eprintln!("skipped: the README's walk needs {program}");
        return;
    }
    let blocks = commands("Try it");
    let [serve, before, open, call, watch, back] = &blocks[..] else {
        panic!("the walk has changed: {blocks:#?}");
    };
    assert!(serve.trim_end().ends_with("-- serve --demo"), "{serve}");
    let home = Home::new();
    let gateway = home.serve(&["--demo"]);
    let mut shell = Shell::open();
    let mut run = |block: &str| shell.run(&at(&gateway, block));

    assert!(run(before).contains("demo"));
    assert_eq!(gateway.status()["instances"], 0, "nothing runs yet");
    run(open);
    let id = run(r#"echo "a session id of ${#session} bytes""#);
    assert!(!id.contains("of 0 bytes"), "{id}");
    for count in 1..=3 {
        let shown = run(call);
        assert!(shown.contains(&format!("\"text\":\"{count}\"")), "{shown}");
    }
    assert_eq!(gateway.status()["instances"], 1);
    run(watch);
    until("it is idle, and gone", || {
        (gateway.status()["instances"] == 0).then_some(())
    });
    let shown = run(back);
    assert!(shown.contains("\"text\":\"1\""), "{shown}");
}
