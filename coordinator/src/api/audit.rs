//! Every change that an operator makes, in the audit log: who, what, where, when.
//!
//! The entry commits with its change: handlers change things through [`Operator::store`], which
//! knows both.
//!
//! [`Operator::store`]: super::Operator::store

use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::{ConnectInfo, OriginalUri, Request, State};
use axum::http::{Method, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use serde::Serialize;
use serde_json::Value;
use shared::ids::UserId;
use utoipa::ToSchema;

use super::error::{Answer, ApiError};
use super::page::{ListQuery, Listing, Page};
use super::time::Time;
use super::{App, Operator};
use crate::store::audit::{AuditList, Entry, Recorded};
use crate::store::listing::Scope;
use crate::store::user::Principal;

/// What the log is ordered by: entries are numbered as they are made.
pub const COLUMNS: &[&str] = &["id"];

/// Whether a request of this method changes nothing.
pub fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// What the log says of a request by this user.
pub fn entry(parts: &Parts, user: &Principal) -> Entry {
    let path = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    Entry {
        actor: format!("user:{}", user.name),
        actor_id: Some(user.user),
        action: parts.method.to_string(),
        subject: path.path().to_owned(),
        peer: peer(parts).map(|address| address.to_string()),
        ..Entry::default()
    }
}

/// Who is at the other end of the connection: a proxy, where there is one.
pub fn peer(parts: &Parts) -> Option<IpAddr> {
    let ConnectInfo(address) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(address.ip().to_canonical())
}

#[derive(Debug, Serialize, ToSchema)]
pub struct EntryView {
    id: u64,
    at: Time,
    /// `user:<name>`, `device:<id>`, `command line`, or `system`: the coordinator by itself.
    actor: String,
    /// Of a user, whose name may be another one's later.
    #[schema(value_type = Option<Uuid>)]
    actor_id: Option<UserId>,
    /// A slug; null: of no organization's.
    organization: Option<String>,
    action: String,
    subject: String,
    detail: Option<String>,
    /// The address that it came from.
    peer: Option<String>,
    /// What it was; null for what is new or not told.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
}

fn view(recorded: Recorded) -> EntryView {
    let Recorded { id, at, entry, before, after } = recorded;
    EntryView {
        id,
        at: Time(at),
        actor: entry.actor,
        actor_id: entry.actor_id,
        organization: entry.organization,
        action: entry.action,
        subject: entry.subject,
        detail: entry.detail,
        peer: entry.peer,
        before,
        after,
    }
}

/// Who changed what, the newest first: an administrator's organizations, a superuser's everything.
#[utoipa::path(get, path = "/audit/", tag = "audit",
    params(
        Page,
        ("actor" = Option<String>, Query, description = "As in the entries: `user:<name>`, say."),
        ("action" = Option<String>, Query, description = "`POST`, `DELETE`, `enrol`, ..."),
        ("subject" = Option<String>, Query, description = "A path of the API; or the id of what the entries are about: a device's, say, or a batch's."),
        ("since" = Option<Time>, Query, description = "Not before."),
        ("until" = Option<Time>, Query, description = "Before."),
    ),
    responses((status = 200, body = Listing<EntryView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
) -> Answer<Json<Listing<EntryView>>> {
    let of = match operator.looks_after()? {
        Scope::Everything => None,
        Scope::Organizations(own) => {
            let memberships = operator.user.memberships.iter();
            let own = memberships.filter(|of| own.contains(&of.organization));
            Some(own.map(|of| of.slug.clone()).collect())
        }
    };
    let wanted = AuditList {
        of,
        organization: query.organization()?,
        actor: query.text("actor").map(str::to_owned),
        action: query.text("action").map(str::to_owned),
        subject: query.text("subject").map(str::to_owned),
        since: query.time("since")?,
        until: query.time("until")?,
        order: query.order(COLUMNS, AuditList::NEWEST_FIRST),
        rows: query.rows()?,
    };
    Ok(Json(query.listing(app.store.audit_entries(wanted).await?, view)?))
}

/// Finishes what was begun: a client that goes before the answer does not leave a change half made,
/// its files still there.
pub async fn finish(request: Request, next: Next) -> Response {
    if reads(request.method()) {
        return next.run(request).await;
    }
    let done = tokio::spawn(next.run(request));
    done.await.unwrap_or_else(|error| ApiError::internal(&error).into_response())
}
