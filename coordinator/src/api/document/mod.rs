//! The API's description for machines (OpenAPI 3.1) and its page for people.
//!
//! Each handler describes itself beside its code (`#[utoipa::path]`), and the router takes both at
//! once, so that route and document cannot drift. The errors that follow from what a request is made of
//! are added here; one that only some handlers have is named by them, `(status = 409)`, and looks as it
//! does everywhere. `docs/openapi.json` is the document as of this version.

pub mod shapes;

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use bytes::Bytes;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    AllOf, ContentBuilder, HeaderBuilder, InfoBuilder, Object, ObjectBuilder, OpenApi, Ref, RefOr,
    ResponseBuilder, Schema, schema::Type,
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{auth, repeat};
use crate::api;
use shapes::{Conflict, Mistakes, Problem};

/// Where the document lies.
pub const DOCUMENT: &str = "/api/v1/openapi.json";
/// Where its page is.
pub const PAGE: &str = "/api/v1/docs";

const ABOUT: &str = "Upgrades the firmware of 5G and LTE modems in fleets of OpenWrt routers.

Authenticate with `Authorization: Bearer <token>`; `users/token/` makes one from a password. Lists come
in pages; times are RFC 3339 in UTC; ids are UUIDs. What belongs to an organization that is not yours is
not found. More than 1000 requests of a user in a minute, and more than 32 streams of events and unread
batches, are answered with 429 and Retry-After.";

/// Completes what the handlers say of themselves.
pub fn complete(mut document: OpenApi) -> OpenApi {
    document.info = InfoBuilder::new()
        .title("modem-upgrader")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(utoipa::openapi::License::new("MIT OR Apache-2.0")))
        .build();
    let components = document.components.get_or_insert_default();
    for (name, response) in responses() {
        components.responses.insert(name.into(), response);
    }
    for (name, schema) in [
        (Problem::name(), Problem::schema()),
        (Conflict::name(), Conflict::schema()),
        (Mistakes::name(), Mistakes::schema()),
    ] {
        components.schemas.insert(name.into_owned(), schema);
    }
    join(&mut components.schemas);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            describe(path, method, operation);
        }
    }
    document
}

/// One object where several are to hold at once: it says the same, plainer for people and for
/// programs that make requests of it.
fn join(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let known = schemas.clone();
    for schema in schemas.values_mut() {
        if let RefOr::T(Schema::AllOf(all)) = schema
            && let Some(whole) = joined(all, &known)
        {
            *schema = RefOr::T(whole.into());
        }
    }
}

fn joined(all: &AllOf, known: &BTreeMap<String, RefOr<Schema>>) -> Option<Object> {
    let mut whole = Object::new();
    whole.description.clone_from(&all.description);
    for item in &all.items {
        let item = match item {
            RefOr::Ref(item) => known.get(item.ref_location.rsplit('/').next()?)?,
            RefOr::T(_) => item,
        };
        let part = match item {
            RefOr::T(Schema::Object(part)) => part.clone(),
            RefOr::T(Schema::AllOf(all)) => joined(all, known)?,
            RefOr::T(_) | RefOr::Ref(_) => return None,
        };
        whole.description = whole.description.or(part.description);
        whole.properties.extend(part.properties);
        whole.required.extend(part.required);
    }
    Some(whole)
}

/// What each list is ordered by.
const ORDERED: [(&str, &[&str]); 17] = [
    ("/audit/", api::audit::COLUMNS),
    ("/batch-upgrade-operation/", api::batch::COLUMNS),
    ("/batch-upgrade-operation/{id}/left-out/", api::batch::LEFT_OUT_COLUMNS),
    ("/build/", api::build::COLUMNS),
    ("/build/{id}/image/", api::image::COLUMNS),
    ("/category/", api::category::COLUMNS),
    ("/device/", api::device::COLUMNS),
    ("/device-firmware/", api::firmware::COLUMNS),
    ("/device/{id}/upgrade-operation/", api::operation::COLUMNS),
    ("/enrolment-token/", api::enrolment_token::COLUMNS),
    ("/group/", api::group::COLUMNS),
    ("/location/", api::group::COLUMNS),
    ("/organization/", api::organization::COLUMNS),
    ("/organization/{id}/member/", api::member::COLUMNS),
    ("/token/", api::token::COLUMNS),
    ("/upgrade-operation/", api::operation::COLUMNS),
    ("/user/", api::account::COLUMNS),
];

const BEARER: &str = "token";

/// The operations of a path, with their methods.
pub fn operations(item: &mut PathItem) -> Vec<(&'static str, &mut Operation)> {
    [
        ("get", &mut item.get),
        ("put", &mut item.put),
        ("post", &mut item.post),
        ("patch", &mut item.patch),
        ("delete", &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
    .collect()
}

/// Adds the errors that a request of this kind may end with, and a name of its own.
fn describe(path: &str, method: &str, operation: &mut Operation) {
    operation.operation_id = Some(name(path, method));
    let open = operation.security.is_some();
    let api = path.starts_with(super::BASE);
    if api && !open {
        operation.security = Some(vec![SecurityRequirement::new(BEARER, [] as [&str; 0])]);
    }
    let short = path.strip_prefix(super::BASE).unwrap_or_default();
    let keyed = !["get", "delete"].contains(&method) && repeat::STARTS.contains(&short);
    if keyed {
        operation.parameters.get_or_insert_default().push(idempotency_key());
    }
    if let Some((_, columns)) = ORDERED.iter().find(|(of, _)| *of == short) {
        say_columns(operation, columns);
    }
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let with_parameters = !parameters.is_empty();
    let with_ids = parameters.iter().any(|of| of.parameter_in == ParameterIn::Path);
    let in_pages = parameters.iter().any(|of| of.name == "page");
    let with_body = operation.request_body.is_some();
    // A token for reading changes nothing, and that of a device's script sees little else than this.
    let any_token = method == "get" && auth::is_of_reports(&Method::GET, short);
    for (status, response, comes) in [
        ("400", "Mistakes", with_parameters || with_body),
        ("401", "Unauthorized", api && !open),
        ("403", "Forbidden", api && !open && !any_token),
        ("404", "NotFound", with_ids || in_pages),
        ("409", "Conflict", keyed),
        ("413", "TooLarge", with_body),
        ("415", "UnsupportedMediaType", with_body),
        ("422", "Unprocessable", keyed),
        ("429", "TooManyRequests", api),
        ("503", "Unavailable", api),
    ] {
        let responses = &mut operation.responses.responses;
        if comes || responses.get(status).is_some_and(only_named) {
            let known = Ref::from_response_name(response);
            responses.insert(status.to_owned(), RefOr::Ref(known));
        }
    }
}

/// Whether the handler says no more than the status.
fn only_named(response: &RefOr<utoipa::openapi::Response>) -> bool {
    matches!(response, RefOr::T(said) if said.content.is_empty())
}

/// Names the columns that `ordering` takes.
fn say_columns(operation: &mut Operation, columns: &[&str]) {
    let parameters = operation.parameters.iter_mut().flatten();
    for ordering in parameters.filter(|parameter| parameter.name == "ordering") {
        ordering.description = Some(format!(
            "One of {}; with `-` in front for the other direction.",
            columns.join(", ")
        ));
    }
}

/// `get_build_id_image`, say: a name that no other operation has.
fn name(path: &str, method: &str) -> String {
    let short = path.strip_prefix(super::BASE).unwrap_or(path);
    let words = short.split(['/', '{', '}', '-', '_']).filter(|word| !word.is_empty());
    [method].into_iter().chain(words).collect::<Vec<_>>().join("_")
}

fn responses() -> BTreeMap<&'static str, RefOr<utoipa::openapi::Response>> {
    let seconds = || HeaderBuilder::new().schema(integer()).description(Some("Seconds.")).build();
    let text = || HeaderBuilder::new().schema(ObjectBuilder::new().schema_type(Type::String));
    let one = |description: &str, shape: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(shape))).build();
        ResponseBuilder::new().description(description).content("application/json", content)
    };
    let detail = Problem::name();
    [
        ("Mistakes", one("What is wrong, by field or as a whole.", &Mistakes::name())),
        (
            "Unauthorized",
            one("No token, or one that is not good (any more).", &detail)
                .header("WWW-Authenticate", text().build()),
        ),
        ("Forbidden", one("Not this user's to do, or not this token's.", &detail)),
        ("NotFound", one("There is none, or it is another organization's.", &detail)),
        ("Conflict", one("Not as things stand.", &Conflict::name())),
        ("Unprocessable", one("The key was used for another request.", &Conflict::name())),
        ("TooLarge", one("The body is larger than it may be.", &detail)),
        ("UnsupportedMediaType", one("The body is of another type.", &detail)),
        (
            "TooManyRequests",
            one("More requests than a user may make: wait.", &detail)
                .header("Retry-After", seconds()),
        ),
        (
            "Unavailable",
            one("Not just now: try again soon.", &detail).header("Retry-After", seconds()),
        ),
    ]
    .into_iter()
    .map(|(name, response)| (name, RefOr::T(response.build())))
    .collect()
}

fn idempotency_key() -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some("Chosen by the client: the request is carried out once in a day."))
        .schema(Some(text.max_length(Some(128))))
        .build()
}

fn integer() -> Schema {
    ObjectBuilder::new().schema_type(Type::Integer).into()
}

/// The document and its page, which needs nothing from elsewhere.
pub fn router<S: Clone + Send + Sync + 'static>(document: &OpenApi) -> Router<S> {
    let json = Bytes::from(document.to_json().unwrap_or_default());
    let served = get(move || async move {
        let json = json.clone();
        ([(header::CONTENT_TYPE, "application/json")], json).into_response()
    });
    let config = Config::from(DOCUMENT).validator_url("none").try_it_out_enabled(false);
    let page = Router::<S>::from(SwaggerUi::new(PAGE).config(config));
    page.route(DOCUMENT, served)
}

/// Nothing here is to be shown in a frame, guessed at, or to load anything from elsewhere.
pub async fn guard(request: Request, next: Next) -> Response {
    let page = request.uri().path().starts_with(PAGE);
    let mut response = next.run(request).await;
    let policy = if page { PAGE_POLICY } else { POLICY };
    let headers = response.headers_mut();
    set(headers, header::CONTENT_SECURITY_POLICY, policy);
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, header::X_FRAME_OPTIONS, "DENY");
    set(headers, header::REFERRER_POLICY, "no-referrer");
    if !page && !headers.contains_key(header::CACHE_CONTROL) {
        set(headers, header::CACHE_CONTROL, "no-store");
    }
    response
}

const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                           img-src 'self' data:; font-src 'self'; connect-src 'self'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_operations_apart() {
        let path = format!("{}/build/{{id}}/image/{{image_id}}/", super::super::BASE);
        assert_eq!(name(&path, "get"), "get_build_id_image_image_id");
        assert_eq!(name("/healthz", "get"), "get_healthz");
    }
}
