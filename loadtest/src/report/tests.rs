//! Figures of sections whose answers are known.

use super::*;

fn rounds(name: &str, p50: f64, rate: u64) -> Rounds {
    let round = |i: u64| Round {
        exchanges: rate + i,
        errors: 0,
        seconds: 1.0,
        // Every target is slower in the same rounds, as on a busy machine.
        p50_micros: p50 + 50.0 * (i % 3) as f64,
        p99_micros: 2.0 * p50,
        cpu_seconds: Some((rate + i) as f64 * 20e-6),
    };
    Rounds {
        name: name.to_owned(),
        rounds: (0..12).map(round).collect(),
    }
}

fn warm() -> Section {
    Section::Warm(Warm {
        title: "echo <&>".to_owned(),
        connections: 1,
        targets: vec![
            rounds("direct", 100.0, 9_000),
            rounds("gateway", 150.0, 6_000),
            rounds("nginx", 200.0, 5_000),
        ],
    })
}

#[test]
fn what_slows_all_rounds_alike_does_not_move_what_is_added() {
    let report = report(vec![warm()], Vec::new());
    let [Figures::Warm(figures)] = report.figures.as_slice() else {
        panic!("one warm section")
    };
    let gateway = &figures.rows[1];
    assert_eq!(
        gateway.added_p50,
        Some(Interval {
            value: 50.0,
            low: 50.0,
            high: 50.0
        })
    );
    assert!((gateway.cpu.unwrap().value - 20.0).abs() < 1e-9);
    assert_eq!(figures.rows[0].added_p50, None);
}

#[test]
fn the_second_target_is_compared_with_the_third() {
    let report = report(vec![warm()], Vec::new());
    let [Figures::Warm(figures)] = report.figures.as_slice() else {
        panic!("one warm section")
    };
    let [comparison] = figures.comparisons.as_slice() else {
        panic!("one comparison")
    };
    assert_eq!(comparison.reference, "nginx");
    assert!((comparison.added_p50.value - 0.5).abs() < 1e-9);
    assert!((comparison.rate.value - 1.2).abs() < 0.01);
}

#[test]
fn cold_pairs_give_the_median_of_their_differences() {
    let pairs = (0..9)
        .map(|i| ColdPair {
            by_hand_millis: 10.0 + f64::from(i),
            gateway_millis: 12.0 + f64::from(i),
        })
        .collect();
    let section = Section::Cold(Cold {
        title: "demo".to_owned(),
        pairs,
    });
    let report = report(vec![section], Vec::new());
    let [Figures::Cold(figures)] = report.figures.as_slice() else {
        panic!("one cold section")
    };
    assert_eq!(
        figures.added_p50,
        Interval {
            value: 2.0,
            low: 2.0,
            high: 2.0
        }
    );
}

#[test]
fn a_report_reads_as_tables_and_draws_as_well_formed_text() {
    let memory = Section::Memory(AtRest {
        title: "at rest".to_owned(),
        rows: vec![(
            "gateway".to_owned(),
            Memory {
                resident: 10_240,
                anonymous: 2_048,
            },
        )],
    });
    let report = report(vec![warm(), memory], vec!["one note".to_owned()]);
    let text = markdown(&report);
    assert!(text.contains("- one note"), "{text}");
    assert!(
        text.contains("| gateway / nginx | 0.50 [0.50, 0.50]"),
        "{text}"
    );
    assert!(text.contains("| gateway | 10.0 | 2.0 |"), "{text}");
    let drawing = svg(&report);
    assert!(drawing.contains("echo &lt;&amp;&gt;"), "{drawing}");
    assert_eq!(
        drawing.matches("<text").count(),
        drawing.matches("</text>").count()
    );
    assert!(serde_json::to_string(&report).is_ok());
}

#[test]
fn an_empty_section_gives_a_report_and_no_panic() {
    let sections = vec![
        Section::Warm(Warm {
            title: String::new(),
            connections: 0,
            targets: Vec::new(),
        }),
        Section::Warm(Warm {
            title: String::new(),
            connections: 1,
            targets: vec![Rounds {
                name: "a".to_owned(),
                rounds: Vec::new(),
            }],
        }),
        Section::Cold(Cold {
            title: String::new(),
            pairs: Vec::new(),
        }),
    ];
    let report = report(sections, Vec::new());
    assert!(!markdown(&report).is_empty());
    assert!(svg(&report).ends_with("</svg>\n"));
}

#[test]
fn a_section_survives_its_file() {
    let rounds = vec![Round {
        exchanges: 7,
        cpu_seconds: Some(0.25),
        ..Round::default()
    }];
    let section = Section::Warm(Warm {
        title: "echo".to_owned(),
        connections: 64,
        targets: vec![Rounds {
            name: "direct".to_owned(),
            rounds,
        }],
    });
    let text = serde_json::to_string(&section).unwrap();
    assert_eq!(serde_json::from_str::<Section>(&text).unwrap(), section);
}
