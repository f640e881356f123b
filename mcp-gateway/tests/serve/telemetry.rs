//! Telemetry goes where the standard variables say, and nowhere without them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread,
};

use rustix::process::Signal;

use crate::support::{Home, demo};

/// The trace of the client's `traceparent`.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A collector: each request's path and body.
fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, heard) = mpsc::channel();
    // Ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let tell = tell.clone();
            thread::spawn(move || hear(stream.unwrap(), &tell));
        }
    });
    (url, heard)
}

fn hear(stream: TcpStream, tell: &mpsc::Sender<(String, Vec<u8>)>) -> Option<()> {
    let mut answers = stream.try_clone().unwrap();
    let mut lines = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse().unwrap())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        lines.read_exact(&mut body).ok()?;
        let path = head.split(' ').nth(1)?.to_owned();
        tell.send((path, body)).ok()?;
        answers
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
    }
}

fn holds(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

#[test]
fn traces_and_metrics_are_sent_when_the_standard_variables_ask() {
    let (url, heard) = collector();
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let mut gateway = home.serve_in(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)], &[]);
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let reply = gateway.initialize("d", &[("traceparent", &parent)]);
    let session = reply.session().to_owned();
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());

    let all: Vec<(String, Vec<u8>)> = heard.try_iter().collect();
    let traces: Vec<_> = all
        .iter()
        .filter(|(path, _)| path == "/v1/traces")
        .collect();
    let id: Vec<u8> = (0..16)
        .map(|at| u8::from_str_radix(&TRACE[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    assert!(
        traces.iter().any(|(_, body)| holds(body, &id)),
        "the client's trace goes on"
    );
    assert!(all.iter().any(|(path, _)| path == "/v1/metrics"));
    for (path, body) in &all {
        assert!(!holds(body, session.as_bytes()), "a session id in {path}");
    }
}

#[test]
fn nothing_is_sent_when_the_sdk_is_disabled() {
    let (url, heard) = collector();
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let off = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_SDK_DISABLED", "true"),
    ];
    let mut gateway = home.serve_in(&off, &[]);
    assert_eq!(gateway.initialize("d", &[]).status, 200);
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    assert_eq!(heard.try_iter().count(), 0);
}
