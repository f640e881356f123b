use axum::body::to_bytes;

use super::*;

const TABLE: &str = include_str!("../../../docs/errors.md");

#[test]
fn the_table_for_people_is_this_file() {
    let rows: Vec<&str> = TABLE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert_eq!(rows.len(), KINDS.len(), "one row for each kind");
    for (row, kind) in rows.iter().zip(KINDS) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[1], format!("`{}`", label(kind)));
        assert_eq!(cells[2], status(kind).as_u16().to_string(), "{kind:?}");
        assert_eq!(cells[3], code(kind).to_string(), "{kind:?}");
    }
}

#[test]
fn codes_are_distinct_and_outside_what_is_reserved() {
    let mut codes: Vec<i32> = KINDS.iter().map(|kind| code(*kind)).collect();
    assert!(codes.iter().all(|code| !(-32_768..=-32_000).contains(code)));
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), KINDS.len());
}

#[tokio::test]
async fn an_error_carries_the_id_as_it_came_or_none() {
    let failure = || {
        Failure::new(FailureKind::HoldTimeout, "Wait.")
            .because("hidden")
            .retry_after(std::time::Duration::from_millis(2_500))
    };
    let id = RequestId::parse(r#""\u0061""#).unwrap();
    let response = Refusal::from(failure()).of(Some(&id)).into_response();
    assert_eq!(response.headers()["retry-after"], "2");
    let body = to_bytes(response.into_body(), 10_000).await.unwrap();
    let text = std::str::from_utf8(&body).unwrap();
    assert!(
        text.starts_with(r#"{"jsonrpc":"2.0","id":"\u0061","error":{"#),
        "{text}"
    );
    assert!(text.contains("2500") && !text.contains("hidden"));
    let body = to_bytes(Refusal::from(failure()).into_response().into_body(), 10_000);
    let parsed: serde_json::Value = serde_json::from_slice(&body.await.unwrap()).unwrap();
    assert!(parsed.get("id").is_none());
}
