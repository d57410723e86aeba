//! Lists out of the store: whose rows are visible, which of them are wanted, in what order, and how
//! many at a time.

use rusqlite::{Row, params_from_iter, types::Value};
use shared::ids::OrganizationId;

use super::StoreError;
use super::reader::Snapshot;

/// Whose rows somebody may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    Everything,
    Organizations(Vec<OrganizationId>),
}

impl Scope {
    /// Whether rows of `organization` are visible; shared ones (`None`) are to everybody.
    pub fn sees(&self, organization: Option<OrganizationId>) -> bool {
        match (self, organization) {
            (Self::Everything, _) | (_, None) => true,
            (Self::Organizations(members), Some(organization)) => members.contains(&organization),
        }
    }
}

/// Rows to skip and to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    pub offset: u32,
    pub limit: u32,
}

/// A column to sort by, one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub column: &'static str,
    pub descending: bool,
}

/// Some rows, and how many there are of them altogether.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    pub count: u64,
    pub rows: Vec<T>,
}

/// The rows of the organization with this slug. A join would be made for every row that is counted.
pub(super) const OF_ORGANIZATION: &str =
    "t.organization = (SELECT id FROM organizations WHERE slug = ?)";

/// A WHERE clause that grows condition by condition. The SQL is ours; from outside come only values.
#[derive(Debug, Default)]
pub(super) struct Where {
    sql: String,
    /// The same for a page of rows: it is read in their order, and not gathered from several places of an
    /// index and sorted, however many rows those have.
    ordered: String,
    values: Vec<Value>,
    /// Rows are found by what narrows them, and sorted.
    gathered: bool,
}

impl Where {
    /// Has a page's rows found by the conditions, and not by their order.
    pub(super) fn gathered(&mut self) -> &mut Self {
        self.gathered = true;
        self
    }

    /// `condition` has one `?`.
    pub(super) fn and(&mut self, condition: &str, value: impl Into<Value>) -> &mut Self {
        self.push(condition);
        self.values.push(value.into());
        self
    }

    /// A condition without a value.
    pub(super) fn only(&mut self, condition: &str) -> &mut Self {
        self.push(condition);
        self
    }

    /// As [`Where::and`], for a filter that may be absent.
    pub(super) fn and_if(&mut self, condition: &str, value: Option<impl ToString>) -> &mut Self {
        match value {
            Some(value) => self.and(condition, value.to_string()),
            None => self,
        }
    }

    /// Only rows whose organization in `column`, which is never NULL, is visible.
    pub(super) fn visible(&mut self, column: &str, scope: &Scope) -> &mut Self {
        self.of_members(scope, |marks| format!("{column} IN ({marks})"))
    }

    /// Only rows whose organization in `column` is visible, shared (NULL) ones among them. No index
    /// serves this: it is for small tables.
    pub(super) fn visible_or_shared(&mut self, column: &str, scope: &Scope) -> &mut Self {
        self.of_members(scope, |marks| format!("({column} IS NULL OR {column} IN ({marks}))"))
    }

    /// Only rows whose `column` is one of these.
    pub(super) fn any_of(
        &mut self,
        column: &str,
        values: impl IntoIterator<Item = impl ToString>,
    ) -> &mut Self {
        let values: Vec<_> =
            values.into_iter().map(|value| Value::from(value.to_string())).collect();
        self.push_among(values.len(), |marks| format!("{column} IN ({marks})"));
        self.values.extend(values);
        self
    }

    fn of_members(&mut self, scope: &Scope, condition: impl Fn(String) -> String) -> &mut Self {
        let Scope::Organizations(members) = scope else {
            return self;
        };
        self.push_among(members.len(), condition);
        self.values.extend(members.iter().map(|member| Value::from(member.to_string())));
        self
    }

    /// As [`Where::and`], for one of several values.
    pub(super) fn one_of(&mut self, column: &str, values: &[String]) -> &mut Self {
        let list = serde_json::Value::from(values.to_vec()).to_string();
        self.and(&format!("{column} IN (SELECT value FROM json_each(?))"), list)
    }

    /// The clause, and what belongs in its places.
    pub(super) fn clause(&self) -> (&str, &[Value]) {
        (&self.sql, &self.values)
    }

    /// A condition on one of `count` values.
    fn push_among(&mut self, count: usize, condition: impl Fn(String) -> String) {
        let condition = condition(vec!["?"; count].join(","));
        // What has a sign is no key to an index.
        let ordered = if count > 1 { format!("+{condition}") } else { condition.clone() };
        self.push_both(&condition, &ordered);
    }

    fn push(&mut self, condition: &str) {
        self.push_both(condition, condition);
    }

    fn push_both(&mut self, condition: &str, ordered: &str) {
        let word = if self.sql.is_empty() { " WHERE " } else { " AND " };
        for (sql, condition) in [(&mut self.sql, condition), (&mut self.ordered, ordered)] {
            sql.push_str(word);
            sql.push_str(condition);
        }
    }
}

/// Counts and reads `columns` of `from` (a table, or several joined, the first called `t`). What is
/// equal in `order` stands as it came in, which every index knows without sorting.
pub(super) fn list<T>(
    conn: &Snapshot<'_>,
    (columns, from): (&str, &str),
    wanted: &Where,
    order: Order,
    rows: Rows,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Found<T>, StoreError> {
    let counting = format!("SELECT count(*) FROM {from}{}", wanted.sql);
    let count = conn.count(&counting, &wanted.values)?;
    let sign = if wanted.gathered { "+" } else { "" };
    let direction = if order.descending { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT {columns} FROM {from}{}
         ORDER BY {sign}t.{} {direction}, t.rowid {direction} LIMIT ? OFFSET ?",
        wanted.ordered, order.column,
    );
    #[cfg(test)]
    plans::note(conn, &counting, &sql);
    let mut statement = conn.prepare_cached(&sql)?;
    let page = [Value::from(rows.limit), Value::from(rows.offset)];
    let found = statement.query_map(params_from_iter(wanted.values.iter().chain(&page)), read)?;
    Ok(Found { count, rows: found.collect::<Result<_, _>>()? })
}

/// How lists are read, for the test that no list which grows is read from end to end.
#[cfg(test)]
pub(super) mod plans {
    use std::collections::HashMap;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use rusqlite::Connection;

    /// The plans of counting and of a page, with the page's SQL.
    #[derive(Debug, Clone)]
    pub(crate) struct Plan {
        pub counting: String,
        pub page: String,
        pub sql: String,
    }

    static NOTED: Mutex<Option<HashMap<String, Vec<Plan>>>> = Mutex::new(None);

    fn noted() -> MutexGuard<'static, Option<HashMap<String, Vec<Plan>>>> {
        NOTED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, of this database.
    pub(crate) fn watch(path: &str) {
        noted().get_or_insert_default().insert(path.to_owned(), Vec::new());
    }

    /// The plans since the last look.
    pub(crate) fn take(path: &str) -> Vec<Plan> {
        let mut noted = noted();
        let seen = noted.as_mut().and_then(|all| all.get_mut(path));
        seen.map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn note(conn: &Connection, counting: &str, sql: &str) {
        let Some(path) = conn.path().map(str::to_owned) else { return };
        if !noted().as_ref().is_some_and(|all| all.contains_key(&path)) {
            return;
        }
        let (counting, page) = (plan(conn, counting), plan(conn, sql));
        let plan = Plan { counting, page, sql: sql.to_owned() };
        noted().as_mut().and_then(|all| all.get_mut(&path)).into_iter().for_each(|all| {
            all.push(plan.clone());
        });
    }

    /// Of what the rows are found and ordered by; what a row's columns ask for is not of interest.
    fn plan(conn: &Connection, sql: &str) -> String {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        // A plan needs no values.
        let mut rows = statement.raw_query();
        let mut top = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            if row.get::<_, i64>("parent").unwrap() == 0 {
                top.push(row.get::<_, String>("detail").unwrap());
            }
        }
        top.join("; ")
    }
}
