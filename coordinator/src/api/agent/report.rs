//! The report back, for agents that have no MQTT line just now.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use shared::ack::Acks;

use super::AgentApi;
use super::auth::Caller;
use super::error::Error;
use crate::ingest::{read_events, read_inventory, read_tick};

type Body = Result<Bytes, BytesRejection>;

pub(super) async fn events(
    State(api): State<AgentApi>,
    Caller(device): Caller,
    body: Body,
) -> Result<Json<Acks>, Error> {
    let reported = read_events(device, &body?)?;
    Ok(Json(Acks::new(api.store.record_events(reported).await?)))
}

pub(super) async fn tick(
    State(api): State<AgentApi>,
    Caller(device): Caller,
    body: Body,
) -> Result<StatusCode, Error> {
    api.signs.tick(device, read_tick(&body?)?);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn inventory(
    State(api): State<AgentApi>,
    Caller(device): Caller,
    body: Body,
) -> Result<StatusCode, Error> {
    api.store.set_inventory(device, read_inventory(&body?)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
