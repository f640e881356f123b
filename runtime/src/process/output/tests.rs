use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

fn split(chunks: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut lines = Lines::default();
    let mut out: Vec<Vec<u8>> = Vec::new();
    for chunk in chunks {
        lines.feed(chunk, |line| out.push(line.to_vec()));
    }
    lines.end(|line| out.push(line.to_vec()));
    out
}

#[test]
fn lines_are_found_across_chunks_and_without_a_last_newline() {
    let chunks = [b"a\nb".to_vec(), b"c\r\n\nd".to_vec()];
    let expected: [&[u8]; 4] = [b"a", b"bc", b"", b"d"];
    assert_eq!(split(&chunks), expected);
}

#[test]
fn an_endless_line_is_cut() {
    let lines = split(&[vec![b'x'; MAX_LINE * 2 + 5]]);
    let lengths: Vec<usize> = lines.iter().map(Vec::len).collect();
    assert_eq!(lengths, [MAX_LINE, MAX_LINE, 5]);
}

#[test]
fn the_tail_keeps_the_last_lines_and_cuts_long_ones() {
    let tail = Tail::default();
    for n in 0..100 {
        tail.push(format!("line {n}").as_bytes());
    }
    let lines = tail.lines();
    assert_eq!(lines.len(), TAIL_LINES);
    assert_eq!(lines.last().unwrap(), "line 99");
    tail.push(&vec![b'x'; 10_000]);
    assert_eq!(tail.lines().last().unwrap().chars().count(), TAIL_WIDTH + 1);
}

#[test]
fn colours_and_control_characters_do_not_reach_a_terminal() {
    assert_eq!(
        printable(b"\x1b[1;31mred\x1b[0m \x07bell\x1b]"),
        "red bell]"
    );
}

#[test]
fn a_log_is_private_and_never_larger_than_its_cap() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let log = LogFile::create(path.clone()).unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..30 {
        log.write(&block);
    }
    let old = path.with_extension("log.1").metadata().unwrap();
    let new = path.metadata().unwrap();
    assert!(old.len() + new.len() <= MAX_FILE);
    assert!(old.len() > 0);
    assert_eq!(new.permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_oldest_logs_of_a_backend_go_first_and_living_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..MAX_BACKEND_LOGS + 10 {
        let file = File::create(dir.path().join(format!("{n:04}.log"))).unwrap();
        let age = Duration::from_secs(1000 - n as u64);
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(2000) - age)
            .unwrap();
    }
    prune(dir.path(), |path| path.ends_with("0003.log")).unwrap();
    let left = |n: usize| dir.path().join(format!("{n:04}.log")).exists();
    assert!(!left(0) && !left(9));
    assert!(left(3) && left(10) && left(MAX_BACKEND_LOGS + 9));
}

#[tokio::test]
async fn a_captured_stream_is_in_the_tail_and_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(LogFile::create(dir.path().join("a.log")).unwrap());
    let tail = Arc::new(Tail::default());
    let sink = Sink {
        tails: vec![Arc::clone(&tail)],
        log: Log::File(Arc::clone(&log)),
    };
    capture(&b"one\ntwo"[..], sink).await;
    assert_eq!(tail.lines(), ["one", "two"]);
    assert_eq!(fs::read_to_string(log.path()).unwrap(), "one\ntwo\n");
}

proptest! {
    #[test]
    fn no_byte_is_lost_between_chunks(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20)) {
        let mut whole: Vec<u8> = chunks.concat();
        whole.retain(|b| *b != b'\r');
        let stripped: Vec<Vec<u8>> = chunks.iter().map(|c| c.iter().copied().filter(|b| *b != b'\r').collect()).collect();
        let mut joined = split(&stripped).join(&b'\n');
        if whole.last() == Some(&b'\n') {
            joined.push(b'\n');
        }
        prop_assert_eq!(joined, whole);
    }

    #[test]
    fn printable_text_has_no_control_character(line in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let text = printable(&line);
        prop_assert!(text.chars().all(|c| c == '\t' || !c.is_control()));
        prop_assert!(text.chars().count() <= TAIL_WIDTH + 1);
    }
}
