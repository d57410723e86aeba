//! Lists: which page of them, filtered and ordered how, and the envelope they come in.

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, OriginalUri, Query},
    http::{HeaderMap, Uri, header, request::Parts},
};
use serde::Serialize;
use shared::ids::OrganizationSlug;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::body::shown;
use super::error::{ApiError, FieldErrors};
use crate::store::listing::{Found, Order, Rows};

const DEFAULT_SIZE: u32 = 10;
const LARGEST_SIZE: u32 = 100;
const PAGE: [&str; 2] = ["page", "page_size"];
/// Strange names that an answer repeats.
const NAMED: usize = 20;
/// Past this, OFFSET alone would keep a reader busy.
const LARGEST_PAGE: u32 = 1_000_000;

/// A request's query. Who has read what there is to read finishes it ([`ListQuery::rows`] does): what nobody
/// asked for is refused.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// As they came.
    parameters: Vec<(String, String)>,
    /// The names that were asked for, and whether several of one are taken.
    known: Vec<(&'static str, bool)>,
    /// From 1.
    page: u32,
    page_size: u32,
    uri: Uri,
    pub site: Site,
}

/// What every list takes.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// From 1.
    #[param(minimum = 1)]
    pub page: Option<u32>,
    /// Rows a page: 10 by default, 100 at most.
    #[param(minimum = 1)]
    pub page_size: Option<u32>,
}

/// What most lists take.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// From 1.
    #[param(minimum = 1)]
    pub page: Option<u32>,
    /// Rows a page: 10 by default, 100 at most.
    #[param(minimum = 1)]
    pub page_size: Option<u32>,
    /// A column, with `-` in front for the other direction.
    pub ordering: Option<String>,
    /// Only what is of the organization with this slug.
    pub organization: Option<String>,
}

/// The envelope of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Listing<T> {
    pub count: u64,
    pub next: Option<String>,
    pub previous: Option<String>,
    pub results: Vec<T>,
}

/// Where the client reached us: the front of the URLs in answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site(String);

impl Site {
    /// `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.0)
    }

    fn of(headers: &HeaderMap, uri: &Uri) -> Self {
        let named = uri.authority().map(|authority| authority.as_str());
        let host = named.or_else(|| headers.get(header::HOST)?.to_str().ok()).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        let trusted = !host.is_empty() && host.chars().all(plain);
        Self(if trusted { host.to_owned() } else { "localhost".to_owned() })
    }
}

impl<S: Sync> FromRequestParts<S> for Site {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self::of(&parts.headers, uri(parts)))
    }
}

/// As the client wrote it: a nested router sees less.
fn uri(parts: &Parts) -> &Uri {
    parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0)
}

impl<S: Sync> FromRequestParts<S> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::read(&parts.headers, uri(parts))
    }
}

impl ListQuery {
    fn read(headers: &HeaderMap, uri: &Uri) -> Result<Self, ApiError> {
        let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| ApiError::bad_request("The query string is malformed."))?;
        let number = match first(&parameters, "page").map(str::parse) {
            None => 1,
            Some(Ok(number @ 1..=LARGEST_PAGE)) => number,
            Some(_) => return Err(ApiError::invalid_page()),
        };
        let size = match first(&parameters, "page_size").and_then(|size| size.parse().ok()) {
            Some(size @ 1_u32..) => size.min(LARGEST_SIZE),
            _ => DEFAULT_SIZE,
        };
        let site = Site::of(headers, uri);
        let known = Vec::new();
        Ok(Self { parameters, known, page: number, page_size: size, uri: uri.clone(), site })
    }

    /// A filter, if it is there and not blank; as in a body, what is around it is no part of it.
    pub fn text(&mut self, field: &'static str) -> Option<&str> {
        self.known.push((field, false));
        first(&self.parameters, field).map(str::trim).filter(|value| !value.is_empty())
    }

    /// Every value that was given by any of these names, blank ones too.
    pub fn all(&mut self, fields: &[&'static str]) -> Vec<&str> {
        self.known.extend(fields.iter().map(|field| (*field, true)));
        let named = self.parameters.iter().filter(|(name, _)| fields.contains(&name.as_str()));
        named.map(|(_, value)| value.trim()).collect()
    }

    /// Refuses what is blank, save the page asked for: it would be a condition less.
    pub fn filled(&self) -> Result<(), ApiError> {
        let blank = self
            .parameters
            .iter()
            .filter(|(name, value)| value.trim().is_empty() && !PAGE.contains(&name.as_str()));
        refuse(blank.map(|(name, _)| (name, "This parameter may not be blank.".to_owned())))
    }

    /// Refuses what nobody has asked for, for a misspelt condition is one less; and what was given twice, for
    /// nobody knows which is meant.
    pub fn finish(&self) -> Result<(), ApiError> {
        self.take(&[])
    }

    fn take(&self, more: &[&'static str]) -> Result<(), ApiError> {
        let mut known = self.known.clone();
        known.extend(more.iter().map(|name| (*name, false)));
        let given = |name: &String| self.parameters.iter().filter(|(of, _)| of == name).count();
        let wrong = self.parameters.iter().filter_map(|(name, value)| {
            // Clients of Django's REST framework say so; there is nothing else.
            let is_format = name == "format" && value == "json";
            let message = match known.iter().find(|(of, _)| of == name) {
                None if is_format => return None,
                None => unknown(&known),
                Some((_, false)) if given(name) > 1 => "Give this parameter once.".to_owned(),
                Some(_) => return None,
            };
            Some((name, message))
        });
        refuse(wrong)
    }

    /// A filter of another type; 400 with the field named when it is not one.
    pub fn filter<T: FromStr>(
        &mut self,
        field: &'static str,
        message: &str,
    ) -> Result<Option<T>, ApiError> {
        let parsed = self.text(field).map(str::parse).transpose();
        parsed.map_err(|_| ApiError::field(field, message))
    }

    pub fn id<T: From<Uuid>>(&mut self, field: &'static str) -> Result<Option<T>, ApiError> {
        Ok(self.filter::<Uuid>(field, "Enter a valid UUID.")?.map(T::from))
    }

    /// A time as RFC 3339, in unix milliseconds.
    pub fn time(&mut self, field: &'static str) -> Result<Option<u64>, ApiError> {
        let message = "Enter a valid date and time, as RFC 3339.";
        let time = self.filter::<jiff::Timestamp>(field, message)?;
        let millis = |time: jiff::Timestamp| u64::try_from(time.as_millisecond()).unwrap_or(0);
        Ok(time.map(millis))
    }

    pub fn boolean(&mut self, field: &'static str) -> Result<Option<bool>, ApiError> {
        self.filter(field, "Select a valid choice: true or false.")
    }

    pub fn organization(&mut self) -> Result<Option<OrganizationSlug>, ApiError> {
        self.filter("organization", "Enter an organization's slug.")
    }

    /// The first of `columns` that `?ordering=` names, else `default`.
    pub fn order(&mut self, columns: &[&'static str], default: Order) -> Order {
        let terms = self.text("ordering").unwrap_or_default().split(',').map(str::trim);
        let mut known = terms.filter_map(|term| {
            let name = term.strip_prefix('-').unwrap_or(term);
            let column = columns.iter().find(|column| **column == name)?;
            Some(Order { column, descending: term.starts_with('-') })
        });
        known.next().unwrap_or(default)
    }

    /// The page asked for, once everything else was; [`ListQuery::finish`] says what is refused.
    pub fn rows(&self) -> Result<Rows, ApiError> {
        self.take(&PAGE)?;
        Ok(Rows { offset: (self.page - 1) * self.page_size, limit: self.page_size })
    }

    /// Puts the rows of this page into their envelope; a page past the end is 404.
    pub fn listing<T, V>(
        &self,
        found: Found<T>,
        view: impl FnMut(T) -> V,
    ) -> Result<Listing<V>, ApiError> {
        if found.rows.is_empty() && self.page > 1 {
            return Err(ApiError::invalid_page());
        }
        let next = self.next(found.count);
        let previous = (self.page > 1).then(|| self.link(self.page - 1));
        let results = found.rows.into_iter().map(view).collect();
        Ok(Listing { count: found.count, next, previous, results })
    }

    /// Where the next page of `count` rows is, if there is one.
    pub fn next(&self, count: u64) -> Option<String> {
        let more = u64::from(self.page) * u64::from(self.page_size) < count;
        more.then(|| self.link(self.page + 1))
    }

    fn link(&self, page: u32) -> String {
        let query = self.uri.query().unwrap_or_default();
        let others = query.split('&').filter(|pair| !pair.is_empty() && !is_page(pair));
        let mut parts: Vec<String> = others.map(str::to_owned).collect();
        if page > 1 {
            parts.push(format!("page={page}"));
        }
        let path = self.uri.path();
        let target = match parts.join("&") {
            query if query.is_empty() => path.to_owned(),
            query => format!("{path}?{query}"),
        };
        self.site.url(&target)
    }
}

fn first<'a>(parameters: &'a [(String, String)], field: &str) -> Option<&'a str> {
    parameters.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
}

fn refuse<'a>(wrong: impl Iterator<Item = (&'a String, String)>) -> Result<(), ApiError> {
    let errors: FieldErrors =
        wrong.take(NAMED).map(|(name, message)| (shown(name), vec![message])).collect();
    if errors.is_empty() { Ok(()) } else { Err(ApiError::fields(errors)) }
}

fn unknown(known: &[(&str, bool)]) -> String {
    let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    if names.is_empty() {
        return "Unknown parameter: none is taken here.".to_owned();
    }
    format!("Unknown parameter. There are: {}.", names.join(", "))
}

fn is_page(pair: &str) -> bool {
    pair == "page" || pair.starts_with("page=")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the filter that the tests' lists have.
    fn query(uri: &str) -> Result<ListQuery, ApiError> {
        let mut query = read(uri)?;
        query.text("status");
        Ok(query)
    }

    fn read(uri: &str) -> Result<ListQuery, ApiError> {
        let headers = HeaderMap::from_iter([(header::HOST, "mu.example:8443".parse().unwrap())]);
        ListQuery::read(&headers, &uri.parse().unwrap())
    }

    fn listing(uri: &str, count: u64, rows: Vec<u8>) -> Result<Listing<u8>, ApiError> {
        query(uri).unwrap().listing(Found { count, rows }, |row| row)
    }

    #[test]
    fn pages_link_to_their_neighbours() {
        let uri = "/x/?status=failed&page=2&page_size=3";
        assert_eq!(query(uri).unwrap().rows(), Ok(Rows { offset: 3, limit: 3 }));
        let second = listing(uri, 7, vec![4, 5, 6]).unwrap();
        let front = "https://mu.example:8443/x/?status=failed&page_size=3";
        assert_eq!(second.next, Some(format!("{front}&page=3")));
        assert_eq!(second.previous, Some(front.to_owned()));
        assert_eq!(listing("/x/", 10, vec![0; 10]).unwrap().next, None);
    }

    #[test]
    fn sizes_are_bounded_and_bad_pages_are_not_found() {
        assert_eq!(query("/x/?page_size=1000").unwrap().rows().unwrap().limit, 100);
        for size in ["0", "-1", "many", ""] {
            let list = query(&format!("/x/?page_size={size}")).unwrap();
            assert_eq!(list.rows().unwrap().limit, 10, "{size}");
        }
        for page in ["0", "-1", "x", "99999999999"] {
            let error = query(&format!("/x/?page={page}")).unwrap_err();
            assert_eq!(error, ApiError::invalid_page(), "{page}");
        }
        assert_eq!(listing("/x/?page=2", 3, vec![]).unwrap_err(), ApiError::invalid_page());
        assert_eq!(listing("/x/", 0, vec![]).unwrap().count, 0);
    }

    #[test]
    fn ordering_takes_only_known_columns() {
        let newest = Order { column: "created", descending: true };
        let order = |uri| query(uri).unwrap().order(&["name", "created"], newest);
        assert_eq!(order("/x/?ordering=-name"), Order { column: "name", descending: true });
        assert_eq!(order("/x/?ordering=name;drop"), newest);
        assert_eq!(order("/x/"), newest);
    }

    #[test]
    fn what_nobody_asks_for_is_named_and_so_is_what_there_is() {
        let refused = |uri| query(uri).unwrap().rows().unwrap_err().body;
        let told = "Unknown parameter. There are: status, page, page_size.";
        assert_eq!(refused("/x/?sttaus=failed&page=2"), serde_json::json!({"sttaus": [told]}));
        assert_eq!(refused("/x/?format=xml"), serde_json::json!({"format": [told]}));
        query("/x/?status=failed&page_size=5&format=json").unwrap().rows().unwrap();
        let none = "Unknown parameter: none is taken here.";
        let nothing = read("/x/?page=1").unwrap().finish().unwrap_err().body;
        assert_eq!(nothing, serde_json::json!({"page": [none]}));
        let many: Vec<_> = (0..5000).map(|n| format!("{n}=1")).collect();
        let shown = refused(&format!("/x/?{}", many.join("&")));
        assert_eq!(shown.as_object().unwrap().len(), NAMED);
    }

    #[test]
    fn what_comes_twice_is_refused_where_one_is_taken() {
        let refused = query("/x/?status=failed&status=idle").unwrap().rows().unwrap_err().body;
        assert_eq!(refused, serde_json::json!({"status": ["Give this parameter once."]}));
        query("/x/?page=1&page=2").unwrap().rows().unwrap_err();
        let mut list = read("/x/?tag=a&tags=b&tag=").unwrap();
        assert_eq!(list.all(&["tag", "tags"]), ["a", "b", ""]);
        list.finish().unwrap();
        let blank = "This parameter may not be blank.";
        assert_eq!(list.filled().unwrap_err().body, serde_json::json!({"tag": [blank]}));
    }

    #[test]
    fn a_strange_host_is_not_repeated() {
        let headers = HeaderMap::from_iter([(header::HOST, "a/b\"<".parse().unwrap())]);
        assert_eq!(Site::of(&headers, &"/x/".parse().unwrap()), Site("localhost".to_owned()));
    }
}
