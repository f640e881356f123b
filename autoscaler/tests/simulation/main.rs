//! The whole control loop in virtual time: the real core among modelled activators, clients and a modelled runtime, all
//! of which misbehave as the world does. Everything follows from one seed.
//!
//! Two forms: one machine, and a cluster, where leaders crash and are replaced, activators are cut off, restart and
//! vanish with their pods, and what a dead leader ordered and said still arrives.
//!
//! What is checked all the time: at most one instance of a slot in service; nothing is ended, and nothing leased, that
//! would lose an exchange; every claim has exactly one answer, in time; one permit to revive a session at a time; an
//! ended session stays ended; a session key is handed out once; the core's parts agree. And when the world has become
//! quiet: nothing runs, nothing is remembered.
//!
//! `MCP_GATEWAY_SIM_SEED=7 MCP_GATEWAY_SIM_STEPS=1000000 cargo test -p mcp-gateway-autoscaler --release --test simulation -- --nocapture`

mod activator;
mod checks;
mod clients;
mod runtime;
mod world;

use std::time::Instant as WallClock;

use world::{Form, World};

const SEEDS: u64 = 10;
const STEPS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "the speed of the simulation is measured in real time"
)]
fn wall_clock() -> WallClock {
    WallClock::now()
}

#[test]
fn nothing_is_lost_doubled_or_left_behind_whatever_happens() {
    let steps = number("MCP_GATEWAY_SIM_STEPS").unwrap_or(STEPS);
    let seeds = match number("MCP_GATEWAY_SIM_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=SEEDS,
    };
    let began = wall_clock();
    let mut total = 0;
    let mut sum = checks::Counts::default();
    let worlds = seeds.clone().flat_map(|seed| {
        let forms = [Form::OneMachine, Form::Cluster];
        forms.map(|form| (seed, form))
    });
    for (seed, form) in worlds {
        println!(
            "seed {seed}, {form:?}: reproduce with MCP_GATEWAY_SIM_SEED={seed} MCP_GATEWAY_SIM_STEPS={steps}"
        );
        let mut world = World::new(seed, form);
        world.run(steps);
        world.settle();
        total += world.steps;
        sum.add(&world.checks.counts);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{total} steps of the core over seeds {seeds:?} in {seconds:.1} s: {:.0} steps/s\n{sum:#?}",
        total as f64 / seconds
    );
    // One seed alone may miss what is rare.
    if number("MCP_GATEWAY_SIM_SEED").is_none() {
        sum.assert_everything_happened();
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed, form| {
        let mut world = World::new(seed, form);
        world.trace();
        world.run(3_000);
        world.settle();
        (world.steps, world.fingerprint())
    };
    for form in [Form::OneMachine, Form::Cluster] {
        assert_eq!(run(42, form), run(42, form));
        assert_ne!(run(42, form).1, run(43, form).1);
    }
}
