//! `users/`: what a user needs beside the API itself.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};
use shared::{ids::OrganizationSlug, topics::ROOT};

use super::{
    App,
    auth::Reader,
    body::Fields,
    error::{Answer, ApiError},
};
use crate::tokens::{Audience, Bearer, Kind};

/// A dashboard asks again before its hour is over.
const LIFETIME: Duration = Duration::from_secs(3600);

/// POST `{"organization"?}`: a token with which a dashboard may listen to the organization's
/// topics over MQTT, and may do nothing else. It ends when the one it was asked for with does.
pub async fn mqtt_token(
    State(app): State<App>,
    Reader(operator): Reader,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<Value>)> {
    let asked = fields.optional("organization", slug);
    fields.finish()?;
    let organization = match asked {
        None if operator.user.superuser => the_only(&app).await?,
        asked => operator.organization(asked)?,
    };
    if app.store.organization(organization.clone()).await?.is_none() {
        return Err(ApiError::not_found());
    }
    let bearer = Bearer {
        subject: operator.user.user.0,
        organization: organization.clone(),
        kind: Kind::User,
        epoch: operator.user.epoch,
    };
    let now = app.store.clock().now();
    let left =
        operator.user.expires.map(|expires| Duration::from_millis(expires.saturating_sub(now)));
    let lifetime = left.map_or(LIFETIME, |left| left.min(LIFETIME));
    app.store.record_audit(operator.entry.clone()).await?;
    let token = app.tokens.issue(Audience::Mqtt, &bearer, lifetime);
    let token = token.map_err(|error| ApiError::internal(&error))?;
    let answer = json!({
        "token": token,
        "expires_in": lifetime.as_secs(),
        "organization": organization,
        "username": operator.user.user,
        "port": app.mqtt_port,
        "topics": [
            format!("{ROOT}/{organization}/+/+/operation"),
            format!("{ROOT}/{organization}/batches/+"),
        ],
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

fn slug(value: Value) -> Result<OrganizationSlug, String> {
    let slug = value.as_str().and_then(|text| text.parse().ok());
    slug.ok_or_else(|| "Enter an organization's slug.".into())
}

async fn the_only(app: &App) -> Answer<OrganizationSlug> {
    let mut all = app.store.organizations().await?;
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only.slug),
        _ => Err(ApiError::field("organization", "Name one of several organizations.")),
    }
}
