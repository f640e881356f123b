use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::*;
use crate::kubernetes::fake::{self, Answer, status};

/// When what was asked within a minute of an API server that refuses everything but one try, which is a list.
async fn asked_of(works: usize) -> Vec<Instant> {
    let list = json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [],
    });
    let tries = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&tries);
    let (client, _asked) = fake::api(move |_, _| {
        let mut times = times.lock();
        times.push(Instant::now());
        if times.len() == works {
            return Answer::Says(200, list.clone());
        }
        status(429, "TooManyRequests", "too many requests")
    });
    let (world, _events) = fake::world(client.clone()).await;
    let watching = run(world, Api::namespaced(client, "mcp"));
    let minute = timeout(Duration::from_secs(60), watching).await;
    minute.expect_err("it watches for ever");
    tries.lock().clone()
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_refused_is_asked_for_ever_more_slowly() {
    let tries = asked_of(0).await.len();
    assert!((30..40).contains(&tries), "{tries}");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_works_makes_the_next_tries_fast_again() {
    let times = asked_of(12).await;
    assert_eq!(times[11] - times[10], AGAIN_AT_MOST);
    // The watch that follows it is refused.
    assert!(times[13] - times[12] < AGAIN * 2);
    assert!(times.len() < 50, "{}", times.len());
}
