//! A request's body: JSON, bounded in size and in the time it may take to arrive, and all bodies together in what they
//! take of memory.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::HeaderMap,
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::header;
use mcp_gateway_api::failure::{Failure, FailureKind};

use crate::{config::ActivatorConfig, edge::headers, gateway::Gateway, metrics};

mod budget;
#[cfg(test)]
mod tests;

pub(crate) use self::budget::{Budget, Lent};
use self::budget::{FREE, Share};

/// How long a body that is refused for its size is still taken from the wire.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it, in units of what is allowed.
const LINGER_LIMITS: usize = 4;

/// Reads a body.
///
/// # Errors
/// `MediaType` when it is not JSON, `TooLarge` over the limit, `BadRequest` when it breaks off or takes too long,
/// `Overloaded` when all bodies together take too much.
pub(crate) async fn read(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, Failure> {
    read_within(&gateway.bodies, &gateway.config, headers, body).await
}

async fn read_within(
    budget: &Budget,
    config: &ActivatorConfig,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, Failure> {
    if !headers::is_json(headers) {
        return Err(Failure::new(
            FailureKind::MediaType,
            "A message must be sent with Content-Type: application/json.",
        ));
    }
    let stated = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok());
    if stated
        .and_then(|text| text.parse().ok())
        .is_some_and(|n: u64| n > config.max_body as u64)
    {
        // A client that asked whether to send it has not begun to.
        if !headers.contains_key(header::EXPECT) {
            let_go(&mut body.into_data_stream(), config.max_body).await;
        }
        return Err(too_large(config.max_body));
    }
    tokio::time::timeout(config.body_timeout, collect(body, config.max_body, budget))
        .await
        .unwrap_or_else(|_elapsed| {
            Err(Failure::new(
                FailureKind::BadRequest,
                "The body took too long to arrive.",
            ))
        })
}

async fn collect(body: Body, most: usize, budget: &Budget) -> Result<Bytes, Failure> {
    let mut share = Share::of(budget);
    let mut chunks = body.into_data_stream();
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Failure::new(FailureKind::BadRequest, "The body broke off.").because(error.to_string())
        })?;
        let so_far = first.as_ref().map_or(0, Bytes::len).max(whole.len());
        if so_far + chunk.len() > most {
            let_go(&mut chunks, most).await;
            return Err(too_large(most));
        }
        if so_far + chunk.len() > FREE && !share.grow(so_far + chunk.len()) {
            // Not kept while the rest is taken off the wire.
            drop((first, whole, share));
            metrics::body_refused();
            let_go(&mut chunks, most).await;
            return Err(overloaded());
        }
        // Nearly every body is one chunk, which then needs no copy.
        match first.take() {
            None if whole.is_empty() => first = Some(chunk),
            None => whole.extend_from_slice(&chunk),
            Some(begin) => {
                whole.extend_from_slice(&begin);
                whole.extend_from_slice(&chunk);
            }
        }
    }
    Ok(share.keep(first.unwrap_or_else(|| whole.freeze())))
}

/// Takes the rest off the wire and forgets it: a connection closed under a client that still writes is reset, and the
/// client never reads why.
async fn let_go(chunks: &mut BodyDataStream, most: usize) {
    let mut left = most.saturating_mul(LINGER_LIMITS);
    let drain = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // Whether it came to its end or not, the answer is the same.
    let _over = tokio::time::timeout(LINGER, drain).await;
}

fn too_large(most: usize) -> Failure {
    Failure::new(
        FailureKind::TooLarge,
        format!("The body is over the limit of {most} bytes."),
    )
}

fn overloaded() -> Failure {
    Failure::new(
        FailureKind::Overloaded,
        "Try again shortly: the gateway holds too many large requests.",
    )
    .retry_after(Duration::from_secs(1))
}
